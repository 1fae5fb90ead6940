/* SPDX-License-Identifier: Apache-2.0
 *
 * Does as it is told: one command a line from the FIFO that the first argument names, an answer on
 * standard output for each. Allocates nothing but what it is told to, so that its books are known
 * to the byte. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { KEPT_LIMIT = 4 << 20 };
static void *kept[KEPT_LIMIT];
static int kept_count;

/* Keeps the compiler from leaving out what is freed at once. */
static void *volatile sink;

#ifdef THREAD_LOCAL_BYTES
/* glibc takes this from every thread's stack. */
__attribute__((used)) static _Thread_local char thread_local_bytes[THREAD_LOCAL_BYTES];
#endif

static int commands = -1;
static atomic_int handled;
static atomic_int is_churning, churners;
static atomic_long naps_interrupted;
static pthread_t napper;

static void answer(const char *format, ...) {
  char line[512];
  va_list values;
  va_start(values, format);
  int length = vsnprintf(line, sizeof line - 1, format, values);
  va_end(values);
  line[length++] = '\n';
  if (write(1, line, (size_t)length) != length)
    _exit(99);
}

static void read_command(char *line, int capacity) {
  int length = 0;
  while (length < capacity - 1) {
    ssize_t count = read(commands, line + length, 1);
    if (count < 0 && errno == EINTR)
      continue;
    if (count != 1)
      _exit(98);
    if (line[length] == '\n')
      break;
    length++;
  }
  line[length] = 0;
}

static void handle(int number) {
  (void)number;
  atomic_fetch_add(&handled, 1);
}

__attribute__((noinline)) static void allocate(long count, long size) {
  for (long i = 0; i < count && kept_count < KEPT_LIMIT; i++) {
    char *block = malloc((size_t)size);
    memset(block, 1, (size_t)size);
    kept[kept_count++] = block;
  }
}

/* A stack of its own for each path: the bits of the path say which way each call goes. */
static void *left(unsigned path, int depth, size_t size);
static void *right(unsigned path, int depth, size_t size);

static inline __attribute__((always_inline)) void *go_on(unsigned path, int depth, size_t size) {
  void *block = depth == 0    ? malloc(size)
                : (path & 1) ? left(path >> 1, depth - 1, size)
                             : right(path >> 1, depth - 1, size);
  __asm__ volatile("" : "+r"(block)); /* no tail call */
  return block;
}
__attribute__((noinline)) static void *left(unsigned path, int depth, size_t size) {
  return go_on(path, depth, size);
}
__attribute__((noinline)) static void *right(unsigned path, int depth, size_t size) {
  return go_on(path, depth, size + 0);
}

/* So many blocks from each of so many stacks. */
static void plant(long stacks, long blocks) {
  for (long path = 0; path < stacks; path++)
    for (long i = 0; i < blocks; i++)
      kept[kept_count++] = left((unsigned)path, 14, (size_t)(16 + path % 64));
}

/* What a program does that is hard on a tracer: modules come and go, as do children and threads. */
static void *come_and_go(void *unused) {
  (void)unused;
  for (unsigned round = 0; atomic_load(&is_churning); round++) {
    void *blocks[100];
    for (int i = 0; i < 100; i++)
      blocks[i] = left(round * 100 + (unsigned)i, 14, 50);
    for (int i = 0; i < 100; i++)
      free(blocks[i]);
    usleep(200);
  }
  atomic_fetch_sub(&churners, 1);
  pthread_exit(NULL);
}

/* Records one sample in so many bytes, for a moment or to the end; 0 or the tracer's errno. */
static int sample(long bytes, int to_the_end) {
  int (*start)(unsigned, size_t) = (int (*)(unsigned, size_t))dlsym(NULL, "heaptap_start_sampling");
  int (*discard)(void) = (int (*)(void))dlsym(NULL, "heaptap_discard");
  int error = start && discard ? start(0, (size_t)bytes) : ENOSYS;
  return error || to_the_end ? error : discard();
}

