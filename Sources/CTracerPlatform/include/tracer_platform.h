/* SPDX-License-Identifier: Apache-2.0
 *
 * The rim between the tracer and the machine: what Swift cannot say.
 *
 * Contract of everything here: no allocation, no lock, errno untouched (system calls are made
 * directly and answer -errno), safe in a signal handler. Sizes are bytes. A ret_ parameter is
 * written only on success.
 */
#ifndef TRACER_PLATFORM_H
#define TRACER_PLATFORM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/utsname.h>
#include <time.h>

/* Hidden: code that is not told so looks its address up in a table first. */
#define TRACER_SHARED \
  __attribute__((swift_attr("nonisolated(unsafe)"), visibility("hidden")))

/* The registers that a caller of the malloc family may rely on, as they were at the call.
 * Written by the entries of CTracerHooks, which push them in this order; the address after the
 * return address is the caller's stack pointer once the call has returned. */
struct tracer_registers {
  uint64_t rbx, rbp, r12, r13, r14, r15;
  uint64_t return_address;
};

/* The originals: the next definition of each name, resolved at the first call. A name that the
 * next allocator does not have is NULL. */
struct tracer_originals {
  void *_Nullable (*_Nullable malloc)(size_t);
  void (*_Nullable free)(void *_Nullable);
  void *_Nullable (*_Nullable calloc)(size_t, size_t);
  void *_Nullable (*_Nullable realloc)(void *_Nullable, size_t);
  int (*_Nullable posix_memalign)(void *_Nullable *_Nonnull, size_t, size_t);
  void *_Nullable (*_Nullable aligned_alloc)(size_t, size_t);
  void *_Nullable (*_Nullable memalign)(size_t, size_t);
  void *_Nullable (*_Nullable valloc)(size_t);
  void *_Nullable (*_Nullable pvalloc)(size_t);
  size_t (*_Nullable malloc_usable_size)(void *_Nullable);
  void *_Nullable (*_Nullable dlopen)(const char *_Nullable, int);
  int (*_Nullable dlclose)(void *_Nonnull);
  void (*_Nullable exit_now)(int);
};
extern struct tracer_originals tracer_originals TRACER_SHARED;

/* Below this size requests are enlarged, where the allocator packs blocks closer than 32 bytes; else 0. */
extern size_t tracer_minimum_request TRACER_SHARED;

/* All state of the tracer, zero when the process begins: an initialiser in Swift would run through
 * swift_once on first use, inside somebody's malloc. The bytes are typed by `Core` in TracerCore. */
#define TRACER_CORE_BYTE_COUNT 65536
extern unsigned char tracer_core_bytes[TRACER_CORE_BYTE_COUNT] TRACER_SHARED;
static inline void *_Nonnull tracer_core_address(void) { return tracer_core_bytes; }

/* The thread's own state: NULL until its first recorded call. */
extern __thread void *_Nullable tracer_thread_slot __attribute__((tls_model("initial-exec")));
static inline void *_Nullable tracer_thread(void) { return tracer_thread_slot; }
static inline void tracer_set_thread(void *_Nullable state) { tracer_thread_slot = state; }

/* Sampling: the bytes that the thread may still allocate before one is a sample, and the state of its
 * random numbers, 0 until it has a seed. The stubs of CTracerHooks count the first one down. */
extern __thread uint64_t tracer_countdown __attribute__((tls_model("initial-exec")));
extern __thread uint64_t tracer_random_state __attribute__((tls_model("initial-exec")));
static inline uint64_t tracer_get_countdown(void) { return tracer_countdown; }
static inline void tracer_set_countdown(uint64_t bytes) { tracer_countdown = bytes; }
static inline uint64_t tracer_get_random_state(void) { return tracer_random_state; }
static inline void tracer_set_random_state(uint64_t state) { tracer_random_state = state; }

/* How many sampled blocks lie in each page of the heap: a byte for each 4 KiB of 4 GiB, which pages
 * 4 GiB apart share. NULL until something was sampled for the first time. */
#define TRACER_PAGE_CELL_COUNT (1u << 20)
extern unsigned char *_Nullable tracer_sampled_pages TRACER_SHARED;

