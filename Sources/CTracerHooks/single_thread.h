/* SPDX-License-Identifier: Apache-2.0
 * Between start-up and what keeps a program of one thread alone. */
#ifndef SINGLE_THREAD_H
#define SINGLE_THREAD_H

#define HIDDEN __attribute__((visibility("hidden")))

/* Whether the calling thread is the process's only one, and may be left to believe so. */
HIDDEN int tracer_is_alone(void);

/* Before the worker is made, and after it. */
HIDDEN void tracer_will_have_worker(int was_alone);
HIDDEN void tracer_has_worker(int was_alone);

/* Whether the program's thread may be calling the C library without locks beside the worker: it has done so,
 * and has made no thread. */
HIDDEN int tracer_is_left_alone(int has_threads);

/* Ends that: 1 where the thread's next call of the C library is the first that takes locks, 0 where all
 * have done so for long. */
HIDDEN int tracer_share_library(int has_threads);

/* Finds glibc's functions that ours stand before: no search may wait for the loader's lock in the middle of
 * one, where a thread may have it that waits for this one. */
HIDDEN void tracer_find_identity_calls(void);

/* The calling thread, which is the worker or is about to make it, has the rights that the worker has. */
HIDDEN void tracer_note_identity(void);

/* Sees that the worker is asked to change its identity by way of us. */
HIDDEN void tracer_watch_identity(void);

#endif
