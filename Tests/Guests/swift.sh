#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Servers in Swift: one on SwiftNIO's event loops with its own client, and the HTTP server of Examples/.
. "$(dirname "$0")/guest.sh"
needs swift curl ab
settings+=(HEAPTAP_EXIT=dump)
# The order of a dictionary, and of the fields of its JSON, is another in each process.
export SWIFT_DETERMINISTIC_HASHING=1
nio=$here/../GuestTests/Programs/echo http=$here/../../Examples/LeakyServer
for package in "$nio" "$http"; do
  swift build -q --package-path "$package" -c release -Xswiftc -g > "$scratch/build" 2>&1 \
    || fail "$(cat "$scratch/build")"
done

play() {
  local i port
  for ((i = 0; i < 5; i++)); do
    guest "$nio/.build/release/echo"
    echo "ended with $?"
  done
  start "$http/.build/release/LeakyServer" 0 > listening
  wait_until test -s listening || return 1
  port=$(sed -n 's/^listening on //p' listening)
  curl -s "http://127.0.0.1:$port/products/[1-300]?session=anna" | sha256sum
  curl -s -d '[{"product": 7, "count": 2}, {"product": 9, "count": 1}]' "http://127.0.0.1:$port/orders"
  echo
  snapshot "$server"
  ab -q -n 1000 -c 8 "http://127.0.0.1:$port/products/5?session=eve" | grep -E 'Complete|Failed|Non-2xx'
  curl -s -w '%{http_code}\n' "http://127.0.0.1:$port/nowhere"
  kill -TERM "$server"
  wait "$server"
  echo "ended with $?"
}

compare "Swift $(swift --version 2> /dev/null | sed -nE 's/.*Swift version ([^ ]*).*/\1/p'), $(allocator "$nio/.build/release/echo")" \
  "SwiftNIO $(sed -n '/"swift-nio"/,/}/s/.*"version" : "\(.*\)".*/\1/p' "$nio/Package.resolved"), and FlyingFox under ab, by answers"
