// SPDX-License-Identifier: Apache-2.0
// Maps its own C++ runtime once more, to read it, as a program does that searches or backs up files;
// then leaks from a function with a C++ name, asks for a snapshot and waits.

#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <vector>

static int read_runtime(struct dl_phdr_info *info, size_t, void *) {
  if (!std::strstr(info->dlpi_name, "libstdc++.so"))
    return 0;
  int file = open(info->dlpi_name, O_RDONLY | O_CLOEXEC);
  struct stat facts;
  if (file < 0 || fstat(file, &facts) != 0)
    std::abort();
  void *bytes = mmap(nullptr, facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  // Below the one that is loaded, where whoever looks through the mappings comes to it first.
  if (bytes == MAP_FAILED || (ElfW(Addr))bytes >= info->dlpi_addr)
    std::abort();
  return 1;
}

__attribute__((noinline)) void leak(const std::vector<void *> &blocks) {
  const_cast<std::vector<void *> &>(blocks).push_back(std::malloc(100000));
}

int main() {
  static std::vector<void *> blocks;
  if (dl_iterate_phdr(read_runtime, nullptr) != 1)
    return 1;
  leak(blocks);
  kill(getpid(), SIGUSR2);
  for (;;)
    pause();
}
