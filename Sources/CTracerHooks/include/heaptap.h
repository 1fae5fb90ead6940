/* SPDX-License-Identifier: Apache-2.0
 *
 * Heaptap from inside a C or C++ program: start, snapshot and stop, in a process in which
 * libheaptap.so is linked or preloaded.
 *
 * The calls wait until the tracer's worker has carried them out, a minute at most, and may be made
 * from any thread, but not from a signal handler. Each answers 0 or an errno: EPERM where the
 * tracer is off (HEAPTAP=0, a setting that it refused, raised privileges), ETIMEDOUT where the
 * worker does not answer.
 */
#ifndef HEAPTAP_H
#define HEAPTAP_H

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

#ifdef __cplusplus
}
#endif

#endif
