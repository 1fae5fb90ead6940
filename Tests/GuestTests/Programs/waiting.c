/* SPDX-License-Identifier: Apache-2.0
 * Blocks SIGUSR1 and SIGUSR2 in all its threads and waits for them by itself, by `signalfd` or `sigwait`,
 * as many event loops do. Says what it got, and ends after SIGUSR2. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void *idle(void *unused) {
  (void)unused;
  for (;;) pause();
}

int main(int count, char **arguments) {
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGUSR1);
  sigaddset(&awaited, SIGUSR2);
  sigprocmask(SIG_BLOCK, &awaited, NULL);
  pthread_t thread;
  if (count != 2 || pthread_create(&thread, NULL, idle, NULL)) return 64;
  int descriptor = signalfd(-1, &awaited, SFD_CLOEXEC);
  printf("ready\n");
  for (int number = 0; number != SIGUSR2;) {
    fflush(stdout);
    if (!strcmp(arguments[1], "sigwait")) {
      if (sigwait(&awaited, &number)) return 1;
    } else {
      struct signalfd_siginfo info;
      if (read(descriptor, &info, sizeof info) != sizeof info) return 1;
      number = (int)info.ssi_signo;
    }
    printf("got %s\n", number == SIGUSR1 ? "USR1" : "USR2");
  }
  return 0;
}
