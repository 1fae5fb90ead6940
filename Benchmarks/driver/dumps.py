# SPDX-License-Identifier: Apache-2.0
"""How long a snapshot takes, and how large it is."""

import glob
import os
import re
import statistics
import subprocess
import time

from driver.jobs import Job
from driver.workshop import Unmeasurable, Workshop

JOB = Job("snapshots", "snapshots", "snapshots of known heaps")

# Blocks, their size, and threads that allocate meanwhile.
HEAPS = (
    (1000000, 64, 0), (10000000, 64, 0), (1000000, 64, 8), (100000, 4096, 8), (5000, 262144, 8))
PATIENCE = 300  # seconds


def header(path, key):
    """A number of a dump's header, which is text in an uncompressed file."""
    with open(path, "rb") as file:
        found = re.search(rb"[^a-z._]" + key.encode() + rb"=(\d+)", file.read())
    return int(found.group(1)) if found else 0


def stacks(path):
    """How the stacks of a recording were found."""
    names = {
        "allocations": "total_blocks", "stacks": "sites", "followed": "followed_stacks", "walked": "walked_stacks"}
    return {name: header(path, key) for name, key in names.items()}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def worker_seconds(pid):
    """The processor time of the thread that writes dumps."""
    tasks = [task for task in glob.glob(f"/proc/{pid}/task/*") if read(f"{task}/comm").startswith("heaptap")]
    return sum(int(read(f"{task}/schedstat").split()[0]) for task in tasks) / 1e9


def measure(workshop: Workshop, rounds):
    """For each heap: milliseconds from the request's receipt to the name, of processor time, and bytes."""
    program = workshop.compile("heap.c", "heap")
    for blocks, byte_count, threads in HEAPS:
        workshop.clear_dumps()
        environment = os.environ | {
            "LD_PRELOAD": workshop.library, "HEAPTAP": "record", "HEAPTAP_DIR": workshop.dumps, "HEAPTAP_LOG": "off"}
        child = subprocess.Popen(
            [program, str(blocks), str(byte_count), str(threads), str(PATIENCE)], env=environment,
            stdout=subprocess.PIPE, text=True)
        try:
            if child.stdout.readline() != "ready\n":
                raise Unmeasurable("'heap' has no heap")
            yield snapshots(workshop, child.pid, rounds) | {
                "blocks": blocks, "byte_count": byte_count, "threads": threads}
        finally:
            child.kill()
            child.wait()


def snapshots(workshop, pid, rounds):
    took, processor, sizes = [], [], []
    for _ in range(rounds):
        before = worker_seconds(pid)
        path = workshop.run(workshop.command, "snapshot", str(pid)).strip()
        processor.append((worker_seconds(pid) - before) * 1e3)
        # The change time of a file is when it was given its name, to a tick of the kernel (4 ms).
        took.append((os.stat(path).st_ctime_ns - header(path, "dump_wall_ns")) / 1e6)
        sizes.append(os.stat(path).st_size)
        time.sleep(0.1)
    return {
        "milliseconds": max(statistics.median(took), 0), "processor_milliseconds": statistics.median(processor),
        "file_bytes": max(sizes)}
