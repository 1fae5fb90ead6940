// SPDX-License-Identifier: Apache-2.0
// libsystemd: the journal, read and written, and the identity of this machine.

// Entries are about a traced process: where in this command they were made is nobody's concern.
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-id128.h>
#include <systemd/sd-journal.h>
