#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rust: threads, channels, panics that unwind, and the compiler itself.
. "$(dirname "$0")/guest.sh"
needs rustc
settings+=(HEAPTAP_EXIT=dump)

play() {
  guest rustc -O -C codegen-units=2 -o work "$here/Programs/work.rs" || return 1
  guest ./work 2> panics
  echo "ended with $?"
  grep -c 'panicked at' panics
}

compare "Rust $(rustc --version | cut -d' ' -f2), $(allocator "$(command -v rustc)")" \
  "the compiler, and a program with threads, channels and panics, by its answers"
