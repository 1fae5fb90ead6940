// SPDX-License-Identifier: Apache-2.0
// What glibc believes about a program's threads: `alone` where it has one, `not alone` where it has taken locks
// since it had another. And whether each call that changes who a process is changes all of its threads before
// it returns, each in a child of its own, and a call around the library's names soon. Ends with 77 where it
// is not root.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST = 54321 };

static void tell(const char *when) {
#ifdef COPY
  extern char __libc_single_threaded;
  const char *variable = &__libc_single_threaded;
#else
  const char *variable = dlsym(RTLD_DEFAULT, "__libc_single_threaded");
#endif
  printf("%s: %s\n", when, *variable ? "alone" : "not alone");
}

static int identity(const char *thread, char *text, size_t size) {
  char path[300], line[300];
  snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
  FILE *status = fopen(path, "r");
  if (!status)
    return 0;
  *text = 0;
  while (fgets(line, sizeof line, status))
    if (!strncmp(line, "Uid:", 4) || !strncmp(line, "Gid:", 4) || !strncmp(line, "Groups:", 7))
      strncat(text, line, size - strlen(text) - 1);
  fclose(status);
  return 1;
}

static int all_are_the_same(void) {
  char own[900], other[900], number[32];
  int count = 0, same = 0;
  snprintf(number, sizeof number, "%d", getpid());
  identity(number, own, sizeof own);
  DIR *threads = opendir("/proc/self/task");
  for (struct dirent *thread; (thread = readdir(threads));)
    if (*thread->d_name != '.' && identity(thread->d_name, other, sizeof other)) {
      count++;
      same += !strcmp(own, other);
    }
  closedir(threads);
  return count == same;
}

static void *end(void *nothing) { return nothing; }

static void around(void) {
  int (*change)(uid_t, uid_t, uid_t) =
      (int (*)(uid_t, uid_t, uid_t))dlsym(dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD), "setresuid");
  int answer = change(FIRST, FIRST, FIRST);
  /* glibc ends a process whose threads get different answers. */
  answer |= setuid(0) == 0;
  for (int tries = 0; tries < 1000 && !all_are_the_same(); tries++)
    usleep(10000);
  printf("around: %d, %d\n", answer, all_are_the_same());
}

#define CHANGE(call)                                                                               \
  if (fork() == 0) {                                                                               \
    tell("in a child");                                                                            \
    int answer = call;                                                                             \
    printf("%s: %d, %d\n", #call, answer, all_are_the_same());                                     \
    /* In both directions: what was given up cannot be taken again. */                             \
    answer = setuid(FIRST + 1);                                                                    \
    int second = setuid(0);                                                                        \
    printf("setuid: %d %d, %d\n", answer, second, all_are_the_same());                             \
    _exit(0);                                                                                      \
  }                                                                                                \
  wait(&status)

int main(void) {
  int status;
  gid_t group = FIRST;
  setvbuf(stdout, NULL, _IONBF, 0);
  if (getuid() != 0)
    return 77;
  tell("at first");
  free(malloc(1));
  tell("after a call");
  CHANGE(setgroups(1, &group));
  CHANGE(initgroups("root", FIRST));
  CHANGE(setgid(FIRST));
  CHANGE(setegid(FIRST));
  CHANGE(setregid(FIRST, FIRST + 1));
  CHANGE(setresgid(FIRST, FIRST + 1, FIRST + 2));
  CHANGE(seteuid(FIRST));
  CHANGE(setreuid(FIRST, 0));
  CHANGE(setresuid(0, FIRST, 0));
  CHANGE(setuid(FIRST));
  if (fork() == 0) {
    around();
    _exit(0);
  }
  wait(&status);
  tell("before a thread");
  pthread_t thread;
  pthread_create(&thread, NULL, end, NULL);
  tell("beside a thread");
  pthread_join(thread, NULL);
  tell("after a thread");
  return WIFSIGNALED(status);
}
