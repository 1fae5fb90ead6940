/* SPDX-License-Identifier: Apache-2.0
 * The oracle of whole programs: preloaded in front of libheaptap.so, it walks the stack of one
 * allocation in N by libunwind, asks the tracer for the same block's, and compares.
 *
 * Its names of the malloc family are of glibc's versions and hidden (name@VERSION): calls, which ask
 * for a version, find them; the tracer, which looks by dlsym whether another malloc comes before its
 * own, does not. libunwind is opened in a scope of its own: its _Unwind_RaiseException would otherwise
 * be the program's.
 *
 *   ORACLE_DIR    where each process keeps its counts, in NUMBER.counts, and `differences` are
 *                 appended
 *   ORACLE_EVERY  N; 1 for every allocation
 *   ORACLE_NEW    compares this many stacks besides when they are met first (0)
 *   ORACLE_LIMIT  compares no more than this many (all)
 *   ORACLE_GDB    1 where gdb looks on
 *
 * Contract: nothing here allocates or changes errno; a signal handler that allocates while its thread
 * is in here passes through. */
#define _GNU_SOURCE
#define UNW_LOCAL_ONLY
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libunwind.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH = 1024, SEEN = 1 << 16, SHOWN = 20 };

/* One process's counts, in a file that outlives it however it ends. */
struct counts {
  /* `untabled`: the two part ways after a function without an unwind table; `async`: where a Swift task's
   * awaiting callers follow, which no unwinder knows. */
  uint64_t compared, equal, unknown, frames, untabled, async;
  char program[32];
};

#define NAME_OF(symbol) #symbol
#define FIND(library, symbol) dlsym(library, NAME_OF(symbol))
static __typeof__(&unw_tdep_getcontext) get_context;
static __typeof__(&unw_init_local) init_local;
static __typeof__(&unw_step) step;
static __typeof__(&unw_get_reg) get_register;
static __typeof__(&unw_get_proc_info_by_ip) find_table;
static unw_addr_space_t space;

static size_t (*traceback)(const void *, uintptr_t *, size_t, size_t *);
static const char *directory;
static int is_debugged;
static unsigned long every, limit = -1UL, new_limit;
static struct counts *counts;
static pid_t counted_pid;
static unsigned long calls, sampled, new_ones, shown, shown_known;
static unsigned char seen[SEEN / 8];
static __thread int is_inside;

static unsigned long number_of(const char *name, unsigned long otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoul(text, NULL, 10) : otherwise;
}

static void begin_process(void) {
  char path[512];
  struct counts *fresh = MAP_FAILED;
  int file = -1;
  for (int image = 0; file < 0 && image < 100; image++) {
    snprintf(path, sizeof path, "%s/%d-%d.counts", directory, getpid(), image);
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0 && errno != EEXIST)
      break;
  }
  if (file >= 0 && ftruncate(file, 4096) == 0)
    fresh = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0)
    close(file);
  if (fresh == MAP_FAILED)
    _exit(99); /* a test that counts nothing must not pass */
  strncpy(fresh->program, program_invocation_short_name, sizeof fresh->program - 1);
  counts = fresh;
  counted_pid = getpid();
  shown = shown_known = 0;
}

__attribute__((constructor)) static void begin(void) {
  directory = getenv("ORACLE_DIR");
  traceback = dlsym(RTLD_DEFAULT, "heaptap_traceback");
  dlerror();
  new_limit = number_of("ORACLE_NEW", 0);
  limit = number_of("ORACLE_LIMIT", -1UL);
  is_debugged = number_of("ORACLE_GDB", 0) != 0;
  if (!directory || !traceback)
    return;
  void *library = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL);
  if (!library)
    _exit(97);
  get_context = FIND(library, unw_tdep_getcontext);
  init_local = FIND(library, unw_init_local);
  step = FIND(library, unw_step);
  get_register = FIND(library, unw_get_reg);
  __typeof__(&unw_set_caching_policy) set_caching = FIND(library, unw_set_caching_policy);
  find_table = FIND(library, unw_get_proc_info_by_ip);
  space = *(unw_addr_space_t *)FIND(library, unw_local_addr_space);
  /* Caches would outlive the modules that are unloaded. */
  set_caching(space, UNW_CACHE_NONE);
  every = number_of("ORACLE_EVERY", 0);
}

