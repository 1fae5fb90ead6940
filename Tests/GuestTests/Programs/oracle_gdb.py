# SPDX-License-Identifier: Apache-2.0
# The other oracle: gdb's `bt` at the allocations that oracle.c samples, for the same stacks.
#
# `gdb -batch -x oracle_gdb.py --args PROGRAM…`, with the program's environment in ORACLE_GDB_… of
# gdb's own. Prints each difference, and at last `gdb COMPARED EQUAL UNTABLED ASYNC FRAMES`.

import os
import re
import shlex
import struct

import gdb

compared = equal = untabled = awaiting = compared_frames = 0


def described(pc):
    """The address with its function, of the call and not of what comes after it."""
    return gdb.execute(f"info symbol {pc - 1:#x}", to_string=True).strip().split("\n")[0]


def is_async(name):
    """Whether a function is a part of one that awaits, as oracle.c tells."""
    entries = ("swift_task", "swift_asyncLet", "swift_continuation")
    name = name.split(" ")[0]
    if re.search("T[YQ][0-9]+_$", name):
        return True
    if name.startswith("$sI"):
        return "H" in name.split("_")[0]
    if name.startswith("$s"):
        return re.search("Ya(Y.|K)*([FlrR]|cf|XEf)", name) is not None
    return name.startswith(entries)


def gdb_stack(caller):
    """Addresses from the caller outwards, as they are found on the stack.

    Inlined functions have no frame. A frame that gdb infers from a tail call is gone from the stack.
    """
    addresses = []
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            if addresses or frame.pc() == caller:
                addresses.append(frame.pc())
        frame = frame.older()
    return addresses


class Sampled(gdb.Breakpoint):
    def stop(self):
        global compared, equal, untabled, awaiting, compared_frames
        first, count, without = (int(gdb.parse_and_eval(name)) for name in ("$rdi", "$rsi", "$rdx"))
        memory = gdb.selected_inferior().read_memory(first, 8 * count)
        ours = list(struct.unpack(f"{count}Q", memory))
        theirs = [pc for pc in gdb_stack(ours[0]) if not described(pc).endswith("/libheaptap.so")]
        compared += 1
        compared_frames += len(ours)
        if ours == theirs:
            equal += 1
            return False
        # Where there is no unwind table gdb reads the instructions, and knows a frame pointer only
        # where its first one pushes it.
        same = 0
        while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
            same += 1
        why = ""
        if same > 0 and is_async(described(ours[same - 1])):
            awaiting += 1
            why = ", by its awaiting callers"
        elif without < same:
            untabled += 1
            why = ", after a function without a table"
        print(f"{len(ours)} frames, by gdb {len(theirs)}{why}")
        for index in range(max(len(ours), len(theirs))):
            for side, frames in (("ours", ours), ("theirs", theirs)):
                if index < len(frames):
                    print(f"  {side} {frames[index]:x} {described(frames[index])}")
        return False


gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set disable-randomization off")
gdb.execute("set debuginfod enabled off")
gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace past-entry on")
gdb.execute("set breakpoint pending on")
gdb.execute("set print thread-events off")
gdb.execute("set print inferior-events off")
for signal in ("SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGILL", "SIGALRM", "SIGTERM", "SIGPIPE"):
    gdb.execute(f"handle {signal} nostop noprint pass", to_string=True)
variables = [f"{name[11:]}={value}" for name, value in os.environ.items() if name.startswith("ORACLE_GDB_")]
gdb.execute(f"set exec-wrapper env {shlex.join(variables)}")
Sampled("heaptap_oracle_sampled")
gdb.execute("run")
print(f"\ngdb {compared} {equal} {untabled} {awaiting} {compared_frames}", flush=True)
