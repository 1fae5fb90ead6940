/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap whose report is known: 10 entries of 100 bytes by cache::Store::insert, one block of 1 MiB
 * that nobody touches by main, and 40 blocks of 10 KiB by churn, all freed. */
#include <cstddef>

static char *volatile kept[16];

namespace cache {
struct Store {
  __attribute__((noinline)) void insert(int number) {
    kept[number] = new char[100];  // INSERT
  }
};
}  // namespace cache

__attribute__((noinline)) static void churn() {
  for (int i = 0; i < 40; i++) {
    char *volatile block = new char[10240];  // CHURN
    delete[] block;
  }
}

int main() {
  cache::Store store;
  for (int i = 0; i < 10; i++)
    store.insert(i);
  kept[10] = new char[1 << 20];  // BIG
  churn();
}
