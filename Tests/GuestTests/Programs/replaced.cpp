// SPDX-License-Identifier: Apache-2.0
// Has an operator delete of its own, PLAIN or ARRAY, which the runtime's other forms come to. Prints how often it
// was called, and deletes by each plain form a thousand times.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

static volatile int calls = 0;

#ifdef ARRAY
void operator delete[](void *block) noexcept
#else
void operator delete(void *block) noexcept
#endif
{
  calls = calls + 1;
  std::free(block);
}

int main() {
  for (int round = 0; round < 1000; round++) {
    void *volatile block = ::operator new(40);
    ::operator delete(block);
    block = ::operator new[](41);
    ::operator delete[](block);
    block = ::operator new(42);
    ::operator delete(block, std::size_t{42});
    block = ::operator new[](43);
    ::operator delete[](block, std::size_t{43});
  }
  std::printf("%d calls\n", calls);
  return 0;
}
