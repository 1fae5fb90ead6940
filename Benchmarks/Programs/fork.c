/* SPDX-License-Identifier: Apache-2.0
 * What a fork costs, with the child's end and the wait for it: what an armed process adds is the
 * child's own worker. Usage: fork TIMES; prints microseconds each. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
  int times = count > 1 ? atoi(arguments[1]) : 1000;
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < times; i++) {
    pid_t child = fork();
    if (child == 0)
      _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child)
      return 1;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%.1f\n", ((end.tv_sec - start.tv_sec) * 1e6 + (end.tv_nsec - start.tv_nsec) / 1e3) / times);
  return 0;
}
