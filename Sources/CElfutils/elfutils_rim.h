// SPDX-License-Identifier: Apache-2.0
// libdw and libelf: what a program counter is called, by the file that it came from.
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwelf.h>
#include <elfutils/libdwfl.h>
#include <gelf.h>
#include <libelf.h>
