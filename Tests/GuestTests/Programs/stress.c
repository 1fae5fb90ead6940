// SPDX-License-Identifier: Apache-2.0
// Everything that a process may do to its tracer, by many threads at once and in no order, with books of
// its own: when all is done it prints what it has left alive, by the function that allocated it.
//
//     stress THREADS SECONDS SEED PLUGIN
//
// The plug-in is this file, compiled with -DPLUGIN -shared.
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef PLUGIN

static char *kept;

__attribute__((constructor)) static void begin(void) { kept = strdup("allocated by a constructor"); }
__attribute__((destructor)) static void end(void) { free(kept); }

// Calls back from code that will be gone.
void plugin_call(void (*callback)(void *), void *argument) {
  char *passing = malloc(48);
  callback(argument);
  free(passing);
}

#else

enum { site_count = 8, slot_count = 256, mailbox_count = 1024, stack_size = 128 << 10 };

struct block {
  size_t size;
  unsigned site;
  unsigned char fill;
};

// What a thread does to its own blocks nobody else does; what it puts into a mailbox is another's.
struct worker {
  uint64_t random;
  struct block *slots[slot_count];
  ucontext_t outside, inside;
  void *coroutine_stack;
  jmp_buf way_back;
  unsigned number;
};

static _Atomic(struct block *) mailboxes[mailbox_count];
static atomic_bool is_over;
static atomic_ulong forks, spawns, plugins, threads_ended, signals_taken, coroutines, jumps;
static const char *plugin_path;
static _Thread_local struct worker *current;

static uint64_t next_random(struct worker *self) {
  // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016).
  self->random ^= self->random >> 12;
  self->random ^= self->random << 25;
  self->random ^= self->random >> 27;
  return self->random * 0x2545F4914F6CDD1DULL;
}

static unsigned below(struct worker *self, unsigned limit) {
  return (next_random(self) >> 32) % limit;
}

// Sizes as programs have them: most are small, and one in 4,000 is above 16 MiB.
static size_t any_size(struct worker *self) {
  unsigned die = below(self, 4000);
  if (die == 0) return (16u << 20) + below(self, 1u << 20);
  if (die < 40) return 4096 + below(self, 512u << 10);
  return sizeof(struct block) + below(self, 1u << (4 + below(self, 8)));
}

// MARK: Where blocks come from: one function for each site, and each by another entry.

#define SITE(number, allocation)                                                   \
  __attribute__((noinline)) static struct block *site_##number(size_t size) {      \
    struct block *block = allocation;                                              \
    __asm__ volatile("" : "+r"(block));                                            \
    return block;                                                                  \
  }

SITE(0, malloc(size))
SITE(1, calloc(1, size))
SITE(2, realloc(NULL, size))
SITE(3, ({ void *found; posix_memalign(&found, 64, size) ? NULL : found; }))
SITE(4, aligned_alloc(16, size))
SITE(5, memalign(256, size))
SITE(6, reallocarray(NULL, size, 1))
SITE(7, realloc(malloc(1), size))

static struct block *(*const sites[site_count])(size_t) = {site_0, site_1, site_2, site_3,
                                                           site_4, site_5, site_6, site_7};

static struct block *new_block(struct worker *self) {
  unsigned site = below(self, site_count);
  size_t size = any_size(self);
  struct block *block = sites[site](size);
  if (!block) return NULL;
  *block = (struct block){.size = size, .site = site, .fill = (unsigned char)size};
  memset(block + 1, block->fill, size > 4096 ? 64 : size - sizeof *block);
  return block;
}

static void free_block(struct block *block) {
  if (!block) return;
  size_t filled = block->size > 4096 ? 64 : block->size - sizeof *block;
  const unsigned char *bytes = (const unsigned char *)(block + 1);
  for (size_t index = 0; index < filled; index++)
    if (bytes[index] != block->fill) {
      fprintf(stderr, "stress: a block of %zu bytes was written over\n", block->size);
      abort();
    }
  // glibc keeps it in free alone: a malloc that finds room in another arena may leave ENOMEM.
  int before = errno;
  errno = 4711;
  free(block);
  if (errno != 4711) {
    fprintf(stderr, "stress: free changed errno to %d\n", errno);
    abort();
  }
  errno = before;
}

