/* SPDX-License-Identifier: Apache-2.0
 * Start-up, fork and the ends of threads: the parts that need the C library's own bookkeeping. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "single_thread.h"
#include "tracer_hooks.h"

/* Swift's side of the callbacks; each is described at its registration in the headers. */
extern void tracer_worker_main(void);
extern void tracer_forked_child(void);
extern void tracer_exiting(void);
extern void tracer_thread_ended(void *state);
extern void tracer_on_signal(int number, int code, int value);
extern void tracer_will_change_identity(void);
extern void tracer_did_change_identity(void);

/* What entries.S takes for granted. */
_Static_assert(offsetof(struct tracer_originals, malloc) == 0, "the first");
_Static_assert(offsetof(struct tracer_registers, return_address) == 48, "pushed by the call");

/* MARK: Originals */

/* Not by dladdr, where the loader can be asked for less: that one goes through all symbols of a module, in
 * every process and for each of two dozen names. */
struct tracer_module tracer_module_of(const void *address) {
  struct tracer_object object;
  Dl_info info;
  if (address && tracer_can_find_objects()) {
    if (!tracer_find_object((uint64_t)address, &object))
      return (struct tracer_module){(const void *)object.start, object.name};
  } else if (address && dladdr(address, &info)) {
    return (struct tracer_module){info.dli_fbase, info.dli_fname};
  }
  return (struct tracer_module){NULL, NULL};
}

static const void *module_of(const void *address) { return tracer_module_of(address).start; }

static const char *path_of(const void *address) {
  Dl_info info;
  return dladdr(address, &info) && info.dli_fname ? info.dli_fname : "another module";
}

/* The next definition of a name, if it belongs to the allocator that malloc belongs to: glibc's
 * pvalloc beside jemalloc's free would hand out blocks that nobody can free. */
static void *next_of(const char *name, const void *allocator, void *scope) {
  void *next = dlsym(scope, name);
  return module_of(next) == allocator ? next : NULL;
}

/* A program that is not position-independent and takes malloc's address, as Debian's python3, has
 * the address of its own jump to it stand for malloc everywhere: a symbol with a value that is still
 * undefined. (System V ABI, AMD64 supplement, 5.2, "Function Addresses".) */
static int is_definition(const void *address) {
  Dl_info info;
  const ElfW(Sym) *symbol = NULL;
  return !dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol ||
         symbol->st_shndx != SHN_UNDEF;
}

/* The same for names that nothing can be made of: where malloc's module lacks them, as one that only
 * counts calls of malloc does, it is the next definition that the process would have called. */
static void *next_at_all(const char *name, const void *allocator, void *scope) {
  void *own = next_of(name, allocator, scope);
  return own ? own : dlsym(scope, name);
}

/* Shared runtimes of sanitizers that take over the process: they intercept the C library's functions,
 * expect to be in every allocation from a thread's first one, and know no memory that they have not
 * handed out. ThreadSanitizer was seen to fault in the memset of a hook. LeakSanitizer's is no trouble. */
static const char *sanitizer_among(const struct link_map *module) {
  static const char *const names[] = {"libtsan.so",       "libasan.so",       "libhwasan.so",
                                      "libclang_rt.tsan", "libclang_rt.asan", "libclang_rt.hwasan"};
  /* By nothing that such a runtime intercepts: it has not begun yet, and faults. */
  for (; module; module = module->l_next) {
    const char *name = module->l_name;
    for (const char *rest = name; *rest; rest++)
      if (*rest == '/')
        name = rest + 1;
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
      const char *wanted = names[index];
      size_t same = 0;
      while (wanted[same] && name[same] == wanted[same])
        same++;
      if (!wanted[same])
        return module->l_name;
    }
  }
  return NULL;
}

