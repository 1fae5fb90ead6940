#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GCC: the driver, cc1, cc1plus, the assembler and the linker, by the files that they make.
. "$(dirname "$0")/guest.sh"
needs gcc g++
settings+=(HEAPTAP_EXIT=dump)

play() {
  cat > large.cpp << 'CPP'
#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
int main(int argc, char **argv) {
  std::map<std::string, std::vector<int>> all;
  for (int i = 0; i < argc; i++) all[argv[i]].push_back(i);
  std::vector<std::string> names;
  for (const auto &each : all) names.push_back(each.first + std::to_string(each.second.size()));
  std::sort(names.begin(), names.end());
  try {
    return (int)all.at("none").size();
  } catch (const std::out_of_range &) {
    return 3;
  }
}
CPP
  cp "$here/../GuestTests/Programs/family.c" .
  guest gcc -O2 -frandom-seed=1 -c family.c
  guest g++ -O1 -frandom-seed=1 -c large.cpp
  # Its intermediate files bear random names.
  guest g++ -O1 -flto=2 -frandom-seed=1 -o large large.cpp
  ./large
  echo "ended with $?"
  echo 'int main(void) { return undeclared; }' > wrong.c
  guest gcc -c wrong.c 2>&1
  echo "ended with $?"
  sha256sum ./*.o large
}

compare "GCC $(gcc -dumpfullversion), $(allocator "$(gcc -print-prog-name=cc1)")" \
  "C and C++ with link-time optimisation, by checksums of what is made"
