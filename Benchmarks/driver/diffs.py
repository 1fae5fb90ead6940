# SPDX-License-Identifier: Apache-2.0
"""The comparison of two dumps of very many stacks, beside other tools'.

The dumps are of Programs/comparison: 100,000 stacks of 40 frames, then a third of them once more.
"""

import glob
import os
import shutil
import subprocess
import time

from driver.jobs import Job
from driver.running import INTERPRETER
from driver.workshop import Unmeasurable, Workshop

JOB = Job("diff", "diff", "two dumps of very many stacks")
STACKS = 100000
SLOW = 30  # seconds, after which a tool has one round alone


def absences():
    """Whose comparison cannot be had here."""
    tools = (("go", "golang-go"), ("heaptrack", "heaptrack"), ("zstd", "zstd"))
    return [f"comparison by {tool}: not installed ({package})" for tool, package in tools if not shutil.which(tool)]


def the_one(pattern):
    found = glob.glob(pattern)
    if len(found) != 1:
        raise Unmeasurable(f"there are {len(found)} files '{os.path.basename(pattern)}' where one was to be written")
    return found[0]


def record(workshop, directory, stacks):
    """Dumps of ours, as they are and with names, and heaptrack's, raw and interpreted."""
    program = workshop.compile("comparison.cpp", "comparison")
    for rounds, name in ((1, "old"), (2, "new")):
        dumps = f"{directory}/{name}"
        os.mkdir(dumps)
        environment = dict(
            os.environ, LD_PRELOAD=workshop.library, HEAPTAP="record", HEAPTAP_EXIT="dump", HEAPTAP_LOG="off",
            HEAPTAP_DIR=dumps)
        workshop.run(program, str(rounds), str(stacks), env=environment)
        os.rename(the_one(f"{dumps}/*.pb"), f"{directory}/{name}.pb")
        workshop.run(workshop.command, "symbolize", f"{directory}/{name}.pb", "-o", f"{directory}/{name}-named.pb")
        if shutil.which("heaptrack"):
            workshop.run("heaptrack", "--raw", "-o", f"{directory}/{name}-raw", program, str(rounds), str(stacks))
            workshop.run("heaptrack", "-o", f"{directory}/{name}-heaptrack", program, str(rounds), str(stacks))


def measured(commands, environment):
    """Seconds of wall-clock and of processor time, and the most memory in MiB, of commands one after the other."""
    began = time.monotonic()
    processor, most = 0, 0
    for command in commands:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = status
        if status != 0:
            raise Unmeasurable(f"'{' '.join(command)}' ended with status {os.waitstatus_to_exitcode(status)}")
        processor += usage.ru_utime + usage.ru_stime
        most = max(most, usage.ru_maxrss / 1024)
    return {"seconds": time.monotonic() - began, "processor": processor, "mebibytes": most}


def contenders(workshop, directory, cache):
    """Who compares: a name, what is done before each run, and the commands of a run; only who is installed."""
    old, new = f"{directory}/old", f"{directory}/new"
    ours = [workshop.command, "diff"]

    def forget():
        shutil.rmtree(cache, ignore_errors=True)

    yield "`heaptap diff`, nothing in the cache", forget, [ours + [f"{old}.pb", f"{new}.pb"]]
    yield "`heaptap diff`", None, [ours + [f"{old}.pb", f"{new}.pb"]]
    yield "`heaptap diff --by stack`", None, [ours + ["--by", "stack", f"{old}.pb", f"{new}.pb"]]
    yield "`heaptap diff --cumulative`", None, [ours + ["--cumulative", f"{old}.pb", f"{new}.pb"]]
    if shutil.which("go"):
        pprof = ["go", "tool", "pprof", "-top", "-lines"]
        yield "`go tool pprof -top -lines -diff_base`", None, [
            pprof + ["-diff_base", f"{old}.pb", f"{new}.pb"]]
        yield "the same, of dumps with names in them", None, [
            pprof + ["-diff_base", f"{old}-named.pb", f"{new}-named.pb"]]
    if shutil.which("heaptrack"):
        raw = [the_one(f"{directory}/{name}-raw.*") for name in ("old", "new")]
        interpreted = [the_one(f"{directory}/{name}-heaptrack.*") for name in ("old", "new")]
        if os.path.exists(INTERPRETER) and shutil.which("zstd"):
            # As the script heaptrack does beside the program, if it is not told to leave it.
            lines = [
                ["sh", "-c", f"zstd -dcq {name} | {INTERPRETER} | zstd -cq >{name}-again.zst"] for name in raw
            ]
            yield "heaptrack_interpret, of both, and `heaptrack_print -d`", None, lines + [
                ["heaptrack_print", "-d"] + [f"{name}-again.zst" for name in raw]]
        yield "`heaptrack_print -d`", None, [["heaptrack_print", "-d"] + interpreted]


def measure(workshop: Workshop, rounds, stacks):
    """Figures of every tool in each round, interleaved."""
    directory = workshop.path("diffs")
    os.mkdir(directory)
    record(workshop, directory, stacks)
    cache = f"{directory}/cache"
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    slow = set()
    for number in range(rounds):
        for name, before, commands in contenders(workshop, directory, cache):
            if name in slow:
                continue
            if before:
                before()
            figures = measured(commands, environment)
            if figures["seconds"] > SLOW:
                slow.add(name)
            yield {"tool": name, "round": number, "stacks": stacks, **figures}
    shutil.rmtree(directory)