/* What a short thread does: blocks from more stacks than one, so that it has a memory of them. */
static void *be_short(void *unused) {
  for (unsigned i = 0; i < 200; i++)
    free(left(i % 50, 14, 50));
  return unused;
}

/* So many threads, of which so many are there at once. Answers when all have ended. */
static void run_threads(long count, long together) {
  static pthread_t ring[1024];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 << 10);
  for (long i = 0; i < count + together; i++) {
    if (i >= together)
      pthread_join(ring[i % together], NULL);
    if (i < count && pthread_create(&ring[i % together], &attributes, be_short, NULL))
      _exit(97);
  }
  pthread_attr_destroy(&attributes);
}

static void *load_and_unload(void *unused) {
  static const char *const modules[] = {"libz.so.1", "libresolv.so.2", "libutil.so.1",
                                        "libnss_files.so.2"};
  (void)unused;
  for (unsigned round = 0; atomic_load(&is_churning); round++) {
    void *module = dlopen(modules[round % 4], RTLD_NOW);
    usleep(500);
    if (module)
      dlclose(module);
  }
  atomic_fetch_sub(&churners, 1);
  return NULL;
}

static void *end_soon(void *unused) {
  (void)unused;
  free(sink = malloc(333));
  pthread_exit(malloc(0));
}

static void *bear_and_bury(void *unused) {
  (void)unused;
  while (atomic_load(&is_churning)) {
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, end_soon, NULL) == 0) {
      pthread_join(thread, &result);
      free(result);
    }
    pid_t child = fork();
    if (child == 0) {
      free(sink = malloc(1000));
      _exit(0);
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
      ;
    usleep(20000);
  }
  atomic_fetch_sub(&churners, 1);
  return NULL;
}

/* Allocates and frees, and leaves nothing behind when it is told to stop. */
static void *churn(void *unused) {
  unsigned state = (unsigned)(size_t)&unused;
  void *blocks[64] = {0};
  while (atomic_load(&is_churning)) {
    state = state * 1664525u + 1013904223u;
    unsigned slot = state >> 26;
    if (state & 0x10000)
      blocks[slot] = realloc(blocks[slot], (state >> 8) % 2000 + 1);
    else {
      free(blocks[slot]);
      blocks[slot] = malloc((state >> 8) % 5000 + 1);
    }
  }
  for (int i = 0; i < 64; i++)
    free(blocks[i]);
  atomic_fetch_sub(&churners, 1);
  return NULL;
}

static void *allocate_then_end(void *arguments) {
  long *values = arguments;
  for (long i = 0; i < values[0]; i++)
    free(sink = malloc((size_t)values[1]));
  while (atomic_load(&is_churning) == 0)
    usleep(1000);
  return NULL;
}

/* Waits in the ways of an event loop, and counts how often one was cut short. */
static void *nap(void *unused) {
  (void)unused;
  napper = pthread_self();
  int poller = epoll_create1(0);
  for (;;) {
    struct epoll_event event;
    if (epoll_wait(poller, &event, 1, 20) < 0 && errno == EINTR)
      atomic_fetch_add(&naps_interrupted, 1);
    struct timespec time = {0, 20000000};
    if (nanosleep(&time, NULL) < 0 && errno == EINTR)
      atomic_fetch_add(&naps_interrupted, 1);
    if (poll(NULL, 0, 20) < 0 && errno == EINTR)
      atomic_fetch_add(&naps_interrupted, 1);
  }
  return NULL;
}

static void *end_later(void *milliseconds) {
  usleep((useconds_t)(size_t)milliseconds * 1000);
  return NULL;
}

static void start_thread(void *(*body)(void *), void *argument) {
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_create(&thread, &attributes, body, argument);
  pthread_attr_destroy(&attributes);
}