void tracer_resolve_originals(struct tracer_resolution *ret_resolution) {
  /* By module: by its name in C, the symbol is the first copy's in every copy. */
  const void *own = module_of((void *)module_of);
  int is_first_copy = module_of(dlsym(RTLD_DEFAULT, "heaptap_tracer_version")) == own;
  void *scope = RTLD_NEXT, *original = dlsym(RTLD_NEXT, "malloc");
  /* Where another malloc than ours comes first, ours is called by nobody, but those of our names
   * which that allocator lacks are: with blocks of its making. */
  void *first = dlsym(RTLD_DEFAULT, "malloc");
  ret_resolution->bypassed_for = NULL;
  ret_resolution->sanitizer = sanitizer_among(_r_debug.r_map);
  if (is_first_copy && module_of(first) != own && is_definition(first)) {
    scope = RTLD_DEFAULT;
    original = first;
    ret_resolution->bypassed_for = path_of(first);
  }
  const void *allocator = module_of(original);
  struct tracer_originals found = {
      .malloc = original,
      .free = next_at_all("free", allocator, scope),
      .calloc = next_at_all("calloc", allocator, scope),
      .realloc = next_at_all("realloc", allocator, scope),
      .posix_memalign = next_of("posix_memalign", allocator, scope),
      .aligned_alloc = next_of("aligned_alloc", allocator, scope),
      .memalign = next_of("memalign", allocator, scope),
      .valloc = next_of("valloc", allocator, scope),
      .pvalloc = next_of("pvalloc", allocator, scope),
      .malloc_usable_size = next_of("malloc_usable_size", allocator, scope),
      .dlopen = dlsym(RTLD_NEXT, "dlopen"),
      .dlclose = dlsym(RTLD_NEXT, "dlclose"),
      .exit_now = dlsym(RTLD_NEXT, "_exit"),
  };
  /* One of the three is what every aligned block is made by. */
  if (!found.memalign && !found.aligned_alloc && !found.posix_memalign)
    found.posix_memalign = next_at_all("posix_memalign", allocator, scope);
  tracer_originals = found;
  ret_resolution->allocator_is_glibc = allocator == module_of((void *)gnu_get_libc_version);
  ret_resolution->is_first_copy = is_first_copy;
}

/* MARK: Environment */

extern void *__libc_stack_end;
extern char **environ;

const char **tracer_environment(void) {
  if (getauxval(AT_SECURE))
    return NULL;
  if (environ)
    return (const char **)environ;
  /* Before libc's own constructor, `environ` is not set; the kernel laid the vector out above the
   * arguments: argc, argv[argc], NULL, envp. (System V ABI, AMD64 supplement, 3.4.1.) */
  long *start = __libc_stack_end;
  return (const char **)(start + 1 + *start + 1);
}

/* MARK: Threads */

static pthread_key_t thread_key;
static int thread_key_is_made;

static void note_thread(void *state) {
  if (thread_key_is_made)
    pthread_setspecific(thread_key, state);
}

/* The first of the destructors, being of an old key; those of other keys allocate as well, and set
 * values that have further rounds follow. Only in the last one is the thread told to have ended. */
static void end_thread(void *state) {
  static __thread int rounds;
  if (++rounds >= PTHREAD_DESTRUCTOR_ITERATIONS || pthread_setspecific(thread_key, state))
    tracer_thread_ended(state);
}

static void *run_worker(void *unused) {
  (void)unused;
  tracer_worker_main();
  return NULL;
}

/* glibc's count of threads that are alive, or NULL: the last one ends the process by exit(0). The
 * worker takes itself out of it, so that a program whose threads have all ended ends as it would
 * without us: in its own thread, with its own descriptors, its buffers flushed. */
static unsigned *live_threads;

/* The least that a stack may have, NULL where the C library does not say: it takes every thread's
 * copy of the program's thread-local data from that thread's stack. */
static size_t (*least_stack)(const pthread_attr_t *);

/* Written before the thread runs. */
static pthread_t worker;

/* The kernel's own form of a signal's action, which glibc takes for no signal of its own. */
struct kernel_action {
  void (*handler)(int, siginfo_t *, void *);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};

/* By which glibc has every thread make the call of setuid(2) and its like. (nptl(7)) */
enum { IDENTITY_SIGNAL = 33 };
static struct kernel_action identity_action;

static void on_identity_signal(int number, siginfo_t *info, void *context) {
  int is_worker = pthread_equal(pthread_self(), worker);
  if (is_worker)
    tracer_will_change_identity();
  identity_action.handler(number, info, context);
  if (is_worker)
    tracer_did_change_identity();
}

/* glibc installs its handler with the first thread that is made, and once more with the program's first
 * one where that stays alone until then. */
