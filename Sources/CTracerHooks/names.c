/* SPDX-License-Identifier: Apache-2.0
 * Finds the originals at the first call of a name, and points the entries at a mode. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "single_thread.h"
#include "tracer_hooks.h"

/* The mark by which a second copy in the process knows that there is a first. */
const char heaptap_tracer_version[] = "0.1.0";

/* Swift's side. */
extern void tracer_did_resolve(const struct tracer_resolution *resolution, int has_boot_blocks);
extern void tracer_did_load(void);
extern void tracer_hook_free(void *block);
extern void tracer_hook_dlopen(void);
extern void tracer_hook_dlclose_before(void);
extern void tracer_hook_dlclose_after(void);
extern void tracer_exiting(void);

/* MARK: Before the originals are known */

/* dlsym may allocate while it is asked for malloc, and the loader before any constructor. */
static _Alignas(64) unsigned char boot[64 << 10];
static size_t boot_used;

int tracer_boot_contains(const void *block) {
  return (size_t)((const unsigned char *)block - boot) < sizeof boot;
}

static void *boot_allocate(size_t alignment, size_t size) {
  size_t start = (boot_used + 16 + alignment - 1) & ~(alignment - 1);
  if (size > sizeof boot || start > sizeof boot - size)
    return NULL;
  memcpy(boot + start - sizeof size, &size, sizeof size);
  boot_used = start + size;
  return boot + start;
}

static size_t boot_size(const void *block) {
  size_t size;
  memcpy(&size, (const unsigned char *)block - sizeof size, sizeof size);
  return size;
}

static void *boot_malloc(size_t size) { return boot_allocate(16, size); }
static void *boot_memalign(size_t alignment, size_t size) {
  return boot_allocate(alignment < 16 ? 16 : alignment, size);
}
static void *boot_calloc(size_t count, size_t size) {
  size_t total;
  return __builtin_mul_overflow(count, size, &total) ? NULL : boot_malloc(total);
}
static int boot_posix_memalign(void **ret_block, size_t alignment, size_t size) {
  *ret_block = boot_memalign(alignment, size);
  return *ret_block ? 0 : ENOMEM;
}
static void *boot_valloc(size_t size) { return boot_memalign((size_t)getpagesize(), size); }
static void boot_free(void *block) { (void)block; }

/* Moves a boot block to the allocator, or to a larger boot block while there is none. */
void *tracer_boot_realloc(void *block, size_t size) {
  void *moved = tracer_originals.malloc ? tracer_originals.malloc(size) : boot_malloc(size);
  if (moved && block)
    memcpy(moved, block, boot_size(block) < size ? boot_size(block) : size);
  return moved;
}

/* MARK: What an allocator may lack, made of what it has */

static void *plain_realloc(void *block, size_t size) {
  return tracer_boot_contains(block) ? tracer_boot_realloc(block, size)
                                     : tracer_originals.realloc(block, size);
}

static void plain_free(void *block) {
  if (!tracer_boot_contains(block))
    tracer_originals.free(block);
}

static size_t plain_usable_size(void *block) {
  if (tracer_boot_contains(block))
    return boot_size(block);
  return tracer_originals.malloc_usable_size ? tracer_originals.malloc_usable_size(block) : 0;
}

static void *plain_reallocarray(void *block, size_t count, size_t size) {
  size_t total;
  if (!__builtin_mul_overflow(count, size, &total))
    return plain_realloc(block, total);
  errno = ENOMEM;
  return NULL;
}

void *tracer_plain_memalign(size_t alignment, size_t size) {
  void *block;
  if (tracer_originals.memalign)
    return tracer_originals.memalign(alignment, size);
  if (tracer_originals.aligned_alloc)
    return tracer_originals.aligned_alloc(alignment, size);
  int error = tracer_originals.posix_memalign(&block, alignment < 8 ? 8 : alignment, size);
  if (error)
    errno = error;
  return error ? NULL : block;
}

void *tracer_plain_aligned_alloc(size_t alignment, size_t size) {
  return tracer_originals.aligned_alloc ? tracer_originals.aligned_alloc(alignment, size)
                                        : tracer_plain_memalign(alignment, size);
}

int tracer_plain_posix_memalign(void **ret_block, size_t alignment, size_t size) {
  if (tracer_originals.posix_memalign)
    return tracer_originals.posix_memalign(ret_block, alignment, size);
  if (alignment < sizeof(void *) || (alignment & (alignment - 1)))
    return EINVAL;
  void *block = tracer_plain_memalign(alignment, size);
  if (block)
    *ret_block = block;
  return block ? 0 : ENOMEM;
}

