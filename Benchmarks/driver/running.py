# SPDX-License-Identifier: Apache-2.0
"""Runs a job in a mode, and answers what it took."""

import hashlib
import os
import signal
import subprocess

from driver import servers
from driver.figures import Record

TIMEOUT = 300  # seconds, for one run
INTERPRETER = "/usr/lib/heaptrack/libexec/heaptrack_interpret"


class Failure(Exception):
    """Why a run has no figures."""

    @classmethod
    def of(cls, status, whose=""):
        """Of a status as shells give it: above 128 a signal."""
        end = f"by {signal.Signals(status - 128).name}" if status > 128 else f"with status {status}"
        return cls(f"{whose}ended {end}")


def environment_of(job, mode):
    return {**job.environment, **mode.environment}


def words(environment):
    return [f"{name}={value}" for name, value in environment.items()]


def command_of(job, mode, size):
    command = job.command(size)
    return [*mode.python, *command[1:]] if mode.python else command


class HeaptrackBeside:
    """What the script heaptrack runs beside a program: its interpreter, which reads a pipe."""

    def __init__(self, workshop):
        self.workshop = workshop
        self.pipe = workshop.path("heaptrack-pipe")
        self.figures = workshop.path("heaptrack-took")

    def __enter__(self):
        os.mkfifo(self.pipe)
        script = f'exec "$0" "$1" {INTERPRETER} <"$2" >"$3"'
        self.process = subprocess.Popen(
            ["sh", "-c", script, self.workshop.meter, self.figures, self.pipe, self.workshop.path("heaptrack-data")],
            stderr=subprocess.DEVNULL)
        return self

    def finish(self):
        """The seconds of processor time that it took."""
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failure("its interpreter goes on and on") from None
        status, _, processor, _ = read_figures(self.figures)
        if status != 0:
            raise Failure.of(status, "its interpreter ")
        return processor

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.unlink(self.pipe)


def read_figures(path):
    with open(path, encoding="ascii") as file:
        status, seconds, processor, peak = file.read().split()
    return int(status), float(seconds), float(processor), int(peak)


def metered(workshop, figures, environment, command, standard_input, output):
    """Runs a command to its end; its output goes to a file."""
    with open(standard_input or "/dev/null", "rb") as source, open(output, "wb") as sink:
        child = subprocess.Popen(
            [workshop.meter, figures, *words(environment), *command], stdin=source, stdout=sink,
            stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failure(f"not done after {TIMEOUT} s") from None
        finally:
            # Also where somebody ends the driver: nobody else would know of it.
            servers.end_group(child)
    return read_figures(figures)


class Runner:
    """Runs jobs, and holds every answer against the bare program's."""

    def __init__(self, workshop):
        self.workshop = workshop
        self.answers = {}

    def run(self, job, mode, number):
        """The record of one run, which says why where it failed."""
        self.workshop.clear_dumps()
        try:
            return self.measure(job, mode, number)
        except (Failure, servers.ServerFailure, subprocess.TimeoutExpired, OSError, ValueError) as failure:
            # One program that does not do is told in its cell; the others are measured.
            return Record(job.name, mode.name, number, failure=" ".join(str(failure).split()))

    def measure(self, job, mode, number):
        environment = environment_of(job, mode)
        if not mode.is_whole_heaptrack:
            figures = self.figures(job, mode, environment)
            return Record(job.name, mode.name, number, **figures)
        with HeaptrackBeside(self.workshop) as beside:
            environment["DUMP_HEAPTRACK_OUTPUT"] = beside.pipe
            figures = self.figures(job, mode, environment)
            return Record(job.name, mode.name, number, **figures, beside=beside.finish())

    def figures(self, job, mode, environment):
        if job.server:
            with servers.started(self.workshop, job.server, words(environment)) as server:
                server.load(job.size)
            status, _, processor, peak = read_figures(server.figures)
            if status != 0:
                raise Failure.of(status)
            # Its time is the clients', too.
            return {"processor": processor, "peak": peak}
        output = self.workshop.path("output")
        source = job.input(job.size) if job.input else None
        status, seconds, processor, peak = metered(
            self.workshop, self.workshop.path("took"), environment, command_of(job, mode, job.size), source, output)
        if status != 0:
            raise Failure.of(status)
        if job.unit:
            with open(output, encoding="ascii") as file:
                return {"said": float(file.read()), "peak": peak}
        self.compare(job, output)
        return {"seconds": seconds, "processor": processor, "peak": peak}

    def compare(self, job, output):
        with open(output, "rb") as file:
            answer = hashlib.sha256(file.read()).digest()
        if self.answers.setdefault(job.name, answer) != answer:
            raise Failure("answered otherwise than bare")
