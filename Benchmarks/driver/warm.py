# SPDX-License-Identifier: Apache-2.0
"""Instructions of the warm paths and of start-up, and what they were: kept in a file, so that growth is seen.

Counted is one malloc+free pair, as the difference of two sizes of work, so that start-up cancels, and a program that
has no work; kept is what it takes beyond the bare program.
"""

import dataclasses

from driver import callgrind
from driver.campaign import VERSIONS, version
from driver.figures import Records
from driver.jobs import loops, pairs
from driver.modes import all_modes

TOLERANCE = 0.05
SLACK = 0.5  # instructions; counts are the same to a tenth, but for the samples
# Of start-up: it reads names and paths, which are of other lengths elsewhere.
START_SLACK = 3000
# So many that it does not matter how many samples, one in 8,000, there happen to be.
MANY = (200000, 1200000)
TOOLS = ("gcc", "swiftc", "valgrind")
PATHS = (
    ("pair-25", "dormant"), ("pair-25", "recording"), ("pair-25-two", "recording"), ("pair-60", "recording"),
    ("paths-1", "recording"), ("pair-many", "sampling"))
HEADER = (
    "# Instructions of a malloc+free pair, and of a program's start and end, counted by callgrind: the bare\n"
    "# program's, and what each mode adds.\n"
    "# A test compares; 'make instructions' renews them.\n")


class Incomparable(Exception):
    """Why what was counted cannot be held against what is kept."""


def tools():
    return ", ".join(f"{name} {version(VERSIONS[name])}" for name in TOOLS)


def count(workshop):
    """Instructions by job and mode: the bare program's, and what a mode adds."""
    jobs = {job.name: job for job in [*pairs(workshop), *loops(workshop)]}
    jobs["pair-many"] = dataclasses.replace(jobs["pair-25"], name="pair-many", small=MANY)
    modes = {mode.name: mode for mode in all_modes(workshop)}
    paths = [(job, mode) for job, mode in PATHS if not modes[mode].absent]
    wanted = dict.fromkeys([(job, "bare") for job, _ in paths] + paths)
    for job, _ in paths:
        jobs[job].prepare()
    records = Records(callgrind.run_all(
        workshop, [(jobs[job], modes[mode], size) for job, mode in wanted for size in jobs[job].small],
        callgrind.FROM_MAIN))
    counts = {}
    for job, mode in wanted:
        slope = records.slope(job, mode, jobs[job].small)
        if slope is None:
            raise Incomparable(f"nothing was counted of '{job}', {mode}")
        counts[job, mode] = slope if mode == "bare" else slope - counts[job, "bare"]
    start = dataclasses.replace(jobs["pair-25"], name="start")
    records = Records(callgrind.run_all(workshop, [(start, modes[mode], 0) for mode in ("bare", "dormant")]))
    bare, dormant = (records.figures("start@0", mode, "instructions") for mode in ("bare", "dormant"))
    if not bare or not dormant:
        raise Incomparable("nothing was counted of a program's start")
    counts["start", "bare"] = bare[0]
    counts["start", "dormant"] = dormant[0] - bare[0]
    return counts


def slack(job):
    """How many instructions more may be chance."""
    return START_SLACK if job == "start" else SLACK


def write(path, counts):
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{HEADER}tools\t{tools()}\n")
        file.writelines(f"{job}\t{mode}\t{value:.1f}\n" for (job, mode), value in counts.items())


def read(path):
    """The tools of a file, and its counts."""
    with open(path, encoding="ascii") as file:
        lines = [line.rstrip("\n").split("\t") for line in file if not line.startswith("#")]
    return lines[0][1], {(job, mode): float(value) for job, mode, value in lines[1:]}


def check_comparable(kept_tools, kept, counts):
    """Other compilers make other programs, and another libc has other instructions in the same program."""
    if kept_tools != tools():
        raise Incomparable(f"counts are kept for {kept_tools}, here are {tools()}")
    for (job, mode), value in kept.items():
        if mode == "bare" and abs(counts.get((job, mode), value) - value) > slack(job):
            raise Incomparable(
                f"the bare program takes {counts[job, mode]:.1f} instructions here and {value:.1f} where "
                f"the counts were made ('{job}'): this is another libc")


def judged(kept, counts):
    """What to say of each path, and whether it is too much."""
    for (job, mode), value in counts.items():
        if mode == "bare":
            continue
        old = kept.get((job, mode))
        if old is None:
            yield f"'{job}', {mode}: {value:.1f} instructions, and none are kept: 'make instructions' keeps them", True
        elif value > old * (1 + TOLERANCE) + slack(job):
            yield f"'{job}', {mode}: {value:.1f} instructions in place of {old:.1f}, {value / old - 1:+.1%}", True
        else:
            yield f"'{job}', {mode}: {value:.1f} ({old:.1f})", False
