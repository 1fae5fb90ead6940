#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Perl: forks, interpreter threads, signals, sorting, regular expressions and Storable, by checksums.
. "$(dirname "$0")/guest.sh"
needs perl
settings+=(HEAPTAP_EXIT=dump HEAPTAP_SIGNALS=none)

play() { guest perl "$here/Programs/work.pl" 2>&1; }

compare "Perl $(perl -e 'printf "%vd", $^V'), $(allocator "$(command -v perl)")" \
  "forks, threads, its own SIGUSR1, sort, regular expressions, Storable, by checksums"
