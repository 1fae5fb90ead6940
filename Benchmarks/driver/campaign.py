# SPDX-License-Identifier: Apache-2.0
"""One run of everything: what was measured, by what and on what, and its file."""

import dataclasses
import json
import os
import platform
import re
import subprocess
import time

from driver.figures import Record, Records

# What a version is asked of, and what in its answer is one.
VERSIONS = {
    "gcc": ["gcc", "-dumpfullversion"], "swiftc": ["swiftc", "--version"], "valgrind": ["valgrind", "--version"],
    "sqlite3": ["sqlite3", "--version"], "python3": ["/usr/bin/python3", "--version"], "git": ["git", "--version"],
    "redis": ["redis-server", "--version"], "nginx": ["nginx", "-v"], "heaptrack": ["heaptrack", "--version"],
}


def version(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else None


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def processor_times():
    """Seconds of all processors: in use, and taken by the host of this virtual machine."""
    fields = [int(field) / os.sysconf("SC_CLK_TCK") for field in read("/proc/stat").split("\n")[0].split()[1:]]
    return sum(fields[:3]) + sum(fields[5:7]), fields[7]


def machine():
    """What the figures depend on."""
    model = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    system = re.search(r'PRETTY_NAME="(.*)"', read("/etc/os-release"))
    return {
        "processor": model.group(1) if model else platform.machine(),
        "processors": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release(),
        "system": system.group(1) if system else "",
        "libc": " ".join(platform.libc_ver()),
        "versions": {name: found for name, command in VERSIONS.items() if (found := version(command))},
    }


class Campaign:
    """Records with what is to be known of them; written as they come, so that what was measured is kept."""

    def __init__(self, jobs=(), modes=(), head=None):
        self.records = Records()
        self.others = {"snapshot": [], "diff": [], "stacks": []}
        self.head = head or {}
        self.jobs = list(jobs)
        self.modes = list(modes)
        self.file = None

    @classmethod
    def started(cls, jobs, modes, path, options, absent):
        """A new one, with its file."""
        described = [
            {"name": job.name, "group": job.group, "title": job.title, "size": job.size, "small": list(job.small),
             "is_server": bool(job.server), "unit": job.unit, "absent": job.absent, "package": job.package}
            for job in jobs]
        known = [
            {"name": mode.name, "title": mode.title, "base": mode.base, "absent": mode.absent,
             "package": mode.package} for mode in modes]
        head = {"begun": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": machine(), "options": options, "absent": absent}
        campaign = cls(described, known, head)
        campaign.file = open(path, "w", encoding="utf-8")
        campaign.write({"head": head, "jobs": described, "modes": known})
        return campaign

    @classmethod
    def read(cls, path):
        """One from its file."""
        campaign = cls()
        with open(path, encoding="utf-8") as file:
            for line in map(json.loads, file):
                if "head" in line:
                    campaign.head, campaign.jobs, campaign.modes = line["head"], line["jobs"], line["modes"]
                elif "tail" in line:
                    campaign.head |= line["tail"]
                elif found := set(line) & set(campaign.others):
                    kind = found.pop()
                    campaign.others[kind].append(line[kind])
                else:
                    campaign.records.add(Record(**line))
        return campaign

    def write(self, line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def add_record(self, record):
        self.records.add(record)
        self.write({name: value for name, value in dataclasses.asdict(record).items() if value is not None})

    def add(self, kind, figures):
        """What is not one run of a job: a 'snapshot', a 'diff', or the 'stacks' of a job."""
        self.others[kind].append(figures)
        self.write({kind: figures})

    def finish(self, minutes, stolen, foreign):
        """Tells how long it took, and how much of the machine others had meanwhile."""
        tail = {"minutes": round(minutes, 1), "stolen": round(stolen, 4), "foreign": round(foreign, 4)}
        self.head |= tail
        self.write({"tail": tail})
        self.file.close()

    @property
    def is_empty(self):
        """Whether there is no figure in it."""
        return not any(self.others.values()) and all(record.failure for record in self.records.all)

    def absences(self):
        """Whom the tables leave out, and why."""
        return [
            f"{one['title']}: {one['absent']}" + (f" ({one['package']})" if one["package"] else "")
            for one in [*self.modes, *self.jobs] if one["absent"]] + self.head["absent"]
