// SPDX-License-Identifier: Apache-2.0
// Generates code that allocates, and tells of it in its perf map as the argument says.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef void *allocate(size_t size, void *(*allocator)(size_t));

/* push %rbp; mov %rsp,%rbp; call *%rsi; pop %rbp; ret */
static const unsigned char framed[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd6, 0x5d, 0xc3};

static void *region(void *place, size_t size) {
  void *base = mmap(place, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS | (place ? MAP_FIXED_NOREPLACE : 0), -1, 0);
  if (base == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  return base;
}

static char path[64];

static void tell(const char *lines, mode_t mode) {
  FILE *map = fopen(path, "a");
  fputs(lines, map);
  fclose(map);
  chmod(path, mode);
}

static const char *line(const void *start, size_t size, const char *name) {
  static char text[2000];
  snprintf(text, sizeof text, "%lx %zx %s\n", (unsigned long)start, size, name);
  return text;
}

static int told(const char *how) {
  unsigned char *code = region(NULL, 8192);
  memcpy(code, framed, sizeof framed);
  memcpy(code + 4096, framed, sizeof framed);
  tell("no entry\n\n7 \nffffffffffffffff ffffffffffffffff beyond\n0 0 nothing\n", 0644);
  tell(line(code - 64, 8192, "everything"), 0644);
  tell(line(code, sizeof framed, "before it was replaced"), 0644);
  char name[1500];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = 0;
  tell(line(code + 4096, 16, name), 0644);
  tell(line(code, sizeof framed, "JS:*grow \x1b[31m\xc3\xa4\xff /app/cache.js:7:3"), 0644);
  if (!strcmp(how, "open"))
    chmod(path, 0666);
  if (!strcmp(how, "foreign") && chown(path, 65534, 65534)) {
    perror("chown");
    return 1;
  }
  if (!strcmp(how, "link")) {
    char other[80];
    snprintf(other, sizeof other, "%s.other", path);
    rename(path, other);
    if (symlink(other, path))
      return 1;
  }
  if (!strcmp(how, "pipe")) {
    unlink(path);
    if (mkfifo(path, 0600))
      return 1;
  }
  if (!strcmp(how, "absent"))
    unlink(path);
  ((allocate *)code)(50001, malloc);
  ((allocate *)(code + 4096))(50002, malloc);
  return 0;
}

static int find(struct dl_phdr_info *module, size_t size, void *range) {
  (void)size;
  uintptr_t *bounds = range;
  if (!strstr(module->dlpi_name, "generated-library"))
    return 0;
  bounds[0] = module->dlpi_addr;
  for (int i = 0; i < module->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = &module->dlpi_phdr[i];
    uintptr_t end = module->dlpi_addr + header->p_vaddr + header->p_memsz;
    if (header->p_type == PT_LOAD && end > bounds[1])
      bounds[1] = (end + 4095) & ~4095ul;
  }
  return 1;
}

/* Generated code where a library was, then that library again in its place: the same bytes at the same
 * addresses, but the library's frames are found by its table only. */
static int replaced(const char *library) {
  void *handle = dlopen(library, RTLD_NOW);
  uintptr_t bounds[2] = {0, 0};
  if (!handle || !dl_iterate_phdr(find, bounds))
    return 2;
  void *function = dlsym(handle, "library_allocate");
  size_t offset = (uintptr_t)function - bounds[0];
  unsigned char bytes[64];
  memcpy(bytes, function, sizeof bytes);
  dlclose(handle);
  size_t size = bounds[1] - bounds[0];
  void *base = region((void *)bounds[0], size);
  memcpy((char *)base + offset, bytes, sizeof bytes);
  ((allocate *)((char *)base + offset))(60001, malloc);
  munmap(base, size);
  handle = dlopen(library, RTLD_NOW);
  function = dlsym(handle, "library_allocate");
  ((allocate *)function)(60002, malloc);
  puts((uintptr_t)function == bounds[0] + offset ? "same place" : "another place");
  return 0;
}

int main(int count, char **arguments) {
  if (count > 2)
    return replaced(arguments[2]);
  snprintf(path, sizeof path, "/tmp/perf-%d.map", getpid());
  unlink(path);
  int status = told(count > 1 ? arguments[1] : "");
  puts("done");
  return status;
}
