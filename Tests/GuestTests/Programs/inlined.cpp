/* SPDX-License-Identifier: Apache-2.0
 *
 * A leak in a function that is inlined into a method that is inlined into main. */
#include <cstdlib>

static void *volatile kept[16];

namespace cache {
__attribute__((always_inline)) inline void grow(unsigned long size) {
  kept[size % 16] = malloc(size);  // INNER
}
struct Store {
  __attribute__((always_inline)) void insert() {
    grow(1000);  // OUTER
  }
};
}  // namespace cache

int main() {
  cache::Store store;
  store.insert();  // MAIN
  return kept[8] == nullptr;
}
