# SPDX-License-Identifier: Apache-2.0
"""Counts instructions, which are the same on a busy machine."""

import concurrent.futures
import os
import re
import shutil
import subprocess

from driver import servers
from driver.figures import Record
from driver.running import command_of, environment_of, words

TIMEOUT = 900  # seconds, for one run
# Of what a process starts no count is wanted: forked children go on under callgrind, other programs do not.
# What else is in the environment moves the stack, and with it what a hash of addresses meets.
CLEAN = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin"]
CALLGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
# What the tracer's thread looks at once a second would be seen fifty times as often: callgrind is that slow.
UNWATCHED = {"HEAPTAP_LIMIT": "off"}
# The first thread alone, from main on: what the tracer's own thread does depends on the time that passes.
FROM_MAIN = ["--collect-atstart=no", "--toggle-collect=main"]


def is_there():
    return shutil.which("valgrind") is not None


def collected(errors):
    """What callgrind says at the end; the last word is the first process's."""
    found = re.findall(r"Collected : (\d+)", errors)
    return int(found[-1]) if found else None


def run(workshop, options, job, mode, size):
    """Instructions of one run of a job with a size of work; a record that says why where there is none."""
    name = f"{job.name}@{size}"
    log = workshop.path(f"callgrind-{name}-{mode.name}")
    before = [*CALLGRIND, *options, f"--log-file={log}"]
    variables = words(environment_of(job, mode) | UNWATCHED)
    try:
        if job.server:
            with servers.started(workshop, job.server, [*variables, *before]) as server:
                server.load(size)
        else:
            with open(job.input(size) if job.input else "/dev/null", "rb") as source:
                subprocess.run(
                    [*CLEAN, *variables, *before, *command_of(job, mode, size)], stdin=source,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=TIMEOUT)
        with open(log, encoding="utf-8", errors="replace") as file:
            count = collected(file.read())
    except (subprocess.TimeoutExpired, servers.ServerFailure, OSError) as error:
        return Record(name, mode.name, 0, failure=str(error))
    finally:
        if os.path.exists(log):
            os.unlink(log)
    return Record(name, mode.name, 0, instructions=count, failure=None if count else "not under callgrind")


def run_all(workshop, wanted, options=()):
    """Records of jobs, modes and sizes, as they come; as many at a time as there are processors."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        started = [pool.submit(run, workshop, options, *one) for one in wanted]
        for future in concurrent.futures.as_completed(started):
            yield future.result()