static inline long tracer_syscall(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* What the loader knows of the module that holds an address, without the loader's lock. */
struct tracer_object {
  uint64_t start, end;
  const void *_Nullable eh_frame_header;
  const char *_Nullable name;
  uint64_t load_bias;
};
/* 0 where the C library is too old to say (before glibc 2.35). */
int tracer_can_find_objects(void);
int tracer_find_object(uint64_t address, struct tracer_object *_Nonnull ret_object);

/* The ELF program headers of the program itself, as they are mapped, and how many. */
const void *_Nullable tracer_program_headers(size_t *_Nonnull ret_count);

/* The path that the kernel was given to start this program; NULL where it does not say. */
const char *_Nullable tracer_program_path(void);

/* mallinfo2's figures; 0 if the allocator in use is glibc's. Takes glibc's arena locks. */
struct tracer_heap_figures {
  uint64_t in_use; /* uordblks + hblkhd */
  uint64_t free;   /* fordblks */
};
int tracer_heap_figures(struct tracer_heap_figures *_Nonnull ret_figures);

/* Calls a function on another stack, whose end (its highest address) is a multiple of 16. */
void tracer_call_on_stack(void *_Nonnull end, void (*_Nonnull function)(void *_Nonnull),
                          void *_Nonnull argument);

/* clone(2): a process that begins with a function on a stack of its own, whose end is a multiple of
 * 16, and ends when the function returns. The process's number in the parent, or -errno. The child
 * has the parent's thread-locals: nothing that it calls may use them. */
long tracer_clone(unsigned long flags, void *_Nonnull stack_end,
                  void (*_Nonnull function)(void *_Nonnull), void *_Nonnull argument);

/* Has every fault of the calling process end it by exit_group, without a core dump: the kernel kills
 * all who share the memory that is dumped. For a process that has signal handlers of its own. */
void tracer_end_on_faults(void);

/* Calls a function while the registers that a callee must preserve lie on the stack. */
void tracer_call_with_saved_registers(void (*_Nonnull function)(void *_Nonnull),
                                      void *_Nonnull argument);

/* A call of the process's own demangler: __cxa_demangle of the C++ ABI, or swift_demangle. */
struct tracer_demangling {
  uintptr_t function;
  int is_swift;
  const char *_Nonnull name;
  size_t byte_count;
  /* Made by malloc; NULL where the name is not one. */
  char *_Nullable result;
};
void tracer_demangle(void *_Nonnull demangling);

/* What the entries of the malloc family lead to: the originals, the hooks, or what counts bytes. */
enum {
  TRACER_ENTRIES_DORMANT = 0,
  TRACER_ENTRIES_RECORDING = 1,
  TRACER_ENTRIES_SAMPLING = 2,
};

/* What the core asks of the room it runs in: entries, threads and signals. The sealed library points
 * these at CTracerHooks; in a unit test they are NULL, and the core does without. */
struct tracer_services {
  /* Points the entries that give memory back, then those that hand it out, at a mode of theirs. */
  void (*_Nullable switch_freeing_entries)(int mode);
  void (*_Nullable switch_allocating_entries)(int mode);
  /* Makes _exit and _Exit call `tracer_exiting` first. */
  void (*_Nullable watch_exit)(void);
  /* Whether a block came from the static range that served the loader. */
  int (*_Nullable boot_contains)(const void *_Nullable block);
  /* Has the end of the calling thread told to the core, with its state. */
  void (*_Nullable note_thread)(void *_Nonnull state);
  /* Starts the detached worker with all signals blocked; 0 or an errno. */
  int (*_Nullable start_worker)(void);
  /* Whether the program's one thread may believe to be the process's only one, so that the C library takes
   * no locks for it. */
  int (*_Nullable is_left_alone)(void);
  /* The calling thread's rights are those that the worker has. */
  void (*_Nullable note_identity)(void);
  /* Ends that: 1 where locks are taken from that thread's next call of the C library on, 0 where they
   * have been all along. */
  int (*_Nullable share_library)(void);
  /* 0 if our handler is in place, 1 if the application has its own or ignores it, else -errno. */
  int (*_Nullable install_signal)(int number);
  int (*_Nullable owns_signal)(int number);
  /* Back to the default action, if the handler is ours. */
  void (*_Nullable restore_signal)(int number);
  /* Gives the signal its default action and raises it in this thread, unblocked. */
  void (*_Nullable die_by_signal)(int number);
  /* The range of real-time signals: the C library keeps the first of the kernel's for itself. */
  int (*_Nullable signal_minimum)(void);
  int (*_Nullable signal_maximum)(void);
  /* exit(3), as the C library calls it when the last thread has ended; NULL where it sees to that by
   * itself, the worker not being counted. */
  void (*_Nullable exit_process)(int status);
};
extern struct tracer_services tracer_services TRACER_SHARED;

#endif
