// SPDX-License-Identifier: Apache-2.0
// zlib, for profiles that arrive compressed.
#include <zlib.h>
