#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Java: its JIT compiler, garbage collectors, threads, and signals that are no failures to it.
. "$(dirname "$0")/guest.sh"
needs java javac
settings+=(HEAPTAP_EXIT=dump)
javac -d "$scratch" "$here/Programs/Work.java" || fail "Work.java does not compile"

play() {
  local collector
  for collector in SerialGC G1GC ParallelGC; do
    guest java -XX:+Use$collector -Xmx256m -cp "$scratch" Work
    echo "$collector ended with $?"
  done
}

compare "OpenJDK $(java -version 2>&1 | sed -n '1s/.*"\(.*\)".*/\1/p'), its own heap and $(allocator "$(realpath "$(command -v java)")")" \
  "threads, direct buffers, zlib, exceptions and null pointers with three collectors, by checksums"
