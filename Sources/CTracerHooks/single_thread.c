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
 * which glibc repeats in all threads where it believes in them. These names are ours for that reason alone,
 * and with the first such call it is over.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "single_thread.h"
#include "tracer_hooks.h"

/* Swift's side. */
extern void tracer_should_follow(void);

/* What the program's thread believes. */
enum belief {
  AS_GLIBC_SAYS, /* there is no worker, or the program's own thread has ended the belief */
  ALONE,         /* though there is the worker */
  NOT_ALONE,     /* the worker has ended it: what the thread is in the middle of may still be without locks */
};
static _Atomic int belief;
/* The process in which it does: the child of a vfork has its memory. */
static _Atomic int process;

static int own_process(void) { return (int)tracer_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0); }

static void believe(char is_single) {
  __atomic_store_n(&__libc_single_threaded, is_single, __ATOMIC_SEQ_CST);
}
static int believes_alone(void) {
  return __atomic_load_n(&__libc_single_threaded, __ATOMIC_SEQ_CST) != 0;
}

/* MARK: setuid and its like */

/* Whose rights the worker has: real, effective and saved user and group. */
static _Atomic unsigned workers[6];

static void read_identity(unsigned *ret_identity) {
  static const long calls[] = {SYS_getresuid, SYS_getresgid};
  for (int index = 0; index < 2; index++, ret_identity += 3)
    tracer_syscall(calls[index], (long)ret_identity, (long)(ret_identity + 1),
                   (long)(ret_identity + 2), 0, 0, 0);
}

void tracer_note_identity(void) {
  unsigned identity[6] = {0};
  read_identity(identity);
  for (int index = 0; index < 6; index++)
    workers[index] = identity[index];
}

/* Not so where the program has changed it by a way around us, dlsym of glibc's own name for one. */
static int has_workers_identity(void) {
  unsigned identity[6] = {0};
  read_identity(identity);
  for (int index = 0; index < 6; index++)
    if (workers[index] != identity[index])
      return 0;
  return 1;
}

/* Before a call that all threads must make. Only the program's thread comes here while it is alone.
 * Where its rights are not the worker's any more, the two would get different answers, for which glibc
 * ends the process: then the worker follows by itself. */
static void will_change(void) {
  if (belief != ALONE || !believes_alone() || process != own_process() || !has_workers_identity())
    return;
  belief = AS_GLIBC_SAYS;
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
  static int(*original_##name) parameters;                                                         \
  static int hook_##name parameters {                                                              \
    if (!original_##name)                                                                          \
      tracer_find_identity_calls();                                                                \
    will_change();                                                                                 \
    tracer_watch_identity();                                                                       \
    int result = original_##name arguments;                                                        \
    if (belief == ALONE)                                                                           \
      tracer_should_follow();                                                                      \
    return result;                                                                                 \
  }                                                                                                \
  int name parameters __attribute__((alias("hook_" #name)));
IDENTITIES(DEFINE)

void tracer_find_identity_calls(void) {
#define FIND(name, parameters, arguments)                                                          \
  original_##name = (int(*) parameters)dlsym(RTLD_NEXT, #name);
  IDENTITIES(FIND)
}

static const struct {
  const char *name;
  void *ours;
} identities[] = {
#define DESCRIBE(name, parameters, arguments) {#name, (void *)hook_##name},
    IDENTITIES(DESCRIBE)};

/* MARK: Whether it can be done */

/* Not where another library has one of the names, or the program has one and does not show it to libraries. */
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

void tracer_will_have_worker(int was_alone) {
  process = own_process();
  tracer_note_identity();
  belief = was_alone ? ALONE : AS_GLIBC_SAYS;
}

void tracer_has_worker(int was_alone) {
  if (!was_alone)
    return;
  believe(1);
  /* The worker may have ended it already: by one of the two orders it is ended. */
  if (belief != ALONE)
    believe(0);
}

/* MARK: The end of it */

int tracer_is_left_alone(int has_threads) { return belief != AS_GLIBC_SAYS && !has_threads; }

int tracer_share_library(int has_threads) {
  if (!tracer_is_left_alone(has_threads))
    return 0;
  belief = NOT_ALONE;
  believe(0);
  return 1;
}
