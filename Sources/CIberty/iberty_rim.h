// SPDX-License-Identifier: Apache-2.0
// libiberty's demangler of Rust's names, old and new: a static library, and none of the rest of it.
#include <stddef.h>

// Declared here: libiberty's headers want a configured package around them, and nothing else of them
// is used. `demangle.h` has had these since 2016.

/// Implementation details too: the hashes of crates and of older names.
#define HEAPTAP_DMGL_VERBOSE (1 << 3)

/// Hands the demangled name to the callback piece by piece. Bounded in depth, not in output.
///
/// Returns 0 where the name is not Rust's; what the callback got then means nothing.
int rust_demangle_callback(
    const char *_Nonnull mangled, int options,
    void (*_Nonnull callback)(const char *_Nonnull piece, size_t length, void *_Nullable context),
    void *_Nullable context);
