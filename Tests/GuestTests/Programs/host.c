// SPDX-License-Identifier: Apache-2.0
// A host in C that loads each plug-in of its arguments, lets it allocate, and unloads it.
// Prints the address that each was loaded at.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef SNAPSHOTS
#include <heaptap.h>
#endif

int main(int count, char **arguments) {
  for (int i = 1; i < count; i++) {
    void *plugin = dlopen(arguments[i], RTLD_NOW | RTLD_LOCAL);
    if (!plugin) {
      printf("FAILED %s\n", dlerror());
      return 1;
    }
    void *(*run)(size_t) = (void *(*)(size_t))dlsym(plugin, "plugin_run");
    void (*give)(void *) = (void (*)(void *))dlsym(plugin, "plugin_free");
    Dl_info info;
    dladdr((void *)run, &info);
    printf("%p\n", info.dli_fbase);
    run((size_t)(30000 + i));
    give(run(100));
    dlclose(plugin);
#ifdef SNAPSHOTS
    heaptap_snapshot();
#endif
  }
  puts("done");
  return 0;
}