void *tracer_plain_valloc(size_t size) {
  return tracer_originals.valloc ? tracer_originals.valloc(size)
                                 : tracer_plain_memalign((size_t)getpagesize(), size);
}

void *tracer_plain_pvalloc(size_t size) {
  size_t page = (size_t)getpagesize(), rounded;
  if (tracer_originals.pvalloc)
    return tracer_originals.pvalloc(size);
  if (!__builtin_add_overflow(size, page - 1, &rounded))
    return tracer_plain_memalign(page, rounded & ~(page - 1));
  errno = ENOMEM;
  return NULL;
}

static void plain_free_sized(void *block, size_t size) {
  (void)size;
  plain_free(block);
}
static void plain_free_aligned_sized(void *block, size_t alignment, size_t size) {
  (void)alignment, (void)size;
  plain_free(block);
}
static void hook_free_sized(void *block, size_t size) {
  (void)size;
  tracer_hook_free(block);
}
static void hook_free_aligned_sized(void *block, size_t alignment, size_t size) {
  (void)alignment, (void)size;
  tracer_hook_free(block);
}

/* A jump and no call: the loader searches by the RUNPATH of whom it returns to. */
static void *hook_dlopen(const char *path, int mode) {
  tracer_hook_dlopen();
  __attribute__((musttail)) return tracer_originals.dlopen(path, mode);
}

/* On both sides of the call: between unmapping and the second, another thread may map new code at
 * the old addresses. */
static int hook_dlclose(void *module) {
  tracer_hook_dlclose_before();
  int result = tracer_originals.dlclose(module);
  tracer_hook_dlclose_after();
  return result;
}

static void leave(int status) {
  tracer_exiting();
  tracer_originals.exit_now(status);
  __builtin_unreachable();
}

/* MARK: Entries */

#define NAMES(DO)                                                                                  \
  DO(malloc) DO(calloc) DO(realloc) DO(reallocarray) DO(posix_memalign) DO(aligned_alloc)          \
  DO(memalign) DO(valloc) DO(pvalloc) DO(free) DO(free_sized) DO(free_aligned_sized)               \
  DO(malloc_usable_size) DO(dlopen) DO(dlclose) DO(_exit) DO(_Exit)
#define DECLARE_ENTRY(name) extern HIDDEN void *tracer_entry_##name, *tracer_dormant_##name;
NAMES(DECLARE_ENTRY)

#define RECORDED(DO)                                                                               \
  DO(malloc) DO(calloc) DO(realloc) DO(reallocarray) DO(posix_memalign) DO(aligned_alloc)          \
  DO(memalign) DO(valloc) DO(pvalloc)
#define DECLARE_RECORDING(name)                                                                    \
  extern HIDDEN void tracer_recording_##name(void);                                                \
  extern HIDDEN void tracer_sampling_##name(void);
RECORDED(DECLARE_RECORDING)
extern HIDDEN void tracer_sampling_free(void);

/* Release: what the new target needs must be visible before any thread can reach it. */
static void point(void **entry, void *target) {
  __atomic_store_n(entry, target, __ATOMIC_RELEASE);
}

enum finding { NOT_STARTED, FINDING, FOUND };
static int finding;

/* Requests are enlarged while recording, and the program goes on to give the size that it knows:
 * an allocator that believes it puts the block where smaller ones are kept. */
static int allocator_believes_sizes;

static void point_at_boot(void) {
  tracer_entry_malloc = boot_malloc;
  tracer_entry_calloc = boot_calloc;
  tracer_entry_realloc = tracer_boot_realloc;
  tracer_entry_memalign = tracer_entry_aligned_alloc = boot_memalign;
  tracer_entry_posix_memalign = boot_posix_memalign;
  tracer_entry_valloc = tracer_entry_pvalloc = boot_valloc;
  tracer_entry_free = boot_free;
}

