// SPDX-License-Identifier: Apache-2.0
// Containers that grow, shrink and go, the same in every run. Prints the bytes and blocks that it
// leaves behind on purpose.

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

struct Leak {
  char bytes[123];
};

int main() {
  static char buffer[256];
  std::setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  int leaked = 0;
  std::map<int, std::string> names;
  std::unordered_map<std::string, std::vector<int>> table;
  std::vector<std::unique_ptr<std::string>> owned;
  for (int i = 0; i < 3000; i++) {
    names[i * 7 % 1009] = std::string(static_cast<std::size_t>(i % 100), 'n');
    table["key " + std::to_string(i % 301)].push_back(i);
    owned.push_back(std::make_unique<std::string>(40, 'o'));
    if (i % 3 == 0) owned.erase(owned.begin());
    if (i % 10 == 0) {
      volatile Leak *leak = new Leak;
      leak->bytes[0] = 1;
      leaked++;
    }
  }
  std::printf("%zu %d\n", static_cast<std::size_t>(leaked) * sizeof(Leak), leaked);
}
