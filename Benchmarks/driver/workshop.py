# SPDX-License-Identifier: Apache-2.0
"""Where the products are, and where what is measured is made."""

import contextlib
import os
import shutil
import subprocess
import tempfile

BENCHMARKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCHMARKS)
PROGRAMS = f"{BENCHMARKS}/Programs"


class Unmeasurable(Exception):
    """Why something cannot be measured at all."""


def roomy_directory():
    """In memory, if that has room; containers often have a little only."""
    with contextlib.suppress(OSError):
        room = os.statvfs("/dev/shm")
        if room.f_bavail * room.f_frsize > 1 << 30:
            return "/dev/shm"
    return None


class Workshop:
    """A directory in memory for programs, inputs and what tools write; removed at the end."""

    def __init__(self, products):
        self.command = f"{products}/heaptap-cli"
        self.directory = tempfile.mkdtemp(prefix="heaptap-bench-", dir=roomy_directory())
        # By a name that is always as long: the environment is on the stack, and moves what is below.
        self.library = self.path("libheaptap.so")
        os.symlink(os.path.abspath(f"{products}/libheaptap.so"), self.library)
        self.dumps = self.path("dumps")
        os.mkdir(self.dumps)
        self.meter = None

    def __enter__(self):
        try:
            self.meter = self.compile("meter.c", "meter")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)

    def path(self, name):
        return f"{self.directory}/{name}"

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def compile(self, source, name, *options):
        """Compiles a source of Programs/ as optimised as a release."""
        compilers = {
            ".c": ["gcc", "-O2", "-g", "-fno-optimize-sibling-calls", "-pthread"],
            ".cpp": ["g++", "-std=c++17", "-O2", "-g"],
            # As the package manager does: with frame pointers.
            ".swift": ["swiftc", "-O", "-Xcc", "-fno-omit-frame-pointer", "-parse-as-library"],
        }
        compiler = compilers[os.path.splitext(source)[1]]
        output = self.path(name)
        if not os.path.exists(output):
            self.run(*compiler, *options, f"{PROGRAMS}/{source}", "-o", output)
        return output

    @staticmethod
    def run(*command, **options):
        """Runs what prepares a measurement; what it has to say is shown when it fails."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        except OSError as error:
            raise Unmeasurable(f"'{command[0]}' does not run: {error.strerror}") from None
        if done.returncode != 0:
            raise Unmeasurable(f"'{' '.join(command)}' ended with status {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def clear_dumps(self):
        for name in os.listdir(self.dumps):
            os.unlink(f"{self.dumps}/{name}")