/* What the entries lead to while nothing is recorded. */
static void note_dormant(void) {
#define DORMANT(name, target) tracer_dormant_##name = (void *)(target)
  DORMANT(malloc, tracer_originals.malloc);
  DORMANT(calloc, tracer_originals.calloc);
  DORMANT(realloc, boot_used ? (void *)plain_realloc : (void *)tracer_originals.realloc);
  DORMANT(reallocarray, plain_reallocarray);
  DORMANT(posix_memalign, tracer_plain_posix_memalign);
  DORMANT(aligned_alloc, tracer_plain_aligned_alloc);
  DORMANT(memalign, tracer_plain_memalign);
  DORMANT(valloc, tracer_plain_valloc);
  DORMANT(pvalloc, tracer_plain_pvalloc);
  DORMANT(free, boot_used ? (void *)plain_free : (void *)tracer_originals.free);
  DORMANT(free_sized, plain_free_sized);
  DORMANT(free_aligned_sized, plain_free_aligned_sized);
}

/* Runs once, at the first call of any name, which is made by the loader or the first constructor:
 * there is one thread. */
HIDDEN void tracer_find_originals(void) {
  if (finding != NOT_STARTED)
    return;
  finding = FINDING;
  point_at_boot();
  struct tracer_resolution resolution;
  tracer_resolve_originals(&resolution);
  tracer_find_identity_calls();
  finding = FOUND;
  allocator_believes_sizes = !resolution.allocator_is_glibc;
  point(&tracer_entry_malloc_usable_size, boot_used || !tracer_originals.malloc_usable_size
                                              ? (void *)plain_usable_size
                                              : (void *)tracer_originals.malloc_usable_size);
  point(&tracer_entry_dlopen, tracer_originals.dlopen);
  point(&tracer_entry_dlclose, tracer_originals.dlclose);
  point(&tracer_entry__exit, tracer_originals.exit_now);
  point(&tracer_entry__Exit, tracer_originals.exit_now);
  note_dormant();
  tracer_switch_freeing_entries(TRACER_ENTRIES_DORMANT);
  tracer_switch_allocating_entries(TRACER_ENTRIES_DORMANT);
  tracer_did_resolve(&resolution, boot_used != 0);
}

__attribute__((constructor)) static void load(void) {
  tracer_find_originals();
  tracer_did_load();
  /* What was not found has left a message, which the program must not take for its own; the second
   * call frees it. */
  dlerror();
  dlerror();
}

/* main has returned, or exit was called: the handlers of the program itself have run. */
__attribute__((destructor)) static void unload(void) { tracer_exiting(); }

void tracer_watch_exit(void) {
  point(&tracer_entry__exit, leave);
  point(&tracer_entry__Exit, leave);
}

/* MARK: C++'s operators */

#define OPERATORS(NEW, DELETE)                                                                     \
  NEW(_Znwm) NEW(_Znam) NEW(_ZnwmRKSt9nothrow_t) NEW(_ZnamRKSt9nothrow_t)                          \
  NEW(_ZnwmSt11align_val_t) NEW(_ZnamSt11align_val_t)                                              \
  NEW(_ZnwmSt11align_val_tRKSt9nothrow_t) NEW(_ZnamSt11align_val_tRKSt9nothrow_t)                  \
  DELETE(_ZdlPv) DELETE(_ZdaPv) DELETE(_ZdlPvm) DELETE(_ZdaPvm)                                    \
  DELETE(_ZdlPvRKSt9nothrow_t) DELETE(_ZdaPvRKSt9nothrow_t)                                        \
  DELETE(_ZdlPvSt11align_val_t) DELETE(_ZdaPvSt11align_val_t)                                      \
  DELETE(_ZdlPvmSt11align_val_t) DELETE(_ZdaPvmSt11align_val_t)                                    \
  DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t) DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t)
enum {
  FIRST_ALIGNED_NEW = 4,
  FIRST_DELETE = 8,
  FIRST_SIZED_DELETE = 10,
  FIRST_NOTHROW_DELETE = 12,
  FIRST_ALIGNED_SIZED_DELETE = 16,
  OPERATOR_COUNT = 20
};

#define DECLARE_NEW(name)                                                                          \
  extern HIDDEN void *tracer_entry_##name;                                                         \
  extern HIDDEN void tracer_recording_##name(void);                                                \
  extern HIDDEN void tracer_sampling_##name(void);                                                 \
  extern HIDDEN void tracer_nonzero_##name(void);
#define DECLARE_DELETE(name)                                                                       \
  extern HIDDEN void *tracer_entry_##name;                                                         \
  extern HIDDEN void tracer_recording_##name(void);                                                \
  extern HIDDEN void tracer_sampling_##name(void);                                                 \
  extern HIDDEN void tracer_own_##name(void);
OPERATORS(DECLARE_NEW, DECLARE_DELETE)

