#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Programs built with sanitizers, which have allocators of their own: what they find they find under the tracer
# too. Where a sanitizer has the process to itself the tracer stays off, and says so.
. "$(dirname "$0")/guest.sh"
needs gcc clang
settings+=(HEAPTAP_EXIT=dump)

# AddressSanitizer as a shared library, which is GCC's default, refuses any library that is preloaded.
build() {
  "$@" -g -O1 -pthread "$here/Programs/sanitized.c" > "$scratch/build" 2>&1 || fail "$* : $(cat "$scratch/build")"
}
build clang -fsanitize=address -o "$scratch/clang-address"
build gcc -fsanitize=address -static-libasan -o "$scratch/gcc-address"
build gcc -fsanitize=thread -o "$scratch/gcc-thread"
build gcc -fsanitize=undefined -o "$scratch/gcc-undefined"
build gcc -fsanitize=leak -o "$scratch/gcc-leak"

for program in clang-address gcc-address gcc-thread; do
  HEAPTAP=1 HEAPTAP_LOG=stderr LD_PRELOAD=$library "$scratch/$program" > "$scratch/said" 2>&1
  grep -q 'Heaptap stays off' "$scratch/said" \
    || fail "$program: the tracer does not say that it stays off: $(cat "$scratch/said")"
done

play() {
  local program what
  for program in clang-address gcc-address gcc-thread gcc-undefined gcc-leak; do
    for what in nothing "${program#*-}"; do
      guest "$scratch/$program" $what 2> errors
      echo "$program, $what: ended with $?"
      grep -oE 'SUMMARY: .*|runtime error: .*' errors
    done
  done
}

compare "GCC $(gcc -dumpfullversion) and $(clang --version | sed -nE '1s/.*(clang version [^ ]*).*/\1/p'), $(allocator "$scratch/gcc-leak") and the sanitizers' own" \
  "AddressSanitizer, ThreadSanitizer (both: the tracer stays off), UndefinedBehaviorSanitizer, LeakSanitizer, by findings"