static void churn(struct worker *self, unsigned count) {
  while (count--) {
    struct block **slot = &self->slots[below(self, slot_count)];
    switch (below(self, 8)) {
    case 0: // To another thread, which frees it.
      *slot = atomic_exchange(&mailboxes[below(self, mailbox_count)], *slot);
      break;
    case 1: // To a size that may have it moved; it is then site 2's or 6's.
      if (*slot) {
        struct block *block = *slot;
        size_t size = any_size(self);
        unsigned site = below(self, 2) ? 2 : 6;
        struct block *moved = site == 2 ? realloc(block, size) : reallocarray(block, size, 1);
        if (moved) {
          // Counted at none of the sites: freed at once, or it would be in no book.
          moved->size = sizeof *moved;
          free_block(moved);
          *slot = NULL;
        }
      }
      break;
    default:
      free_block(*slot);
      *slot = new_block(self);
    }
  }
}

// MARK: What a process may do

// As deep as the die says, so that every walk is another.
__attribute__((noinline)) static void descend(struct worker *self, unsigned depth, void (*at_end)(struct worker *)) {
  volatile char room[64];
  room[0] = (char)depth;
  if (depth == 0) at_end(self);
  else descend(self, depth - 1, at_end);
  __asm__ volatile("" ::"m"(room));
}

static void churn_some(struct worker *self) { churn(self, 1 + below(self, 50)); }

static void jump_back(struct worker *self) {
  churn(self, 3);
  longjmp(self->way_back, 1);
}

static void run_coroutine(void) {
  churn(current, 10);
  swapcontext(&current->inside, &current->outside);
  churn(current, 10);
}

static void do_coroutine(struct worker *self) {
  getcontext(&self->inside);
  self->inside.uc_stack.ss_sp = self->coroutine_stack;
  self->inside.uc_stack.ss_size = stack_size;
  self->inside.uc_link = &self->outside;
  makecontext(&self->inside, run_coroutine, 0);
  swapcontext(&self->outside, &self->inside);
  churn(self, 3);
  swapcontext(&self->outside, &self->inside);
  atomic_fetch_add(&coroutines, 1);
}

static void do_fork(struct worker *self) {
  pid_t child = fork();
  if (child == 0) {
    // Frees what it has inherited, allocates, and may do the same once more.
    churn(self, 200);
    if (below(self, 4) == 0) {
      pid_t grandchild = fork();
      if (grandchild == 0) {
        churn(self, 50);
        _exit(7);
      }
      int status;
      while (waitpid(grandchild, &status, 0) < 0 && errno == EINTR) {}
    }
    if (below(self, 2)) execl("/bin/true", "true", NULL);
    _exit(0);
  }
  if (child < 0) return;
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  if (!WIFEXITED(status) || WEXITSTATUS(status)) {
    fprintf(stderr, "stress: a child ended by status 0x%x\n", status);
    abort();
  }
  atomic_fetch_add(&forks, 1);
}

static void do_spawn(struct worker *self) {
  char *arguments[] = {"true", NULL}, *environment[] = {NULL};
  pid_t child;
  int status;
  if (below(self, 2)) {
    if (posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environment)) return;
  } else {
    child = vfork();
    if (child == 0) {
      // It shares the heap: this is in the parent's books.
      free(malloc(100));
      execve("/bin/true", arguments, environment);
      _exit(1);
    }
    if (child < 0) return;
  }
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  atomic_fetch_add(&spawns, 1);
}

static void call_back(void *argument) { churn_some(argument); }

static void do_plugin(struct worker *self) {
  void *plugin = dlopen(plugin_path, RTLD_NOW | RTLD_LOCAL);
  if (!plugin) {
    fprintf(stderr, "stress: %s\n", dlerror());
    abort();
  }
  void (*call)(void (*)(void *), void *) = (void (*)(void (*)(void *), void *))dlsym(plugin, "plugin_call");
  call(call_back, self);
  dlclose(plugin);
  atomic_fetch_add(&plugins, 1);
}

static pthread_key_t ending;

static void at_thread_end(void *value) {
  free(value);
  free(malloc(24));
}

static void leave(struct worker *self) {
  free_block(new_block(self));
  atomic_fetch_add(&threads_ended, 1);
  pthread_exit(NULL);
}

static void cleanup(void *block) { free(block); }

static void *run_short(void *argument) {
  struct worker self = {.random = (uintptr_t)argument | 1};
  current = &self;
  pthread_setspecific(ending, malloc(33));
  if (below(&self, 4) == 0) {
    // Until it is cancelled.
    void *held = malloc(77);
    pthread_cleanup_push(cleanup, held);
    struct timespec long_time = {.tv_sec = 1000};
    nanosleep(&long_time, NULL);
    pthread_cleanup_pop(1);
  }
  descend(&self, below(&self, 60), leave);
  return NULL;
}