static void open_commands(const char *path) {
  int opened = open(path, O_RDWR | O_CLOEXEC);
  if (opened < 0)
    _exit(97);
  commands = fcntl(opened, F_DUPFD_CLOEXEC, 500);
  close(opened);
}

/* As daemon(3) does it, and then some: two forks, a session, no descriptor but our own two. */
static void become_daemon(long user) {
  int out = fcntl(1, F_DUPFD_CLOEXEC, 501);
  if (fork() != 0)
    pause(), _exit(0);
  setsid();
  if (fork() != 0)
    _exit(0);
  if (chdir("/") != 0)
    _exit(96);
  for (int i = 0; i < 1024; i++)
    if (i != commands && i != out)
      close(i);
  open("/dev/null", O_RDWR);
  dup2(out, 1);
  open("/dev/null", O_RDWR);
  if (user && (setgid((gid_t)user) != 0 || setuid((uid_t)user) != 0))
    _exit(95);
}

static void end(const char *manner, int status) {
  if (!strcmp(manner, "exit"))
    exit(status);
  if (!strcmp(manner, "quick_exit"))
    quick_exit(status);
  if (!strcmp(manner, "_exit"))
    _exit(status);
  if (!strcmp(manner, "_Exit"))
    _Exit(status);
  if (!strcmp(manner, "abort"))
    abort();
  if (!strcmp(manner, "pthread_exit")) {
    start_thread(end_later, (void *)300);
    pthread_exit(NULL);
  }
}

