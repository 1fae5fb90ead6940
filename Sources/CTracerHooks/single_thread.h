/* SPDX-License-Identifier: Apache-2.0
 * Between start-up and what keeps a program of one thread alone. */
#ifndef SINGLE_THREAD_H
#define SINGLE_THREAD_H

#define HIDDEN __attribute__((visibility("hidden")))

/* Whether the calling thread is the process's only one, and may be left to believe so. */
HIDDEN int tracer_is_alone(void);

/* After the worker was made. */
HIDDEN void tracer_stay_alone(int was_alone);

/* Whether the program's thread believes to be alone beside the worker. */
HIDDEN int tracer_believes_alone(void);

/* Ends that, if the program has no threads of its own that have ended it before: 1 where the thread's
 * next call of the C library is the first that takes locks, 0 where all have done so for long. */
HIDDEN int tracer_share_library(int has_threads);

/* Sees that the worker is asked to change its identity by way of us. */
HIDDEN void tracer_watch_identity(void);

#endif
