#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main job from end to end: a server leaks, is asked by signal, and the line is named.
#
#     make demo
#
# HEAPTAP_COMMAND and HEAPTAP_LIBRARY name another heaptap and libheaptap.so than those of the
# release build. Exit status: 0 when the comparison names the line first, 1 when it does not.
set -eu
cd "$(dirname "$0")/.."

heaptap=${HEAPTAP_COMMAND:-.build/release/heaptap-cli}
library=$(realpath "${HEAPTAP_LIBRARY:-.build/release/libheaptap.so}")
source=Examples/LeakyServer/Sources/LeakyServer/Sessions.swift
leak=$source:$(grep -n '// LEAK$' $source | cut -d: -f1)

server=
directory=$(mktemp -d)
clean_up() {
  [ -z "$server" ] || kill "$server" 2> /dev/null || :
  wait
  rm -rf "$directory"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# What happens, and the command that makes it happen.
say() {
  what=$1
  shift
  printf '\n# %s\n$ %s\n' "$what" "$*"
}

# Waits until a command succeeds, ten seconds at most.
wait_until() {
  what=$1
  shift
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ] || ! kill -0 "$server"; then
      echo "demo: waited for $what in vain" >&2
      exit 1
    fi
    sleep 0.1
  done
}

is_listening() { grep -q '^listening on ' "$directory/server.log"; }
is_recording() { "$heaptap" list | grep -q "^ *$server .* recording "; }
are_dumps() { [ "$(find "$directory" -name '*.pb' | wc -l)" -eq "$1" ]; }

ask_for_pages() {
  url="http://127.0.0.1:$port/products/[1-$1]?session=anna"
  say "$1 requests" curl -H "'Connection: close'" "'$url'"
  curl -sS -o "$directory/page" -H 'Connection: close' "$url"
}

send() {
  say "$2" kill "-$1" "$server"
  kill "-$1" "$server"
}

echo "building the server in Examples/LeakyServer"
${SWIFT:-swift} build -q --package-path Examples/LeakyServer -c release -Xswiftc -g \
  --product LeakyServer

say "the server starts, armed and asleep" \
  "LD_PRELOAD=libheaptap.so HEAPTAP=1 HEAPTAP_DIR=$directory LeakyServer &"
LD_PRELOAD=$library HEAPTAP=1 HEAPTAP_DIR=$directory HEAPTAP_LOG=stderr \
  Examples/LeakyServer/.build/release/LeakyServer > "$directory/server.log" 2>&1 &
server=$!
wait_until "the server" is_listening
port=$(sed -n 's/^listening on //p' "$directory/server.log")

ask_for_pages 100
send USR1 "its memory climbs: begin to record"
wait_until "recording to begin" is_recording
ask_for_pages 200
send USR2 "a first snapshot"
wait_until "the first snapshot" are_dumps 1
ask_for_pages 300
send USR2 "a second snapshot"
wait_until "the second snapshot" are_dumps 2

say "who is armed, and what they hold" heaptap list
"$heaptap" list

set -- "$directory"/*.pb
say "what grew between the two?" heaptap diff "${1##*/}" "${2##*/}"
"$heaptap" diff "$1" "$2" > "$directory/report"
cat "$directory/report"

case $(head -n 1 "$directory/report") in
  */"$leak in "*) printf '\nThe first row is the line that leaks: %s\n' "$leak" ;;
  *)
    printf '\ndemo: the line that leaks, %s, is not in the first row\n' "$leak" >&2
    exit 1
    ;;
esac
