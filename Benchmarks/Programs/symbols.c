// SPDX-License-Identifier: Apache-2.0
// Questions about a program's code, for those who name addresses.
//
//     symbols ELF COUNT        prints that many addresses, evenly over the program's code
//     symbols ELF < ADDRESSES  writes a profile of a block from each of these addresses
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t base = 0x7f0000000000, page = 4096;

struct bytes {
  unsigned char *start;
  size_t count, capacity;
};

static void put(struct bytes *bytes, unsigned char byte) {
  if (bytes->count == bytes->capacity) {
    bytes->capacity = bytes->capacity * 2 + 64;
    bytes->start = realloc(bytes->start, bytes->capacity);
    if (!bytes->start) abort();
  }
  bytes->start[bytes->count++] = byte;
}

static void varint(struct bytes *bytes, uint64_t value) {
  for (; value >= 0x80; value >>= 7) put(bytes, value | 0x80);
  put(bytes, value);
}

// A field of a protocol buffer that is a number.
static void number(struct bytes *bytes, int field, uint64_t value) {
  varint(bytes, field << 3);
  varint(bytes, value);
}

static void text(struct bytes *bytes, int field, const void *start, size_t count) {
  varint(bytes, field << 3 | 2);
  varint(bytes, count);
  for (size_t i = 0; i < count; i++) put(bytes, ((const unsigned char *)start)[i]);
}

// A field that is a message, which is taken.
static void message(struct bytes *bytes, int field, struct bytes inner) {
  text(bytes, field, inner.start, inner.count);
  free(inner.start);
}

static void value_type(struct bytes *profile, int type, int unit) {
  struct bytes inner = {0};
  number(&inner, 1, type);
  number(&inner, 2, unit);
  message(profile, 1, inner);
}

int main(int argc, char **argv) {
  struct stat status;
  int file = argc < 2 ? -1 : open(argv[1], O_RDONLY);
  if (file < 0 || fstat(file, &status)) return fprintf(stderr, "usage: symbols ELF [COUNT]\n"), 64;
  const char *elf = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  const Elf64_Ehdr *header = (const void *)elf;
  const Elf64_Phdr *segments = (const void *)(elf + header->e_phoff), *code = NULL;
  char build_id[129] = "";
  for (int i = 0; i < header->e_phnum; i++) {
    if (segments[i].p_type == PT_LOAD && segments[i].p_flags & PF_X) code = &segments[i];
    if (segments[i].p_type != PT_NOTE) continue;
    const char *note = elf + segments[i].p_offset, *end = note + segments[i].p_filesz;
    while (note < end) {
      const Elf64_Nhdr *head = (const void *)note;
      const unsigned char *id = (const void *)(head + 1);
      id += (head->n_namesz + 3) & ~3;
      if (head->n_type == NT_GNU_BUILD_ID && head->n_descsz <= 64)
        for (unsigned b = 0; b < head->n_descsz; b++) sprintf(build_id + 2 * b, "%02x", id[b]);
      note = (const char *)id + ((head->n_descsz + 3) & ~3);
    }
  }
  if (!code) return fprintf(stderr, "no code in '%s'\n", argv[1]), 1;

  if (argc > 2) {
    uint64_t count = strtoull(argv[2], NULL, 10);
    for (uint64_t i = 0; i < count; i++)
      printf("0x%lx\n", (unsigned long)(code->p_vaddr + code->p_filesz * i / count));
    return 0;
  }

  struct bytes profile = {0}, mapping = {0};
  // Numbers of the strings below.
  value_type(&profile, 1, 2);
  value_type(&profile, 3, 4);
  number(&mapping, 1, 1);
  number(&mapping, 2, base + (code->p_vaddr & ~(page - 1)));
  number(&mapping, 3, base + ((code->p_vaddr + code->p_memsz + page - 1) & ~(page - 1)));
  number(&mapping, 4, code->p_offset & ~(page - 1));
  number(&mapping, 5, 5);
  number(&mapping, 6, 6);
  message(&profile, 3, mapping);
  unsigned long address;
  for (uint64_t id = 1; scanf("%lx", &address) == 1; id++) {
    struct bytes sample = {0}, location = {0};
    number(&sample, 1, id);
    number(&sample, 2, 1);
    number(&sample, 2, 64);
    message(&profile, 2, sample);
    number(&location, 1, id);
    number(&location, 2, 1);
    // What a stack has is the address after the call.
    number(&location, 3, base + address + 1);
    message(&profile, 4, location);
  }
  char *path = realpath(argv[1], NULL);
  const char *strings[] = {"", "inuse_objects", "count", "inuse_space", "bytes", path, build_id};
  for (int i = 0; i < 7; i++) text(&profile, 6, strings[i], strlen(strings[i]));
  fwrite(profile.start, 1, profile.count, stdout);
  return 0;
}
