#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Go with C code in it: its scheduler's signals, stacks that move, and calls in both directions.
. "$(dirname "$0")/guest.sh"
needs go gcc
export GOFLAGS=-mod=mod GOTOOLCHAIN=local GO111MODULE=off GOCACHE=${GOCACHE:-$HOME/.cache/go-build}

go build -o "$scratch/work" "$here/Programs/work.go" > "$scratch/build" 2>&1 || fail "$(cat "$scratch/build")"
packages=(net os/user os/signal runtime/cgo)
if [ -n "$is_full" ]; then
  for package in "${packages[@]}"; do
    CGO_ENABLED=1 go test -c -o "$scratch/${package//\//_}.test" -ldflags=-linkmode=external "$package" \
      > "$scratch/build" 2>&1 || fail "$package: $(cat "$scratch/build")"
  done
fi

play() {
  local package
  # It ends by a system call of its own, which leaves no time for a dump.
  start "$scratch/work" go-on > answers
  wait_until grep -q recovered answers || return 1
  snapshot "$server"
  touch go-on
  wait "$server"
  echo "ended with $?"
  cat answers
  [ -n "$is_full" ] || return 0
  for package in "${packages[@]}"; do
    [ -e "$scratch/${package//\//_}.test" ] || continue
    (cd "$(go env GOROOT)/src/$package" && guest "$scratch/${package//\//_}.test" -test.v -test.short) 2>&1 \
      | grep -oE '^ *--- (PASS|FAIL|SKIP): [^ ]*|^(PASS|FAIL)$' | sort | sed "s,^,$package ,"
  done
}

what="goroutines, C and Go calling each other, garbage collection, by checksums"
[ -z "$is_full" ] || what+=", and the tests of ${packages[*]}"
compare "Go $(go env GOVERSION | sed 's/^go//'), Go's heap and $(allocator "$scratch/work")" "$what"
