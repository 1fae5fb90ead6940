/* SPDX-License-Identifier: Apache-2.0
 *
 * Heaptap from inside a C or C++ program: start, snapshot and stop, figures, and memory that malloc
 * does not hand out.
 *
 * Nothing has to be linked. The functions look for the tracer in the process, once each, by dlsym:
 * it is there where libheaptap.so was preloaded, or linked. Where it is not they answer ENOSYS, and
 * the program runs as it would without them.
 *
 * All but heaptap_is_recording and heaptap_traceback answer 0 or an errno, and leave errno alone:
 *
 *   ENOSYS     no tracer in this process
 *   EPERM      it is off: HEAPTAP=0, a setting that it refused, raised privileges
 *   ESRCH      nothing is recorded
 *   ETIMEDOUT  its worker thread did not answer within a minute
 *
 * They may be called from any thread, but not from a signal handler, but for heaptap_traceback. Those that change what is
 * recorded, and snapshots, wait until the worker has carried them out.
 */
#ifndef HEAPTAP_H
#define HEAPTAP_H

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#pragma clang assume_nonnull begin
#define HEAPTAP_NULLABLE_ _Nullable
#else
#define HEAPTAP_NULLABLE_
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The most frames of a stack that a recording can keep. */
#define HEAPTAP_DEPTH_LIMIT 1024

/* The recording in figures. All but `depth` and `sample_bytes` are 0 where nothing is recorded. */
struct heaptap_figures {
  uint64_t is_recording; /* 1 or 0 */
  uint64_t live_bytes;   /* asked of malloc since recording began, and not freed */
  uint64_t live_blocks;
  uint64_t peak_bytes;     /* the most that live_bytes has been; of other threads 2 KiB may be missing */
  uint64_t tracked_bytes;  /* by heaptap_track: in none of the above */
  uint64_t tracked_blocks;
  uint64_t tracer_bytes; /* the tracer's own memory */
  uint64_t lost_blocks;  /* not recorded, or without their stack */
  uint64_t depth;        /* frames kept of a stack: of the recording, else of the next one */
  uint64_t generation;   /* counts from 1 at each start */
  uint64_t sample_bytes; /* bytes for each sample: live and peak are estimates; 0: of every block */
  uint64_t live_error_bytes; /* the standard error of live_bytes, where that is one */
};

/* What of the tracer is looked for; 0 where there is none. Not to be called by programs. */
static inline uintptr_t heaptap_find_(uintptr_t *found, const char *name) {
  const uintptr_t absent = 1;
  uintptr_t address = __atomic_load_n(found, __ATOMIC_RELAXED);
  if (!address) {
    int error = errno;
    /* Where the process looks for malloc: RTLD_DEFAULT, whose name needs _GNU_SOURCE. */
    address = (uintptr_t)dlsym((void *)0, name);
    if (!address)
      address = absent;
    __atomic_store_n(found, address, __ATOMIC_RELAXED);
    errno = error;
  }
  return address == absent ? 0 : address;
}

#define HEAPTAP_CALL_(name, parameters, ...)                                                      \
  static uintptr_t found_;                                                                        \
  int(*call_) parameters = (int(*) parameters)heaptap_find_(&found_, name);                       \
  return call_ ? call_(__VA_ARGS__) : ENOSYS

/* Starts recording with so many frames a stack; 0 for what HEAPTAP_DEPTH says, or 64. Works also in
 * a process that no HEAPTAP variable has armed. Starting what records is no error and changes
 * nothing. EINVAL for more than HEAPTAP_DEPTH_LIMIT, ENOMEM where the kernel gives no address space
 * for the tables. */
static inline int heaptap_start(unsigned depth) {
  HEAPTAP_CALL_("heaptap_start", (unsigned), depth);
}

/* The same, whatever HEAPTAP_SAMPLE says: with one sample in so many bytes, from 1 KiB to 1 GiB, or of
 * every block where that is 0. EBUSY where the process has sampled at another distance. */
static inline int heaptap_start_sampling(unsigned depth, size_t sample_bytes) {
  HEAPTAP_CALL_("heaptap_start_sampling", (unsigned, size_t), depth, sample_bytes);
}

/* Writes a last snapshot as heaptap_snapshot does, stops recording, and gives the tracer's memory
 * back. Stopping what does not record is no error. */
