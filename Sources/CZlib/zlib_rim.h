// SPDX-License-Identifier: Apache-2.0
// zlib, for profiles that arrive or leave compressed.
#include <zlib.h>