/* Where a debugger looks at the same stack, from here outwards. After the frame `untabled` its guess
 * may be another than ours. */
__attribute__((noinline, noclone)) void heaptap_oracle_sampled(const uintptr_t *frames,
                                                               size_t count, size_t untabled) {
  __asm__ volatile("" ::"r"(frames), "r"(count), "r"(untabled) : "memory");
}

/* The first frame whose call is in no function's unwind table, or the count. */
static size_t first_untabled(const uintptr_t *frames, size_t count) {
  unw_proc_info_t table;
  size_t i = 0;
  while (i < count && find_table(space, frames[i] - 1, &table, NULL) >= 0)
    i++;
  return i;
}

static int is_tracer(uintptr_t address) {
  Dl_info tracer, other;
  return dladdr((void *)traceback, &tracer) && dladdr((void *)(address - 1), &other) &&
         tracer.dli_fbase == other.dli_fbase;
}

static size_t walk(uintptr_t *frames, uintptr_t caller) {
  unw_context_t context;
  unw_cursor_t cursor;
  size_t count = 0;
  int has_begun = 0;
  get_context(&context);
  init_local(&cursor, &context);
  do {
    unw_word_t counter = 0;
    get_register(&cursor, UNW_REG_IP, &counter);
    /* The end; libunwind takes it for a call of a null pointer, and reads on above the stack. */
    if (counter == 0)
      break;
    /* Before the caller there are the oracle's own frames; no stack shows the tracer's. */
    has_begun |= counter == caller;
    if (has_begun && !is_tracer(counter))
      frames[count++] = counter;
  } while (step(&cursor) > 0 && count < DEPTH);
  return count;
}

static int describe(char *text, size_t room, uintptr_t address) {
  Dl_info info;
  /* Of the call and not of what comes after it. */
  if (!address || !dladdr((void *)(address - 1), &info) || !info.dli_fname)
    return snprintf(text, room, "%lx", (unsigned long)address);
  const char *slash = strrchr(info.dli_fname, '/');
  return snprintf(text, room, "%lx %s+%lx %s", (unsigned long)address,
                  slash ? slash + 1 : info.dli_fname,
                  (unsigned long)(address - (uintptr_t)info.dli_fbase),
                  info.dli_sname ? info.dli_sname : "");
}

/* MARK: Names of functions, also of those that no other module sees */

struct symbols {
  const struct link_map *module;
  const Elf64_Sym *first, *end;
  const char *names;
};

static struct symbols read_symbols(const struct link_map *module) {
  struct symbols found = {.module = module};
  struct stat status;
  int file = open(*module->l_name ? module->l_name : "/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return found;
  const char *bytes = MAP_FAILED;
  if (fstat(file, &status) == 0)
    bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (bytes == MAP_FAILED)
    return found;
  const Elf64_Ehdr *header = (const void *)bytes;
  const Elf64_Shdr *sections = (const void *)(bytes + header->e_shoff);
  for (int i = 0; i < header->e_shnum; i++)
    if (sections[i].sh_type == SHT_SYMTAB) {
      found.first = (const void *)(bytes + sections[i].sh_offset);
      found.end = found.first + sections[i].sh_size / sizeof *found.end;
      found.names = bytes + sections[sections[i].sh_link].sh_offset;
    }
  return found;
}

/* The function that a call before an address is in; "" where nothing says so. */
static const char *name_of(uintptr_t address) {
  static __thread struct symbols known[64];
  Dl_info info;
  const struct link_map *module;
  if (!dladdr1((void *)(address - 1), &info, (void **)&module, RTLD_DL_LINKMAP))
    return "";
  size_t i = 0;
  while (i < 63 && known[i].module && known[i].module != module)
    i++;
  if (known[i].module != module)
    known[i] = read_symbols(module);
  uintptr_t wanted = address - 1 - module->l_addr;
  for (const Elf64_Sym *symbol = known[i].first; symbol < known[i].end; symbol++)
    if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && wanted - symbol->st_value < symbol->st_size)
      return known[i].names + symbol->st_name;
  return info.dli_sname ? info.dli_sname : "";
}

/* Whether a mangled name's own type, and not that of a parameter, has the effect of awaiting: `Ya`,
 * maybe other effects, and then a function, its generic signature, or a closure.
 * (docs/ABI/Mangling.rst of Swift's sources) */