static void obey(char *line, char **arguments) {
  char word[64] = "", text[256] = "";
  long first = 0, second = 0;
  sscanf(line, "%63s %ld %ld", word, &first, &second);
  sscanf(line, "%*s %255s", text);

  if (!strcmp(word, "allocate")) {
    allocate(first, second);
    answer("kept %d", kept_count);
  } else if (!strcmp(word, "free")) {
    while (first-- > 0 && kept_count > 0)
      free(kept[--kept_count]);
    answer("kept %d", kept_count);
  } else if (!strcmp(word, "reallocate")) {
    kept[kept_count - 1] = realloc(kept[kept_count - 1], (size_t)first);
    answer("reallocated");
  } else if (!strcmp(word, "handle")) {
    struct sigaction ours = {.sa_handler = handle};
    sigaction((int)first, &ours, NULL);
    answer("handles %ld", first);
  } else if (!strcmp(word, "handled")) {
    answer("handled %d", atomic_load(&handled));
  } else if (!strcmp(word, "nap")) {
    start_thread(nap, NULL);
    answer("napping");
  } else if (!strcmp(word, "signal-napper")) {
    pthread_kill(napper, (int)first);
    answer("signalled");
  } else if (!strcmp(word, "naps")) {
    answer("interrupted %ld", atomic_load(&naps_interrupted));
  } else if (!strcmp(word, "churn")) {
    atomic_store(&is_churning, 1);
    atomic_fetch_add(&churners, (int)first);
    for (long i = 0; i < first; i++)
      start_thread(churn, NULL);
    answer("churning");
  } else if (!strcmp(word, "plant")) {
    plant(first, second);
    answer("kept %d", kept_count);
  } else if (!strcmp(word, "threads")) {
    run_threads(first, second);
    answer("ran %ld threads", first);
  } else if (!strcmp(word, "sample")) {
    answer("sampled %d", sample(first, second == 1));
  } else if (!strcmp(word, "turmoil")) {
    void *(*const bodies[])(void *) = {come_and_go, come_and_go, come_and_go, come_and_go,
                                       churn,       churn,       load_and_unload, bear_and_bury};
    atomic_store(&is_churning, 1);
    atomic_fetch_add(&churners, 8);
    for (int i = 0; i < 8; i++)
      start_thread(bodies[i], NULL);
    answer("turmoil");
  } else if (!strcmp(word, "calm")) {
    atomic_store(&is_churning, 0);
    while (atomic_load(&churners) > 0)
      usleep(1000);
    usleep(100000);
    answer("calm");
  } else if (!strcmp(word, "visitor")) {
    static long values[2];
    values[0] = first;
    values[1] = second;
    start_thread(allocate_then_end, values);
    usleep(100000);
    answer("visited");
  } else if (!strcmp(word, "forks")) {
    int failures = 0;
    for (long i = 0; i < first; i++) {
      pid_t child = fork();
      if (child == 0) {
        free(sink = malloc(100));
        _exit(7);
      }
      int status = 0;
      while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
      failures += !(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
    answer("failures %d", failures);
  } else if (!strcmp(word, "terminate-forks")) {
    /* The signal may reach the child before fork has returned in it. */
    int failures = 0;
    for (long i = 0; i < first; i++) {
      pid_t child = fork();
      if (child == 0)
        for (;;)
          pause();
      kill(child, SIGTERM);
      int status = 0;
      while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
      failures += !(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    }
    answer("failures %d", failures);
  } else if (!strcmp(word, "fork")) {
    pid_t child = fork();
    if (child == 0) {
      open_commands(text);
      answer("child %d", getpid());
      return;
    }
    answer("parent of %d", child);
  } else if (!strcmp(word, "vfork")) {
    pid_t child = vfork();
    if (child == 0) {
      /* POSIX allows none of this, and programs do it. */
      free(sink = malloc((size_t)second));
      execl(text, text, NULL);
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    answer("ended %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  } else if (!strcmp(word, "spawn")) {
    pid_t child = 0;
    char *command[] = {"/bin/sh", "-c", strchr(line, ' ') + 1, NULL};
    int status = -1, error = posix_spawn(&child, command[0], NULL, NULL, command, environ);
    while (!error && waitpid(child, &status, 0) < 0 && errno == EINTR)
      ;
    answer("ended %d", error ? -error : WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  } else if (!strcmp(word, "execute")) {
    char *command[] = {arguments[0], text, NULL};
    execv(arguments[0], command);
    answer("not executed");
  } else if (!strcmp(word, "daemon")) {
    become_daemon(first);
    answer("daemon %d", getpid());
  } else if (!strcmp(word, "close-all")) {
    for (int i = 0; i < 2000; i++)
      if (i > 2 && i != commands)
        close(i);
    answer("closed");
  } else if (!strcmp(word, "root")) {
    if (chroot(text) != 0 || chdir("/") != 0)
      _exit(97);
    answer("changed");
  } else if (!strcmp(word, "user")) {
    if (setgid((gid_t)first) != 0 || setuid((uid_t)first) != 0)
      _exit(95);
    answer("user %u", (unsigned)geteuid());
  } else if (!strcmp(word, "limit-files")) {
    struct rlimit limit = {(rlim_t)first, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &limit);
    answer("limited");
  } else if (!strcmp(word, "descriptors")) {
    int count = 0;
    for (int i = 0; i < 2000; i++)
      count += fcntl(i, F_GETFD) >= 0;
    answer("descriptors %d", count);
  } else if (!strcmp(word, "loader-error")) {
    const char *error = dlerror();
    answer("%s", error ? error : "none");
  } else if (!strcmp(word, "environment")) {
    const char *value = getenv(text);
    answer("%s=%s", text, value ? value : "(unset)");
  } else if (!strcmp(word, "end")) {
    int status = 0;
    char manner[64] = "";
    sscanf(line, "%*s %63s %d", manner, &status);
    end(manner, status);
    /* "return": main does. */
    answer("returning");
    commands = -1 - status;
  } else if (*word) {
    answer("unknown '%s'", word);
  }
}

int main(int count, char **arguments) {
  char line[512];
  if (count < 2)
    return 94;
  /* What the test's process let through is not ours to count. */
  closefrom(3);
  open_commands(arguments[1]);
  answer("ready %d", getpid());
  while (commands >= 0) {
    read_command(line, sizeof line);
    obey(line, arguments);
  }
  return -1 - commands;
}