static inline int heaptap_stop(void) { HEAPTAP_CALL_("heaptap_stop", (void), ); }

/* Stops recording without a last snapshot. */
static inline int heaptap_discard(void) { HEAPTAP_CALL_("heaptap_discard", (void), ); }

/* Forgets every block, with the peak and the totals, and goes on: what is alive now counts from here on
 * as allocated before the recording, and its free is no error. Takes a millisecond. */
static inline int heaptap_clear(void) { HEAPTAP_CALL_("heaptap_clear", (void), ); }

/* 1 while allocations are recorded, else 0; also 0 where there is no tracer. */
static inline int heaptap_is_recording(void) {
  static uintptr_t found_;
  int (*call_)(void) = (int (*)(void))heaptap_find_(&found_, "heaptap_is_recording");
  return call_ ? call_() : 0;
}

/* Writes a snapshot into HEAPTAP_DIR, or where dumps go without it, and begins the next generation.
 * Also what kept the file from being written. */
static inline int heaptap_snapshot(void) { HEAPTAP_CALL_("heaptap_snapshot", (void), ); }

/* Writes a snapshot to a file, in the place of one that is there, and begins the next generation. The
 * file is whole when it has its name; it is not synced to disk. A relative path is the process's.
 * Also what kept it from being written. */
static inline int heaptap_snapshot_to(const char *path) {
  HEAPTAP_CALL_("heaptap_snapshot_to", (const char *), path);
}

/* Begins the next generation without a snapshot: a later one tells what was born before and after.
 * ERANGE where the 1023 of a recording are used up. */
static inline int heaptap_mark(void) { HEAPTAP_CALL_("heaptap_mark", (void), ); }

/* Reads the figures; exact for the calling thread. */
static inline int heaptap_read(struct heaptap_figures *ret_figures) {
  HEAPTAP_CALL_("heaptap_read_figures", (void *, size_t), ret_figures, sizeof *ret_figures);
}

/* Has the peak begin anew, from what is alive now. */
static inline int heaptap_reset_peak(void) { HEAPTAP_CALL_("heaptap_reset_peak", (void), ); }

/* Tells of memory that malloc did not hand out: of a pool, of mmap, of a device. It is in snapshots
 * with the stack of this call and its domain, a number of the program's own choice from 1 up, until it
 * is untracked or recording stops. A second call for an address of a domain replaces the first. What
 * was there before recording began has to be told of again. ENOMEM where there is no memory to
 * remember it. */
static inline int heaptap_track(unsigned domain, uintptr_t address, size_t size) {
  HEAPTAP_CALL_("heaptap_track", (unsigned, uintptr_t, size_t), domain, address, size);
}

/* Takes it back. What is not tracked is no error. */
static inline int heaptap_untrack(unsigned domain, uintptr_t address) {
  HEAPTAP_CALL_("heaptap_untrack", (unsigned, uintptr_t), domain, address);
}

/* Writes the stack that a live block was allocated from, innermost frame first, `limit` addresses at
 * most, as they were found on the stack: return addresses, but for the instruction that a signal has
 * interrupted. Answers how many were written: 0 where the block is not known, because it was never
 * recorded, was freed, or nothing is recorded now, and where there is no tracer. `ret_total`, which may
 * be NULL, gets the number of frames that the stack had, also where HEAPTAP_DEPTH are known and no more.
 *
 * It waits for nothing and allocates nothing, and after its first call may be called from signal
 * handlers. The caller keeps the block from being freed meanwhile. */
static inline size_t heaptap_traceback(const void *block, uintptr_t *ret_addresses, size_t limit,
                                       size_t *HEAPTAP_NULLABLE_ ret_total) {
  static uintptr_t found_;
  size_t (*call_)(const void *, uintptr_t *, size_t, size_t *HEAPTAP_NULLABLE_) =
      (size_t (*)(const void *, uintptr_t *, size_t, size_t *HEAPTAP_NULLABLE_))heaptap_find_(
          &found_, "heaptap_traceback");
  if (call_)
    return call_(block, ret_addresses, limit, ret_total);
  if (ret_total)
    *ret_total = 0;
  return 0;
}

#undef HEAPTAP_CALL_
#undef HEAPTAP_NULLABLE_

#ifdef __cplusplus
}
#endif

#if defined(__clang__)
#pragma clang assume_nonnull end
#endif

#endif