static void do_thread(struct worker *self) {
  pthread_t thread;
  uint64_t random = next_random(self);
  if (pthread_create(&thread, NULL, run_short, (void *)(uintptr_t)random)) return;
  if (below(self, 2)) pthread_cancel(thread);
  else {
    // A thread that waits to be cancelled has to be.
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_nsec += 20000000;
    if (now.tv_nsec >= 1000000000) { now.tv_nsec -= 1000000000; now.tv_sec++; }
    if (!pthread_timedjoin_np(thread, NULL, &now)) return;
    pthread_cancel(thread);
  }
  pthread_join(thread, NULL);
}

// Comes to a thread that is not in malloc, which may therefore be called; half of them on a stack of their own.
static void on_signal(int number) {
  (void)number;
  int saved = errno;
  struct worker *self = current;
  if (self) churn(self, 2);
  atomic_fetch_add(&signals_taken, 1);
  errno = saved;
}

static void do_signal(struct worker *self) { raise(below(self, 2) ? SIGURG : SIGWINCH); }

static void *run(void *argument) {
  struct worker *self = argument;
  current = self;
  self->coroutine_stack = mmap(NULL, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t alternate = {.ss_sp = mmap(NULL, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                       .ss_size = stack_size};
  sigaltstack(&alternate, NULL);
  while (!atomic_load(&is_over)) {
    descend(self, below(self, 100), churn_some);
    switch (below(self, 400)) {
    case 0: do_fork(self); break;
    case 1: do_spawn(self); break;
    case 2: case 3: do_plugin(self); break;
    case 4: case 5: do_thread(self); break;
    case 6: case 7: case 8: case 9: do_signal(self); break;
    case 10: case 11: do_coroutine(self); break;
    case 12: case 13:
      if (!setjmp(self->way_back)) descend(self, below(self, 200), jump_back);
      atomic_fetch_add(&jumps, 1);
    }
  }
  stack_t none = {.ss_flags = SS_DISABLE};
  sigaltstack(&none, NULL);
  munmap(alternate.ss_sp, stack_size);
  munmap(self->coroutine_stack, stack_size);
  return NULL;
}

// MARK: The books

static size_t live_blocks[site_count], live_bytes[site_count];

static void enter(const struct block *block) {
  if (!block) return;
  live_blocks[block->site]++;
  live_bytes[block->site] += block->size;
}

int main(int count, char **arguments) {
  if (count != 5) return 64;
  unsigned thread_count = (unsigned)atoi(arguments[1]);
  double seconds = atof(arguments[2]);
  uint64_t seed = strtoull(arguments[3], NULL, 0);
  plugin_path = arguments[4];
  pthread_key_create(&ending, at_thread_end);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGURG, &action, NULL);
  action.sa_flags |= SA_ONSTACK;
  sigaction(SIGWINCH, &action, NULL);

  static struct worker workers[1024];
  static pthread_t threads[1024];
  if (thread_count > 1024) return 64;
  for (unsigned number = 0; number < thread_count; number++) {
    workers[number] = (struct worker){.number = number, .random = (seed + number) * 0x9E3779B97F4A7C15ULL | 1};
    pthread_create(&threads[number], NULL, run, &workers[number]);
  }

  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += (time_t)seconds;
  // The signals that ask for dumps come to any thread, and sleeping is never restarted: signal(7).
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {}
  atomic_store(&is_over, 1);
  for (unsigned number = 0; number < thread_count; number++) pthread_join(threads[number], NULL);

  for (unsigned number = 0; number < thread_count; number++)
    for (unsigned slot = 0; slot < slot_count; slot++) enter(workers[number].slots[slot]);
  for (unsigned slot = 0; slot < mailbox_count; slot++) enter(mailboxes[slot]);
  for (unsigned site = 0; site < site_count; site++)
    printf("site_%u %zu %zu\n", site, live_blocks[site], live_bytes[site]);
  printf("did %lu forks, %lu spawns, %lu plug-ins, %lu threads, %lu signals, %lu coroutines, %lu jumps\n",
         forks, spawns, plugins, threads_ended, signals_taken, coroutines, jumps);
  return 0;
}

#endif
