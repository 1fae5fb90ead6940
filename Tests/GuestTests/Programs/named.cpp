/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocates from functions whose names are long: says so, and sleeps until it is ended. */
#include <cstdio>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

struct Sessions {
  std::map<std::string, std::vector<int>> all;
  __attribute__((noinline)) void visit(const std::string &by, int showing) {
    all[by + ", of whom this is more than fits in place"].push_back(showing);
  }
};

namespace {
std::vector<char *> hidden;
__attribute__((noinline)) void hide(int size) { hidden.push_back(new char[size]); }
}  // namespace

int main() {
  char command;
  Sessions sessions;
  while (read(0, &command, 1) == 1) {
    for (int i = 0; i < 1000; i++)
      sessions.visit(std::to_string(i), i);
    hide(1 << 20);
    puts("done");
    fflush(stdout);
    while (command == '.')
      pause();
  }
}