static const struct {
  const char *name;
  void **entry;
  void (*recording)(void);
  void (*sampling)(void);
  void (*nonzero)(void);
} operators[OPERATOR_COUNT] = {
#define DESCRIBE_NEW(name)                                                                         \
  {#name, &tracer_entry_##name, tracer_recording_##name, tracer_sampling_##name,                   \
   tracer_nonzero_##name},
#define DESCRIBE_DELETE(name)                                                                      \
  {#name, &tracer_entry_##name, tracer_recording_##name, tracer_sampling_##name, NULL},
    OPERATORS(DESCRIBE_NEW, DESCRIBE_DELETE)};

/* The originals of the operators; the stubs jump through it. */
HIDDEN void *tracer_operators[OPERATOR_COUNT];
/* Whose they are: an allocator's own, or one that calls malloc as C++'s runtime and we do. */
static enum provider { ALLOCATOR, CXX_RUNTIME, OURSELVES } operator_provider[OPERATOR_COUNT];
static int operators_mode;
static int has_recorded;

/* The form of a delete that is told no size, where the size may not be the allocator's. */
HIDDEN int tracer_unsized_delete(int index) {
  int is_sized = (index & ~1) == FIRST_SIZED_DELETE || (index & ~1) == FIRST_ALIGNED_SIZED_DELETE;
  return is_sized && allocator_believes_sizes && operator_provider[index] == ALLOCATOR ? index - 2 : index;
}

static int is_cxx_runtime(const void *address);

/* Whether a name that others may replace leads to ours, and from there to C++'s runtime. */
static int leads_to_runtime(const char *name, void (*ours)(void)) {
  return dlsym(RTLD_DEFAULT, name) == (void *)ours && is_cxx_runtime(dlsym(RTLD_NEXT, name));
}

/* The runtimes' four plain forms of delete call each other by name, and the last of them free: one jump
 * in place of three calls, unless the program or another library has one of the names on the way. */
static int deletes_by_free(int index) {
  static int answer = -1;
  if (index < FIRST_DELETE || index >= FIRST_NOTHROW_DELETE || operator_provider[index] != CXX_RUNTIME)
    return 0;
  if (answer < 0)
    answer =
        leads_to_runtime("_ZdlPv", tracer_own__ZdlPv) && leads_to_runtime("_ZdaPv", tracer_own__ZdaPv);
  return answer;
}

static void point_operator(int index) {
  void *target = tracer_operators[index];
  if (target && deletes_by_free(index)) {
    target = tracer_entry_free;
  } else if (has_recorded && tracer_unsized_delete(index) != index) {
    target = operators[index].recording; /* for good: enlarged blocks outlive the recording */
  } else if (operators_mode == TRACER_ENTRIES_SAMPLING) {
    /* Others call malloc, which samples the block by the size that it was asked for. */
    if (operator_provider[index] == ALLOCATOR)
      target = operators[index].sampling;
  } else if (operators_mode == TRACER_ENTRIES_RECORDING) {
    if (operator_provider[index] == ALLOCATOR)
      target = operators[index].recording;
    else if (operator_provider[index] == OURSELVES)
      target = tracer_operators[index]; /* asks malloc for just that size */
    else if (index < FIRST_ALIGNED_NEW)
      target = operators[index].nonzero; /* operator new(0) asks malloc for 1 byte */
    else if (index < FIRST_DELETE)
      target = operators[index].recording; /* the size is rounded up to the alignment */
  }
  if (tracer_operators[index])
    point(operators[index].entry, target);
}

/* The same operator as the calling module sees it: its own, or its runtime's. That module is on the
 * stack, so that it stays loaded. */
static void *operator_of_caller(const char *name, const void *caller) {
  Dl_info info;
  struct link_map *map;
  if (!dladdr1(caller, &info, (void **)&map, RTLD_DL_LINKMAP))
    return NULL;
  void *module = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
  void *found = module ? dlsym(module, name) : NULL;
  if (module)
    dlclose(module);
  return found == dlsym(RTLD_DEFAULT, name) ? NULL : found;
}

/* Operators of our own, for plug-ins that bring C++ into a C program, in a scope that RTLD_NEXT does
 * not search and with a runtime that goes with them. What to do when there is no memory (call a
 * handler, throw) is known to that runtime only. */
static void *out_of_memory(int index, size_t size, size_t second, size_t third, void *caller) {
  void *found = operator_of_caller(operators[index].name, caller);
  if (found)
    return ((void *(*)(size_t, size_t, size_t))found)(size, second, third);
  if (index == 2 || index == 6) /* nothrow */
    return NULL;
  abort();
}
static void *own_new(size_t size, size_t second, size_t third) {
  void *block = malloc(size);
  return block ? block : out_of_memory(0, size, second, third, __builtin_return_address(0));
}
static void *own_new_nothrow(size_t size, size_t second, size_t third) {
  void *block = malloc(size);
  return block ? block : out_of_memory(2, size, second, third, __builtin_return_address(0));
}
static void *own_new_aligned(size_t size, size_t alignment, size_t third) {
  void *block = aligned_alloc(alignment, size);
  return block ? block : out_of_memory(4, size, alignment, third, __builtin_return_address(0));
}
static void *own_new_aligned_nothrow(size_t size, size_t alignment, size_t third) {
  void *block = aligned_alloc(alignment, size);
  return block ? block : out_of_memory(6, size, alignment, third, __builtin_return_address(0));
}
static void *const own_operators[] = {own_new, own_new_nothrow, own_new_aligned,
                                      own_new_aligned_nothrow};

static int is_cxx_runtime_name(const char *path) {
  const char *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path;
  return !strncmp(name, "libstdc++.so", 12) || !strncmp(name, "libc++", 6);
}

static int is_cxx_runtime(const void *address) {
  const char *name = tracer_module_of(address).name;
  return name && is_cxx_runtime_name(name);
}

HIDDEN void tracer_find_operator(void *a, size_t b, size_t c, int index) {
  (void)a, (void)b, (void)c;
  tracer_find_originals();
  void *next = dlsym(RTLD_NEXT, operators[index].name);
  operator_provider[index] = !next ? OURSELVES : is_cxx_runtime(next) ? CXX_RUNTIME : ALLOCATOR;
  if (!next)
    next = index < FIRST_DELETE ? own_operators[index / 2] : (void *)free;
  tracer_operators[index] = next;
  int unsized = tracer_unsized_delete(index);
  if (!tracer_operators[unsized])
    tracer_find_operator(NULL, 0, 0, unsized);
  point_operator(index);
}

static int is_cxx_runtime_module(struct dl_phdr_info *module, size_t size, void *unused) {
  (void)size, (void)unused;
  return is_cxx_runtime_name(module->dlpi_name);
}

void tracer_find_present_operators(void) {
  tracer_find_originals();
  /* A search in vain would allocate, for its error text; so would asking for the runtime by dlopen. */
  if (!dl_iterate_phdr(is_cxx_runtime_module, NULL))
    return;
  for (int index = 0; index < OPERATOR_COUNT; index++)
    if (!tracer_operators[index] && dlsym(RTLD_NEXT, operators[index].name))
      tracer_find_operator(NULL, 0, 0, index);
}

/* MARK: Modes */

#define SWITCH(name, recording, sampling)                                                          \
  point(&tracer_entry_##name, mode == TRACER_ENTRIES_RECORDING  ? (void *)(recording)              \
                              : mode == TRACER_ENTRIES_SAMPLING ? (void *)(sampling)               \
                                                                : tracer_dormant_##name)
#define SWITCH_RECORDED(name) SWITCH(name, tracer_recording_##name, tracer_sampling_##name)

void tracer_switch_freeing_entries(int mode) {
  SWITCH(free, tracer_hook_free, tracer_sampling_free);
  SWITCH(free_sized, hook_free_sized, tracer_sampling_free);
  SWITCH(free_aligned_sized, hook_free_aligned_sized, tracer_sampling_free);
  SWITCH_RECORDED(realloc);
  SWITCH_RECORDED(reallocarray);
  if (mode != TRACER_ENTRIES_DORMANT) {
    point(&tracer_entry_dlopen, hook_dlopen);
    point(&tracer_entry_dlclose, hook_dlclose);
  }
  operators_mode = mode;
  has_recorded |= mode == TRACER_ENTRIES_RECORDING;
  for (int index = FIRST_DELETE; index < OPERATOR_COUNT; index++)
    point_operator(index);
}

void tracer_switch_allocating_entries(int mode) {
  SWITCH_RECORDED(malloc);
  SWITCH_RECORDED(calloc);
  SWITCH_RECORDED(posix_memalign);
  SWITCH_RECORDED(aligned_alloc);
  SWITCH_RECORDED(memalign);
  SWITCH_RECORDED(valloc);
  SWITCH_RECORDED(pvalloc);
  for (int index = 0; index < FIRST_DELETE; index++)
    point_operator(index);
}
