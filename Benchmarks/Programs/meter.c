/* SPDX-License-Identifier: Apache-2.0
 * Runs a program and tells what it took: a small process, so that what the driver's own memory is does not
 * count as the program's peak, which a fork hands on.
 * Usage: meter FILE [NAME=VALUE…] PROGRAM [ARGUMENT…]; writes to FILE the program's status, and its seconds,
 * seconds of processor time and peak in KiB, its children's that it has waited for included. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec / 1e6; }

int main(int count, char **arguments) {
  struct timespec start, end;
  struct rusage used;
  int status = 0;
  if (count < 3)
    return 64;
  clock_gettime(CLOCK_MONOTONIC, &start);
  pid_t child = fork();
  if (child == 0) {
    char **program = arguments + 2;
    for (; *program && strchr(*program, '='); program++)
      putenv(*program);
    if (*program)
      execvp(*program, program);
    _exit(127);
  }
  if (child < 0 || wait4(child, &status, 0, &used) != child)
    return 2;
  clock_gettime(CLOCK_MONOTONIC, &end);
  FILE *file = fopen(arguments[1], "w");
  if (!file)
    return 2;
  fprintf(file, "%d %.6f %.6f %ld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9,
          seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss);
  return fclose(file) == 0 ? 0 : 2;
}
