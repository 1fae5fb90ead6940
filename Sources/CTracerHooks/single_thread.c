/* SPDX-License-Identifier: Apache-2.0
 * Leaves a program of one thread what the C library gives such programs, though the worker is there.
 *
 * As long as a process has made no thread, glibc takes no locks: not in malloc, not in stdio. The worker
 * would end that for good, at 1.5 to 2 % more instructions of programs that allocate much, which are atomic
 * ones, and some 4 % of their time, recording or not. But it takes part in nothing that the locks are for: it
 * has memory of its own from the kernel, and calls the kernel itself. So the program is told, by the
 * variable that glibc reads (__libc_single_threaded(3)), that it is as alone as it is without us.
 *
 * Who else must know that there is a second thread: setuid(2) and its like, which change one thread, and
 * which glibc repeats in all threads where it believes in them. These names are ours for that reason alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include "single_thread.h"
#include "tracer_hooks.h"

/* What the program's thread believes. */
enum belief {
  AS_GLIBC_SAYS, /* there is no worker, or the program had threads before */
  ALONE,         /* though there is the worker */
  NOT_ALONE,     /* since the worker had to call something that takes locks */
};
static _Atomic int belief;

static void believe(char is_single) {
  __atomic_store_n(&__libc_single_threaded, is_single, __ATOMIC_SEQ_CST);
}
static int believes_alone(void) {
  return __atomic_load_n(&__libc_single_threaded, __ATOMIC_SEQ_CST) != 0;
}

/* MARK: setuid and its like */

/* Around a call that all threads must make. Only the program's thread comes here while it is alone. */
static int begin_change(void) {
  tracer_watch_identity();
  if (belief != ALONE || !believes_alone())
    return 0;
  believe(0);
  return 1;
}

static void end_change(int was_alone) {
  if (!was_alone)
    return;
  believe(1);
  /* The worker may have ended it meanwhile: by one of the two orders it is ended. */
  if (belief != ALONE)
    believe(0);
}

#define IDENTITIES(DO)                                                                             \
  DO(setuid, (uid_t user), (user))                                                                 \
  DO(setgid, (gid_t group), (group))                                                               \
  DO(seteuid, (uid_t user), (user))                                                                \
  DO(setegid, (gid_t group), (group))                                                              \
  DO(setreuid, (uid_t real, uid_t effective), (real, effective))                                   \
  DO(setregid, (gid_t real, gid_t effective), (real, effective))                                   \
  DO(setresuid, (uid_t real, uid_t effective, uid_t saved), (real, effective, saved))              \
  DO(setresgid, (gid_t real, gid_t effective, gid_t saved), (real, effective, saved))              \
  DO(setgroups, (size_t count, const gid_t *groups), (count, groups))                              \
  DO(initgroups, (const char *user, gid_t group), (user, group))

#define DEFINE(name, parameters, arguments)                                                        \
  static int hook_##name parameters {                                                              \
    static int(*original) parameters;                                                              \
    if (!original)                                                                                 \
      original = (int(*) parameters)dlsym(RTLD_NEXT, #name);                                       \
    int was_alone = begin_change();                                                                \
    int result = original arguments;                                                               \
    end_change(was_alone);                                                                         \
    return result;                                                                                 \
  }                                                                                                \
  int name parameters __attribute__((alias("hook_" #name)));
IDENTITIES(DEFINE)

static const struct {
  const char *name;
  void *ours;
} identities[] = {
#define DESCRIBE(name, parameters, arguments) {#name, (void *)hook_##name},
    IDENTITIES(DESCRIBE)};

/* MARK: Whether it can be done */

/* Where another library has one of the names, or the program has one and does not show it to libraries,
 * a thread with the rights of before might stay. */
static int sees_every_change(void) {
  for (size_t index = 0; index < sizeof identities / sizeof *identities; index++)
    if (dlsym(RTLD_DEFAULT, identities[index].name) != identities[index].ours)
      return 0;
  return 1;
}

/* A program that reads the variable itself may have a copy of it, which is not what glibc reads, and
 * which glibc would not set again when the program does make a thread. */
static int is_glibcs_own(void) {
  struct tracer_object library, variable;
  return !tracer_find_object((uint64_t)gnu_get_libc_version, &library) &&
         !tracer_find_object((uint64_t)&__libc_single_threaded, &variable) &&
         library.start == variable.start;
}

/* Read in the sources of these: what depends on the variable, and who sets it. */
static int is_known_glibc(void) {
  const char *version = gnu_get_libc_version();
  char *end;
  long major = strtol(version, &end, 10), minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
  return major == 2 && minor >= 36 && minor <= 42;
}

int tracer_is_alone(void) {
  return believes_alone() && is_known_glibc() && is_glibcs_own() && sees_every_change();
}

void tracer_stay_alone(int was_alone) {
  belief = was_alone ? ALONE : AS_GLIBC_SAYS;
  if (was_alone)
    believe(1);
}

/* MARK: The end of it */

int tracer_believes_alone(void) { return belief == ALONE && believes_alone(); }

int tracer_share_library(int has_threads) {
  if (belief == AS_GLIBC_SAYS)
    return 0;
  if (has_threads) {
    belief = AS_GLIBC_SAYS;
    return 0;
  }
  belief = NOT_ALONE;
  believe(0);
  return 1;
}
