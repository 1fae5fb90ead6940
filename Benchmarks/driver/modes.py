# SPDX-License-Identifier: Apache-2.0
"""In which ways a job is run: bare, by us, and by those who do the like."""

import dataclasses
import glob
import os
import shutil
import subprocess

TRACEMALLOC_FRAMES = 25


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way of running a program: what is put into its environment, or before its command."""

    name: str
    title: str
    environment: dict = dataclasses.field(default_factory=dict)
    base: str = "bare"  # the mode that it is a ratio to
    absent: str | None = None  # why it is left out
    package: str | None = None  # what to install then
    python: list | None = None  # in place of python3, for Python's own job
    is_whole_heaptrack: bool = False


def find(pattern):
    found = sorted(glob.glob(pattern))
    return found[0] if found else None


def ours(name, title, workshop, absent=None, **settings):
    settings = {f"HEAPTAP{key}": value for key, value in settings.items()}
    environment = {
        "LD_PRELOAD": workshop.library, "HEAPTAP_LOG": "off", "HEAPTAP_DIR": workshop.dumps, **settings}
    return Mode(name, title, environment, absent=absent)


def preloaded(name, title, library, package, base="bare", **settings):
    if not library:
        return Mode(name, title, base=base, absent="not installed", package=package)
    return Mode(name, title, {"LD_PRELOAD": library, **settings}, base=base)


def knows(library, setting):
    """Whether this build of the tracer reads a setting."""
    with open(library, "rb") as file:
        return setting.encode() in file.read()


def lsan():
    path = subprocess.run(
        ["gcc", "-print-file-name=liblsan.so"], capture_output=True, text=True, check=False).stdout.strip()
    return path if os.path.isabs(path) else None


def all_modes(workshop):
    """The modes in the order of the tables; those that cannot be had say why."""
    libraries = "/usr/lib/x86_64-linux-gnu"
    jemalloc = find(f"{libraries}/libjemalloc.so.2")
    tcmalloc = find(f"{libraries}/libtcmalloc.so.4")
    heaptrack = find("/usr/lib/heaptrack/libheaptrack_preload.so")
    no_sampling = None if knows(workshop.library, "HEAPTAP_SAMPLE") else "not in this build"
    return [
        Mode("bare", "bare"),
        ours("dormant", "dormant", workshop, **{"": "1"}),
        ours("recording", "recording", workshop, **{"": "record"}),
        ours("dumping", "recording, and a dump at the end", workshop, **{"": "record", "_EXIT": "dump"}),
        ours("sampling", "sampling 512 KiB", workshop, no_sampling, **{"": "record", "_SAMPLE": "512K"}),
        dataclasses.replace(
            preloaded("heaptrack", "heaptrack", heaptrack, "heaptrack"), is_whole_heaptrack=bool(heaptrack)),
        preloaded(
            "heaptrack-inside", "heaptrack, in the process alone", heaptrack, "heaptrack",
            DUMP_HEAPTRACK_OUTPUT="/dev/null"),
        preloaded(
            "lsan", "LSan", lsan(), "gcc", LSAN_OPTIONS="detect_leaks=0"),
        preloaded("jemalloc", "jemalloc", jemalloc, "libjemalloc2"),
        preloaded(
            "jemalloc-sampling", "jemalloc sampling 512 KiB", jemalloc, "libjemalloc2", base="jemalloc",
            MALLOC_CONF="prof:true,lg_prof_sample:19"),
        preloaded("tcmalloc", "tcmalloc", tcmalloc, "libgoogle-perftools4"),
        preloaded(
            "tcmalloc-sampling", "tcmalloc sampling 512 KiB", tcmalloc, "libgoogle-perftools4", base="tcmalloc",
            TCMALLOC_SAMPLE_PARAMETER=str(512 << 10)),
    ]


def python_modes(workshop, venv):
    """For Python's own job, by Python's own allocator: what there is for Python alone."""
    every = {"PYTHONMALLOC": "malloc"}
    recording = ours("recording", "recording", workshop, **{"": "record"})
    memray = None if venv else "not to be had from PyPI"
    python = f"{venv}/bin/python" if venv else None
    output = workshop.path("memray")
    return [
        Mode("bare", "bare"),
        ours("dormant", "dormant", workshop, **{"": "1"}),
        recording,
        dataclasses.replace(
            recording, name="recording-objects", title="recording each object (PYTHONMALLOC=malloc)",
            environment=recording.environment | every),
        Mode(
            "tracemalloc", f"tracemalloc, {TRACEMALLOC_FRAMES} frames",
            python=["/usr/bin/python3", "-X", f"tracemalloc={TRACEMALLOC_FRAMES}"]),
        Mode("memray", "memray", absent=memray, package="memray",
             python=[python, "-m", "memray", "run", "-qfo", output]),
        Mode("memray-native", "memray --native", absent=memray, package="memray",
             python=[python, "-m", "memray", "run", "--native", "-qfo", output]),
    ]


def installed_memray(directory):
    """A virtual environment with memray, kept for the next time; None where it cannot be had."""
    python = f"{directory}/bin/python"
    # Its own command is what is installed last.
    if not os.path.exists(f"{directory}/bin/memray"):
        shutil.rmtree(directory, ignore_errors=True)
        for command in (
                ["/usr/bin/python3", "-m", "venv", directory], [python, "-m", "pip", "install", "-q", "memray"]):
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                shutil.rmtree(directory, ignore_errors=True)
                return None
    return directory
