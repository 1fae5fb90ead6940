# SPDX-License-Identifier: Apache-2.0
"""What is run: programs, their sizes and their inputs, all of which are fixed.

A program takes about half a second by itself: of a shorter one, its start would be most of what is measured.
"""

import dataclasses
import hashlib
import os
import shutil

from driver.workshop import PROGRAMS

HISTORY = 3000  # commits


@dataclasses.dataclass(frozen=True)
class Job:
    """A program and its work.

    The command is a function of the size, so that instructions are counted with little work.
    """

    name: str
    group: str  # 'programs', 'loops', 'living', 'pairs' or 'python'
    title: str
    command: object = None
    size: int | None = None
    small: tuple = ()  # sizes by which instructions are counted; none where they are not
    environment: dict = dataclasses.field(default_factory=dict)
    input: object = None  # a file for standard input, by the size
    server: object = None  # for what is measured while it serves
    absent: str | None = None
    package: str | None = None
    unit: str | None = None  # of the figure that the program measures by itself, if that is what counts

    def prepare(self):
        """Makes what the job needs, so that it is no part of a run."""
        for size in [self.size, *self.small] if self.command else []:
            self.command(size)
            if self.input:
                self.input(size)

    def tenth(self):
        """The same with a tenth of the work, where that can be had."""
        return dataclasses.replace(self, size=max(1, self.size // 10))


def needs(program, package, job):
    """The job, or the name of what it lacks."""
    if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
        return job
    return dataclasses.replace(job, absent="not installed", package=package)


def git_repository(workshop):
    """Made anew, the same to each byte on any machine; packed as a clone is."""
    path = workshop.path("repository")
    if not os.path.exists(path):
        shell = (
            'git init -q --bare "$1" && "$2" "$3" | git -C "$1" fast-import --quiet --done'
            ' && git -C "$1" -c pack.threads=1 repack -adfq && git -C "$1" rev-parse main')
        workshop.run("sh", "-c", shell, "sh", path, f"{PROGRAMS}/history", str(HISTORY))
    return path


def preprocessed(workshop, *options):
    """What cc1plus reads: no file is looked up any more."""
    name = workshop.path(f"compiled{''.join(options)}.ii")
    if not os.path.exists(name):
        workshop.run("g++", "-std=c++17", "-E", "-P", *options, f"{PROGRAMS}/compiled.cpp", "-o", name)
    return name


def queries(workshop, rows):
    with open(f"{PROGRAMS}/queries.sql", encoding="utf-8") as file:
        text = f"create table size(rows integer); insert into size values({rows});\n" + file.read()
    return workshop.write(f"queries-{rows}.sql", text)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def programs(workshop):
    """Real ones, and two of ours that are like them."""
    quiet_git = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_PAGER": "cat"}
    no_seeds = {"SWIFT_DETERMINISTIC_HASHING": "1", "PYTHONHASHSEED": "0"}

    def git(*arguments):
        return ["git", "-C", git_repository(workshop), *arguments]

    def blame(size):
        commit = f"main~{HISTORY - size}"
        files = workshop.run(*git("ls-tree", "-r", "--name-only", commit)).split()
        return git("blame", "-C", "-C", "-C", commit, "--", files[2])

    def compiler(size):
        source = preprocessed(workshop, *(["-DBRIEF"] if size == 0 else []))
        program = workshop.run("g++", "-print-prog-name=cc1plus").strip()
        return [program, "-quiet", "-O1", "-fpreprocessed", source, "-o", "/dev/null"]

    yield Job(
        "json", "programs", "JSON in C++",
        lambda size: [workshop.compile("json.cpp", "json"), str(size)], 24, (1, 3))
    yield needs("swiftc", "a Swift toolchain", Job(
        "swift", "programs", "a server's work in Swift",
        lambda size: [workshop.compile("server.swift", "server"), str(size)], 50, (5, 10), no_seeds))
    yield needs("sqlite3", "sqlite3", Job(
        "sqlite", "programs", "sqlite3",
        lambda size: ["sqlite3", ":memory:"], 120000, (2000, 4000), input=lambda size: queries(workshop, size)))
    yield needs("/usr/bin/python3", "python3", Job(
        "python-malloc", "programs", "python3, PYTHONMALLOC=malloc",
        lambda size: ["/usr/bin/python3", f"{PROGRAMS}/words.py", str(size)], 35, (1, 2),
        no_seeds | {"PYTHONMALLOC": "malloc"}))
    yield needs("git", "git", Job(
        "git-log", "programs", "git log -p -M",
        lambda size: git("log", "-p", "-M", "-n", str(size), "main"), HISTORY, (100, 200), quiet_git))
    yield needs("git", "git", Job(
        "git-blame", "programs", "git blame -C -C -C", blame, HISTORY, (800,), quiet_git))
    yield needs("g++", "g++", Job("cc1plus", "programs", "cc1plus -O1", compiler, 1, (0,)))
    yield needs("redis-benchmark", "redis-tools", needs("redis-server", "redis-server", Job(
        "redis", "programs", "redis-server", size=60000, small=(5000, 15000), server="redis")))
    yield needs("ab", "apache2-utils", needs("nginx", "nginx-light", Job(
        "nginx", "programs", "nginx", size=30000, small=(1000, 3000), server="nginx")))


def loops(workshop):
    """Nothing but malloc and free."""
    frames = {"": "-fomit-frame-pointer", " with frame pointers": "-fno-omit-frame-pointer"}
    for title, option in frames.items():
        for threads in (1, 2, 8):
            name = f"paths{'-fp' if title else ''}-{threads}"
            yield Job(
                name, "loops", f"pairs from 256 stacks, {threads} thread{'s' if threads > 1 else ''}{title}",
                lambda size, option=option, threads=threads: [
                    workshop.compile("paths.c", f"paths{option}", option), str(size), str(threads)],
                2500000, (50000, 150000) if threads == 1 else ())
    yield Job(
        "living", "living", "5,000,000 live blocks",
        lambda size: [workshop.compile("living.c", "living"), str(size)], 5000000, (50000, 100000))


def pairs(workshop):
    """One pair, by the nanoseconds that the program measures."""
    def program(name, *arguments):
        return lambda size: [workshop.compile(f"{name}.c", name), str(size), *map(str, arguments)]

    for name, title, command, size in (
            ("pair-5", "a pair, 5 frames", program("pair", 0), 3000000),
            ("pair-25", "a pair, 25 frames", program("pair", 20), 3000000),
            ("pair-25-two", "a pair, 25 frames, two stacks in turn", program("pair", 20, 2), 3000000),
            ("pair-60", "a pair, 60 frames", program("pair", 55), 1000000),
            ("stacks-1000", "a pair, 22 frames, 1,000 stacks at random", program("stacks", 1000), 400000),
            ("stacks-10000", "a pair, 22 frames, 10,000 stacks at random", program("stacks", 10000), 400000),
            ("stacks-100000", "a pair, 22 frames, 100,000 stacks at random", program("stacks", 100000), 400000),
            ("fork", "fork, exit and wait", program("fork"), 2000)):
        small = (20000, 60000) if name.startswith("pair") else ()
        yield Job(name, "pairs", title, command, size, small, unit="µs" if name == "fork" else "ns")


def python_job():
    return needs("/usr/bin/python3", "python3", Job(
        "python", "python", "python3",
        lambda size: ["/usr/bin/python3", f"{PROGRAMS}/words.py", str(size)], 35, (), {"PYTHONHASHSEED": "0"}))


def all_jobs(workshop):
    return [*programs(workshop), *loops(workshop), *pairs(workshop), python_job()]


