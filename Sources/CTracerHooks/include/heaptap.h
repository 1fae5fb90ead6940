/* SPDX-License-Identifier: Apache-2.0
 *
 * Heaptap from inside a C or C++ program: start, snapshot and stop, and where a block came from, in
 * a process in which libheaptap.so is linked or preloaded.
 *
 * The first three wait until the tracer's worker has carried them out, a minute at most, and may be made
 * from any thread, but not from a signal handler. Each answers 0 or an errno: EPERM where the
 * tracer is off (HEAPTAP=0, a setting that it refused, raised privileges), ETIMEDOUT where the
 * worker does not answer.
 */
#ifndef HEAPTAP_H
#define HEAPTAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Starts recording, also in a process that no HEAPTAP variable has armed. Starting what records is
 * no error. ENOMEM where the kernel gives no address space for the tables. */
int heaptap_start(void);

/* Writes a snapshot, and begins the next generation. ESRCH while nothing is recorded; what kept the
 * file from being written otherwise. */
int heaptap_snapshot(void);

/* Writes a last snapshot, stops recording, and gives the tracer's memory back. */
int heaptap_stop(void);

/* Writes the stack that a live block was allocated from, innermost frame first, `limit` addresses at
 * most, as they were found on the stack: return addresses, but for the instruction that a signal has
 * interrupted. Answers how many were written: 0 where the block is not known, because it was never
 * recorded, was freed, or nothing is recorded now. `ret_total`, which may be NULL, gets the number of
 * frames that the stack had, also where HEAPTAP_DEPTH are known and no more.
 *
 * It waits for nothing and allocates nothing, and may be called from signal handlers. The caller
 * keeps the block from being freed meanwhile. */
size_t heaptap_traceback(const void *block, uintptr_t *ret_addresses, size_t limit,
                         size_t *ret_total);

#ifdef __cplusplus
}
#endif

#endif