static int awaits(const char *name) {
  while ((name = strstr(name, "Ya"))) {
    name += 2;
    const char *end = name;
    while (*end == 'K' || (*end == 'Y' && end[1]))
      end += *end == 'K' ? 1 : 2;
    if ((*end && strchr("FlrR", *end)) || !strncmp(end, "cf", 2) || !strncmp(end, "XEf", 3))
      return 1;
  }
  return 0;
}

/* Whether a function is what follows an await, TY0_ or TQ1_ by its last letters. */
static int is_part(const char *name) {
  size_t end = strlen(name);
  if (end < 5 || name[--end] != '_')
    return 0;
  while (end > 2 && name[end - 1] >= '0' && name[end - 1] <= '9')
    end--;
  return end > 2 && name[end - 2] == 'T' && (name[end - 1] == 'Y' || name[end - 1] == 'Q');
}

/* Whether a function is a part of one that awaits: by its last letters; the first part by its type, or,
 * of a thunk, by the convention `H`; of the runtime's own, those that an awaiting function enters. */
static int is_async(uintptr_t address) {
  const char *name = name_of(address);
  if (is_part(name))
    return 1;
  if (!strncmp(name, "$sI", 3))
    return name[strcspn(name, "H_")] == 'H';
  return (!strncmp(name, "$s", 2) && awaits(name)) || !strncmp(name, "swift_task", 10) ||
         !strncmp(name, "swift_asyncLet", 14) || !strncmp(name, "swift_continuation", 18);
}

/* A difference that has its reason in a frame that both have. */
static uint64_t *reason(const uintptr_t *ours, size_t our_count, const uintptr_t *theirs,
                        size_t their_count) {
  size_t same = 0;
  while (same < our_count && same < their_count && ours[same] == theirs[same])
    same++;
  if (same > 0 && is_async(ours[same - 1]))
    return &counts->async;
  /* There libunwind guesses, and its guess may hold for a frame, with a stack pointer that does not
   * for the next. */
  return first_untabled(ours, same) < same ? &counts->untabled : NULL;
}

/* Appended by one write, so that processes do not mix. */
static void show(const uintptr_t *ours, size_t our_count, const uintptr_t *theirs,
                 size_t their_count, const char *why) {
  static char text[256 << 10];
  static int is_taken;
  if (__atomic_exchange_n(&is_taken, 1, __ATOMIC_ACQUIRE))
    return;
  size_t length = (size_t)snprintf(text, sizeof text, "%s %d: %zu frames, by libunwind %zu%s\n",
                                   counts->program, getpid(), our_count, their_count, why);
  for (size_t i = 0; i < our_count || i < their_count; i++) {
    int is_same = i < our_count && i < their_count && ours[i] == theirs[i];
    for (int side = 0; side < (is_same ? 1 : 2); side++) {
      if (i >= (side ? their_count : our_count) || length > sizeof text - 1024)
        continue;
      length += (size_t)snprintf(text + length, 16, "  %s ",
                                 is_same ? "both" : side ? "theirs" : "ours");
      length += (size_t)describe(text + length, 900, side ? theirs[i] : ours[i]);
      text[length++] = '\n';
    }
  }
  char path[512];
  snprintf(path, sizeof path, "%s/differences", directory);
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file >= 0) {
    if (write(file, text, length) < 0)
      _exit(98);
    close(file);
  }
  __atomic_store_n(&is_taken, 0, __ATOMIC_RELEASE);
}

/* Whether a stack is met for the first time, as far as a few bits tell. */
static int is_new(const uintptr_t *frames, size_t count) {
  uint64_t hash = count;
  for (size_t i = 0; i < count; i++)
    hash = (hash ^ frames[i]) * 0x9E3779B97F4A7C15u;
  hash = (hash >> 32) % SEEN;
  unsigned char bit = (unsigned char)(1 << hash % 8);
  return !(__atomic_fetch_or(&seen[hash / 8], bit, __ATOMIC_RELAXED) & bit);
}

static void add(uint64_t *count, uint64_t more) {
  __atomic_fetch_add(count, more, __ATOMIC_RELAXED);
}

