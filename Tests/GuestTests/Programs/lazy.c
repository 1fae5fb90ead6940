// SPDX-License-Identifier: Apache-2.0
// Has a function of a plug-in bound at its first call, whose choice then allocates.

#define _GNU_SOURCE
#include <dlfcn.h>

#include "capture.h"

int main(int count, char **arguments) {
  void *plugin = count > 1 ? dlopen(arguments[1], RTLD_LAZY | RTLD_LOCAL) : NULL;
  if (!plugin) {
    puts(dlerror());
    return 1;
  }
  void (*call)(void) = (void (*)(void))dlsym(plugin, "call_lazily");
  call();
  capture(20003);
  return 0;
}
