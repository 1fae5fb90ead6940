/* SPDX-License-Identifier: Apache-2.0
 * A library whose constructor takes SIGUSR1 before the tracer can: preloaded after it, it is
 * initialised first. */
#include <signal.h>
#include <unistd.h>

static void handle(int number) {
  static const char text[] = "early handler\n";
  (void)number;
  if (write(1, text, sizeof text - 1) < 0)
    _exit(99);
}

__attribute__((constructor)) static void take(void) { signal(SIGUSR1, handle); }
