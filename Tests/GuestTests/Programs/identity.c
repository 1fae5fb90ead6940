// SPDX-License-Identifier: Apache-2.0
// Becomes another user as daemons do that keep some capabilities: each step gets its answer, and at the end
// every thread of the process is as mighty as the first one. Ends with 77 where it is not root.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { USER = 54321 };

static void set(unsigned capabilities) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{capabilities, capabilities, 0}, {0, 0, 0}};
  if (syscall(SYS_capset, &header, data))
    printf("capset: %s\n", strerror(errno));
}

static void tell(const char *what, int answer) {
  printf("%s: %s\n", what, answer ? strerror(errno) : "done");
}

static int threads_that_may(unsigned long long more_than) {
  int count = 0;
  DIR *threads = opendir("/proc/self/task");
  for (struct dirent *thread; (thread = readdir(threads));) {
    char path[300], line[200];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread->d_name);
    FILE *status = fopen(path, "r");
    unsigned long long permitted;
    while (status && fgets(line, sizeof line, status))
      if (sscanf(line, "CapPrm: %llx", &permitted) == 1)
        count += (permitted & ~more_than) != 0;
    if (status)
      fclose(status);
  }
  closedir(threads);
  return count;
}

int main(void) {
  unsigned kept = 1u << CAP_SETGID | 1u << CAP_SETUID | 1u << CAP_NET_BIND_SERVICE;
  if (getuid() != 0)
    return 77;
  setvbuf(stdout, NULL, _IONBF, 0);
  free(malloc(1));
  tell("keep", prctl(PR_SET_KEEPCAPS, 1));
  tell("setresuid", setresuid(USER, USER, USER));
  /* Not in effect, but permitted. */
  tell("setgroups without", setgroups(0, NULL));
  set(kept);
  tell("setgroups", setgroups(0, NULL));
  tell("setresgid", setresgid(USER, USER, USER));
  tell("setuid", setuid(USER + 1));
  set(1u << CAP_SETGID | 1u << CAP_NET_BIND_SERVICE);
  tell("setuid without", setuid(0));
  set(1u << CAP_NET_BIND_SERVICE);
  tell("setgid without", setgid(0));
  printf("%d %d %d\n", getuid(), getgid(), getgroups(0, NULL));
  /* By a second the tracer's thread has followed; ten, on a busy machine. */
  for (int tries = 0; tries < 1000 && threads_that_may(1u << CAP_NET_BIND_SERVICE); tries++)
    usleep(10000);
  printf("too mighty: %d\n", threads_that_may(1u << CAP_NET_BIND_SERVICE));
  return 0;
}
