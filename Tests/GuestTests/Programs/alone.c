// SPDX-License-Identifier: Apache-2.0
// What glibc believes about a program's threads: `alone` where it has one, `not alone` where it has taken locks
// since it had another. And whether each call that changes who a process is changes all of its threads,
// before it returns. Ends with 77 where it is not root.
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

static void tell_change(const char *what, int answer) {
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
  printf("%s: %s, %s\n", what, answer ? "refused" : "done", count == same ? "all" : "not all");
}

static void *end(void *nothing) { return nothing; }

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  if (getuid() != 0)
    return 77;
  tell("at first");
  free(malloc(1));
  tell("after a call");
  pid_t child = fork();
  if (child == 0) {
    tell("in a child");
    tell_change("setgid there", setgid(FIRST + 9));
    _exit(0);
  }
  waitpid(child, NULL, 0);
  gid_t group = FIRST;
  tell_change("setgroups", setgroups(1, &group));
  tell_change("initgroups", initgroups("root", FIRST + 1));
  tell_change("setegid", setegid(FIRST + 2));
  tell_change("setregid", setregid(FIRST + 3, FIRST + 4));
  tell_change("setresgid", setresgid(FIRST + 5, FIRST + 6, FIRST + 7));
  tell_change("setgid", setgid(FIRST + 8));
  tell_change("seteuid", seteuid(FIRST));
  tell_change("seteuid", seteuid(0));
  tell_change("setreuid", setreuid(0, 0));
  tell_change("setresuid", setresuid(0, FIRST, 0));
  tell_change("seteuid", seteuid(0));
  tell("before a thread");
  pthread_t thread;
  pthread_create(&thread, NULL, end, NULL);
  tell("beside a thread");
  pthread_join(thread, NULL);
  tell_change("setuid", setuid(FIRST));
  tell_change("setuid", setuid(0));
  tell("after a thread");
  return 0;
}
