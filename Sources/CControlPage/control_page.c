/* SPDX-License-Identifier: Apache-2.0
 * Holds the control page to its layout: both sides of it are compiled apart, and upgraded apart. */
#include <stddef.h>

#include "control_page.h"

_Static_assert(sizeof(struct tracer_control_page) <= TRACER_CONTROL_BYTE_COUNT, "fits its file");
_Static_assert(offsetof(struct tracer_control_page, wake) == 24, "version 1");
_Static_assert(offsetof(struct tracer_control_page, handled) == 36, "version 1");
_Static_assert(offsetof(struct tracer_control_page, live_bytes) == 56, "version 1");
_Static_assert(offsetof(struct tracer_control_page, signals) == 112, "version 1");
_Static_assert(offsetof(struct tracer_control_page, dump_path) == 752, "version 1");
