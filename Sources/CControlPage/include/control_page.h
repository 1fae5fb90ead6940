/* SPDX-License-Identifier: Apache-2.0
 *
 * The control page: how `heaptap start`, `snapshot`, `stop` and `list` reach a traced process
 * without a signal. A sealed memfd (it can neither grow nor shrink, so neither side can be made to
 * fault) named `heaptap-control`, open only in the descriptor table of the tracer's worker thread
 * (comm `heaptap`) and found from outside as /proc/PID/task/TID/fd/N. Mapped shared by both sides.
 *
 * Contract: every field has its natural alignment, is little-endian and is written with single
 * stores of its width. A reader trusts nothing: strings may lack their NUL, numbers may change
 * between two reads.
 *
 * A request: set bits in `commands` (atomic OR), add 1 to `requested` (atomic; the value after the
 * addition is the request's ticket), add 1 to `wake` and FUTEX_WAKE it (shared). The worker takes
 * all bits at once, carries them out, writes the answer and then stores into `handled` the value
 * that `requested` had when it took the bits, and wakes `handled`. A request is answered when
 * `handled - ticket`, as a signed 32-bit difference, is not negative. Requests are idempotent:
 * starting what records and stopping what sleeps succeed.
 */
#ifndef HEAPTAP_CONTROL_PAGE_H
#define HEAPTAP_CONTROL_PAGE_H

#include <stdint.h>

#define TRACER_CONTROL_MAGIC 0x5041545041454801ull
#define TRACER_CONTROL_VERSION 1u
#define TRACER_CONTROL_BYTE_COUNT 8192u

enum tracer_control_state {
  TRACER_STATE_OFF = 0,     /* loaded, and off for good or until the API starts it */
  TRACER_STATE_DORMANT = 1, /* armed */
  TRACER_STATE_RECORDING = 2,
};

enum tracer_command {
  TRACER_COMMAND_START = 1,
  TRACER_COMMAND_STOP = 2, /* writes a last snapshot first */
  TRACER_COMMAND_SNAPSHOT = 4,
  TRACER_COMMAND_REFRESH = 8, /* bring the counters below up to date; does nothing else */
};

/* What became of the last snapshot that was asked for. */
enum tracer_snapshot_result {
  TRACER_SNAPSHOT_NONE = 0,    /* none was asked for yet */
  TRACER_SNAPSHOT_WRITTEN = 1, /* `dump_path` names it */
  TRACER_SNAPSHOT_DORMANT = 2, /* nothing is recorded, nothing was written */
  TRACER_SNAPSHOT_FAILED = 3,  /* `message` says why, `error` is the errno */
};

struct tracer_control_page {
  uint64_t magic;
  uint32_t version;
  uint32_t byte_count;

  uint32_t pid; /* in the traced process's own pid namespace */
  uint32_t state;

  uint32_t wake; /* futex: the worker sleeps on it */
  uint32_t commands;
  uint32_t requested;
  uint32_t handled; /* futex: the asker sleeps on it */

  uint32_t snapshot_result;
  uint32_t error;
  uint32_t start_result; /* 0, or the errno with which recording could not start */
  uint32_t depth;        /* frames kept of a stack */

  /* As of the last command, request or second, whichever the worker saw last. */
  uint64_t live_bytes;
  uint64_t live_blocks;
  uint64_t peak_bytes;
  uint64_t tracer_bytes;
  uint64_t lost;      /* records that could not be kept, of all kinds */
  uint64_t snapshots; /* written since the process began */
  uint64_t recording_since_ns; /* CLOCK_REALTIME; 0 while dormant */

  char signals[64];     /* as HEAPTAP_SIGNALS says it: "USR1,USR2", or "none" */
  char program[64];     /* as it appears in the names of dumps */
  char message[512];    /* the last thing that went wrong, one sentence */
  char dump_path[4096]; /* the last dump written */

  /* Bytes for each sample, on average: of the recording, else of the next one; 0 where every block is
   * recorded. */
  uint64_t sample_bytes;
};

#endif