void tracer_watch_identity(void) {
  struct kernel_action action;
  if (!worker)
    return;
  if (tracer_syscall(SYS_rt_sigaction, IDENTITY_SIGNAL, 0, (long)&action, 8, 0, 0) ||
      action.handler == on_identity_signal || (uintptr_t)action.handler <= (uintptr_t)SIG_IGN)
    return;
  identity_action = action;
  action.handler = on_identity_signal;
  tracer_syscall(SYS_rt_sigaction, IDENTITY_SIGNAL, (long)&action, 0, 8, 0, 0);
}

static int start_worker(void) {
  pthread_attr_t attributes;
  sigset_t all, before;
  int was_alone = live_threads && tracer_is_alone();
  int error = pthread_attr_init(&attributes);
  if (error)
    return error;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  /* A whole number of pages, for a program that has a kilobyte or a megabyte of thread-local data. */
  size_t stack = (256 << 10) + ((least_stack ? least_stack(&attributes) : 0) & ~(size_t)4095);
  pthread_attr_setstacksize(&attributes, stack);
  /* By the library's call, which leaves glibc's own signals alone: setuid must reach the worker. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  tracer_will_have_worker(was_alone);
  error = pthread_create(&worker, &attributes, run_worker, NULL);
  if (error == EINVAL) /* too small all the same */
    error = pthread_create(&worker, NULL, run_worker, NULL);
  if (error)
    worker = 0;
  else
    tracer_watch_identity();
  if (!error && live_threads)
    __atomic_fetch_sub(live_threads, 1, __ATOMIC_RELAXED);
  tracer_has_worker(was_alone);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

/* Of the program's own, which it has made itself: outside of all locks, and for good. */
static int has_threads(void) {
  return live_threads && __atomic_load_n(live_threads, __ATOMIC_SEQ_CST) > 1;
}
static int is_left_alone(void) { return tracer_is_left_alone(has_threads()); }
static int share_library(void) { return tracer_share_library(has_threads()); }

int tracer_watch_threads_and_forks(void) {
  static int is_watching;
  if (__atomic_exchange_n(&is_watching, 1, __ATOMIC_RELAXED))
    return 0;
  int error = pthread_key_create(&thread_key, end_thread);
  thread_key_is_made = error == 0;
  return error ? error : pthread_atfork(NULL, NULL, tracer_forked_child);
}

int tracer_watch_quick_exit(void) { return at_quick_exit(tracer_exiting); }

/* MARK: Signals */

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)context;
  tracer_on_signal(number, info->si_code, info->si_value.sival_int);
}

static int owns_signal(int number) {
  struct sigaction now;
  return sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
         now.sa_sigaction == on_signal;
}

static int install_signal(int number) {
  struct sigaction now;
  if (sigaction(number, NULL, &now))
    return -errno;
  if ((now.sa_flags & SA_SIGINFO) ? now.sa_sigaction == on_signal : 0)
    return 0;
  if ((now.sa_flags & SA_SIGINFO) || now.sa_handler != SIG_DFL)
    return 1;
  struct sigaction ours = {.sa_sigaction = on_signal,
                           .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  return sigaction(number, &ours, NULL) ? -errno : 0;
}

static void restore_signal(int number) {
  if (owns_signal(number))
    signal(number, SIG_DFL);
}

static void die_by_signal(int number) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  signal(number, SIG_DFL);
  raise(number);
  pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static int signal_minimum(void) { return SIGRTMIN; }
static int signal_maximum(void) { return SIGRTMAX; }

/* MARK: Services */

void tracer_provide_services(void) {
  live_threads = dlsym(RTLD_DEFAULT, "__nptl_nthreads");
  least_stack = dlsym(RTLD_DEFAULT, "__pthread_get_minstack");
  tracer_services = (struct tracer_services){
      .switch_freeing_entries = tracer_switch_freeing_entries,
      .switch_allocating_entries = tracer_switch_allocating_entries,
      .watch_exit = tracer_watch_exit,
      .boot_contains = tracer_boot_contains,
      .note_thread = note_thread,
      .start_worker = start_worker,
      .is_left_alone = is_left_alone,
      .note_identity = tracer_note_identity,
      .share_library = share_library,
      .install_signal = install_signal,
      .owns_signal = owns_signal,
      .restore_signal = restore_signal,
      .die_by_signal = die_by_signal,
      .signal_minimum = signal_minimum,
      .signal_maximum = signal_maximum,
      .exit_process = live_threads ? NULL : exit,
  };
}