__attribute__((noinline)) static void compare(const void *block, uintptr_t caller, int is_due) {
  uintptr_t found[DEPTH], theirs[DEPTH];
  size_t total = 0, count = traceback(block, found, DEPTH, &total);
  if (!is_due && (count == 0 || !is_new(found, count) ||
                  __atomic_fetch_add(&new_ones, 1, __ATOMIC_RELAXED) >= new_limit))
    return;
  if (__atomic_fetch_add(&sampled, 1, __ATOMIC_RELAXED) >= limit)
    return;
  if (!counts || counted_pid != getpid())
    begin_process();
  if (count == 0)
    return add(&counts->unknown, 1);
  /* The innermost is the function below, which calls the tracer. */
  const uintptr_t *ours = found + 1;
  size_t our_count = count - 1;
  if (is_debugged)
    heaptap_oracle_sampled(ours, our_count, first_untabled(ours, our_count));
  size_t their_count = walk(theirs, caller);
  /* Of a stack that is deeper than HEAPTAP_DEPTH the tracer has the innermost frames, and the count
   * of all, as far as it counts. */
  int is_same_total = their_count == total - 1 || their_count == DEPTH;
  if (total > count && is_same_total)
    their_count = our_count;
  add(&counts->compared, 1);
  add(&counts->frames, our_count);
  if (our_count == their_count && !memcmp(ours, theirs, our_count * sizeof *theirs))
    return add(&counts->equal, 1);
  uint64_t *known = reason(ours, our_count, theirs, their_count);
  if (known)
    add(known, 1);
  if (__atomic_fetch_add(known ? &shown_known : &shown, 1, __ATOMIC_RELAXED) < SHOWN)
    show(ours, our_count, theirs, their_count,
         !known                      ? ""
         : known == &counts->async   ? ", by its awaiting callers"
                                     : ", after a function without a table");
}

__attribute__((noinline)) static void look(const void *block, uintptr_t caller) {
  int error = errno;
  int is_due = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED) % every == 0;
  if ((is_due || new_ones < new_limit) && sampled < limit)
    compare(block, caller, is_due);
  errno = error;
}

static void sample(const void *block, void *caller) {
  if (!every || !block || is_inside)
    return;
  is_inside = 1;
  __asm__ volatile("" ::: "memory");
  look(block, (uintptr_t)caller);
  __asm__ volatile("" ::: "memory");
  is_inside = 0;
}

/* The next definition of a name: the tracer's. */
#define NEXT(name)                                                                                 \
  static __typeof__(&name) next;                                                                   \
  if (!next)                                                                                       \
    next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define CALLER __builtin_return_address(0)
#define IN_FRONT __attribute__((noinline, visibility("default")))
#define TAKES(name, version) __asm__(".symver oracle_" #name ", " #name "@GLIBC_" version)

TAKES(malloc, "2.2.5");
IN_FRONT void *oracle_malloc(size_t size) {
  NEXT(malloc);
  void *block = next(size);
  sample(block, CALLER);
  return block;
}
TAKES(calloc, "2.2.5");
IN_FRONT void *oracle_calloc(size_t count, size_t size) {
  NEXT(calloc);
  void *block = next(count, size);
  sample(block, CALLER);
  return block;
}
TAKES(realloc, "2.2.5");
IN_FRONT void *oracle_realloc(void *old, size_t size) {
  NEXT(realloc);
  void *block = next(old, size);
  sample(block, CALLER);
  return block;
}
TAKES(reallocarray, "2.26");
IN_FRONT void *oracle_reallocarray(void *old, size_t count, size_t size) {
  NEXT(reallocarray);
  void *block = next(old, count, size);
  sample(block, CALLER);
  return block;
}
extern void *memalign(size_t, size_t);
TAKES(memalign, "2.2.5");
IN_FRONT void *oracle_memalign(size_t alignment, size_t size) {
  NEXT(memalign);
  void *block = next(alignment, size);
  sample(block, CALLER);
  return block;
}
TAKES(aligned_alloc, "2.16");
IN_FRONT void *oracle_aligned_alloc(size_t alignment, size_t size) {
  NEXT(aligned_alloc);
  void *block = next(alignment, size);
  sample(block, CALLER);
  return block;
}
TAKES(posix_memalign, "2.2.5");
IN_FRONT int oracle_posix_memalign(void **ret_block, size_t alignment, size_t size) {
  NEXT(posix_memalign);
  int error = next(ret_block, alignment, size);
  if (!error)
    sample(*ret_block, CALLER);
  return error;
}
