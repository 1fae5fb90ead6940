/* SPDX-License-Identifier: Apache-2.0
 * State, and the few questions that only the C library can answer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <sys/auxv.h>

#include "tracer_platform.h"

struct tracer_originals tracer_originals;
struct tracer_services tracer_services;
_Alignas(64) unsigned char tracer_core_bytes[TRACER_CORE_BYTE_COUNT];
__thread void *tracer_thread_slot __attribute__((tls_model("initial-exec")));

/* Weak: a process whose glibc is older than 2.35 must load, and be told, rather than not start. */
extern int _dl_find_object(void *, struct dl_find_object *) __attribute__((weak));

int tracer_can_find_objects(void) { return _dl_find_object != NULL; }

int tracer_find_object(uint64_t address, struct tracer_object *ret_object) {
  struct dl_find_object found;
  if (!_dl_find_object || _dl_find_object((void *)address, &found) != 0)
    return -1;
  *ret_object = (struct tracer_object){
      .start = (uint64_t)found.dlfo_map_start,
      .end = (uint64_t)found.dlfo_map_end,
      .eh_frame_header = found.dlfo_eh_frame,
      .name = found.dlfo_link_map ? found.dlfo_link_map->l_name : NULL,
      .load_bias = found.dlfo_link_map ? (uint64_t)found.dlfo_link_map->l_addr : 0,
  };
  return 0;
}

const char *tracer_program_path(void) { return (const char *)getauxval(AT_EXECFN); }

int tracer_heap_figures(struct tracer_heap_figures *ret_figures) {
  struct mallinfo2 figures = mallinfo2();
  *ret_figures = (struct tracer_heap_figures){
      .in_use = figures.uordblks + figures.hblkhd,
      .free = figures.fordblks,
  };
  return 0;
}
