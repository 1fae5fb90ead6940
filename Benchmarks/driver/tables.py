# SPDX-License-Identifier: Apache-2.0
"""The records as tables of Markdown."""

from driver.figures import Spread, geometric_mean

# What a table of ratios has a column for, where the mode was measured.
TIMES = (
    "dormant", "recording", "dumping", "sampling", "heaptrack", "heaptrack-inside", "lsan", "jemalloc-sampling",
    "tcmalloc-sampling")
# heaptrack takes itself out of the environment while valgrind starts, and so is not there in the program.
COUNTED = ("dormant", "recording", "sampling", "jemalloc-sampling", "tcmalloc-sampling")
BASES = ("bare", "jemalloc", "tcmalloc")
SAID = ("bare", "dormant", "recording", "sampling", "heaptrack-inside")


def spread(value, digits=2):
    return f"{value.median:.{digits}f} [{value.least:.{digits}f}–{value.most:.{digits}f}]"


def row(cells):
    return f"| {' | '.join(cells)} |"


def table(header, rows):
    return "\n".join([row(header), row(["---"] * len(header)), *map(row, rows)]) + "\n"


class Tables:
    """Makes each table from records, and from what the campaign knows of its jobs and modes."""

    def __init__(self, campaign):
        self.records = campaign.records
        self.jobs = campaign.jobs
        self.modes = {mode["name"]: mode for mode in campaign.modes}

    def group(self, *names):
        return [job for job in self.jobs if job["group"] in names]

    def measured(self, jobs, modes, figure):
        """Of the modes those that have a figure for one of the jobs."""
        return [
            name for name in modes if name in self.modes
            and any(self.records.figures(job["name"], name, figure) for job in jobs)]

    def title(self, mode):
        title, base = self.modes[mode]["title"], self.modes[mode]["base"]
        return title if base == "bare" else f"{title} ÷ {self.modes[base]['title']}"

    @staticmethod
    def titled(job):
        """A job by its title, where a row is in its unit."""
        return f"{job['title']} ({job['unit']})"

    def figure(self, job):
        return "said" if job["unit"] else "processor" if job["is_server"] else "seconds"

    def ratio(self, job, mode, figure):
        if mode not in self.modes:
            return None
        return self.records.ratio(job["name"], mode, self.modes[mode]["base"], figure)

    def failed(self, job, mode):
        return self.records.failure(job["name"], mode) or ""

    def times(self, jobs, mean=False):
        """Ratios of time, a row for each job."""
        modes = self.measured(jobs, TIMES, "processor")
        rows = []
        for job in jobs:
            bare = self.records.spread(job["name"], "bare", self.figure(job))
            if not bare:
                continue
            cells = [job["title"], f"{bare.median:.2f}"]
            for mode in modes:
                ratio = self.ratio(job, mode, self.figure(job))
                cells.append(spread(ratio) if ratio else self.failed(job, mode))
            rows.append(cells)
        if mean and len(rows) > 1:
            rows.append(["**geometric mean**", ""] + [self.mean_of(jobs, mode) for mode in modes])
        return table(["", "bare, s", *map(self.title, modes)], rows)

    def ratios(self, jobs, mode):
        """The medians of those jobs that have one."""
        found = [self.ratio(job, mode, self.figure(job)) for job in jobs]
        return [ratio.median for ratio in found if ratio]

    def mean_of(self, jobs, mode):
        ratios = self.ratios(jobs, mode)
        if not ratios:
            return ""
        count = "" if len(ratios) == len(jobs) else f" (of {len(ratios)})"
        return f"**{geometric_mean(ratios):.2f}**{count}"

    def processor(self, jobs):
        """Ratios of processor time, with what a tool runs beside the program."""
        rows = []
        for job in jobs:
            name = job["name"]
            bare = self.records.figures(name, "bare", "processor")
            alone = self.records.figures(name, "heaptrack", "processor")
            beside = self.records.figures(name, "heaptrack", "beside")
            ours = self.records.ratio(name, "recording", "bare", "processor")
            if not ours or not beside:
                continue
            theirs = Spread.of([(alone[n] + beside[n]) / bare[n] for n in beside if n in bare])
            if theirs:
                rows.append([job["title"], f"{ours.median:.2f}", f"{theirs.median:.2f}"])
        return table(["", "recording", "heaptrack and its interpreter"], rows)

    def memory(self, jobs):
        modes = self.measured(jobs, [mode for mode in TIMES if self.modes.get(mode, {}).get("base") == "bare"], "peak")
        rows = []
        for job in jobs:
            bare = self.records.spread(job["name"], "bare", "peak")
            if not bare:
                continue
            cells = [job["title"], f"{bare.median / 1024:.0f}"]
            for mode in modes:
                ratio, peak = self.ratio(job, mode, "peak"), self.records.spread(job["name"], mode, "peak")
                more = (peak.median - bare.median) / 1024 if peak else 0
                cells.append(f"{ratio.median:.2f} ({more:+.0f} MiB)" if ratio else self.failed(job, mode))
            rows.append(cells)
        return table(["", "bare, MiB", *map(self.title, modes)], rows)

    def counted(self, job, mode):
        """Instructions: of one more unit of work where two sizes were counted, else of all."""
        sizes = job["small"]
        if len(sizes) == 2:
            return self.records.slope(job["name"], mode, sizes)
        return self.records.figures(f"{job['name']}@{sizes[0]}", mode, "instructions").get(0)

    def instructions(self, jobs, text):
        """Counts as a text of a mode's and its base's."""
        jobs = [job for job in jobs if job["small"] and self.counted(job, "bare")]
        modes = [mode for mode in COUNTED if mode in self.modes and any(self.counted(job, mode) for job in jobs)]
        rows = []
        for job in jobs:
            cells = [job["title"], f"{self.counted(job, 'bare'):,.0f}"]
            for mode in modes:
                count, base = self.counted(job, mode), self.counted(job, self.modes[mode]["base"])
                cells.append(text(count, base) if count and base else "")
            rows.append(cells)
        return table(["", "bare", *map(self.title, modes)], rows)

    def said(self, jobs):
        """What the programs themselves measured."""
        modes = self.measured(jobs, SAID, "said")
        rows = []
        for job in jobs:
            figures = [self.records.spread(job["name"], mode, "said") for mode in modes]
            if any(figures):
                rows.append([self.titled(job), *(f"{figure.median:.1f}" if figure else "" for figure in figures)])
        return table(["", *map(self.title, modes)], rows)

    def python(self, jobs):
        rows = []
        for job in jobs:
            for mode in self.modes:
                ratio = self.ratio(job, mode, "seconds") if mode != "bare" else None
                if ratio:
                    peak = self.ratio(job, mode, "peak")
                    rows.append([self.title(mode), spread(ratio), f"{peak.median:.2f}"])
        return table(["", "time", "memory"], rows)

    def stacks(self, found):
        """How the stacks of each job were found."""
        titles = {job["name"]: job["title"] for job in self.jobs}
        rows = []
        for one in found:
            count = one["allocations"]
            if not count:
                continue
            remembered = count - one["followed"] - one["walked"]
            shares = [f"{100 * part / count:.2f} %" for part in (remembered, one["followed"], one["walked"])]
            rows.append([titles[one["job"]], f"{count:,}", f"{one['stacks']:,}", *shares])
        return table(["", "allocations", "stacks", "remembered", "followed", "walked"], rows)

    def snapshots(self, found):
        rows = [
            [f"{one['blocks']:,} of {one['byte_count']} B", str(one["threads"]), f"{one['milliseconds']:.0f}",
             f"{one['processor_milliseconds']:.0f}", f"{one['file_bytes'] / 2**20:.1f}"] for one in found]
        return table(
            ["live blocks", "threads that allocate meanwhile", "milliseconds", "of processor time", "file, MiB"], rows)

    def diffs(self, found):
        rows = []
        for tool in dict.fromkeys(one["tool"] for one in found):
            runs = [one for one in found if one["tool"] == tool]
            rows.append([tool, *(
                f"{Spread.of([run[figure] for run in runs]).median:.{digits}f}"
                for figure, digits in (("seconds", 2), ("processor", 2), ("mebibytes", 0)))])
        return table(["", "seconds", "of processor time", "memory, MiB"], rows)

    def goals(self, found):
        return table(["", "wanted, at most", "measured", ""], [
            [goal.what, goal.wanted, goal.form.format(goal.value), "" if goal.is_met else "**not met**"]
            for goal in found])

    def costs(self, found, pairs):
        """What is wanted to be known first: the goals' figures, and a pair's nanoseconds."""
        rows = [[goal.what, goal.form.format(goal.value)] for goal in found]
        for job in pairs:
            spreads = [self.records.spread(job["name"], mode, "said") for mode in SAID]
            bare, recording, theirs = (spreads[SAID.index(mode)] for mode in ("bare", "recording", "heaptrack-inside"))
            if bare and recording:
                other = f" (heaptrack, in the process alone: {theirs.median - bare.median:+.0f})" if theirs else ""
                rows.append([f"recording: {self.titled(job)}", f"{recording.median - bare.median:+.0f}{other}"])
        return table(["", "measured"], rows)

    def losses(self, jobs):
        """Where somebody else takes less than recording does, and does the same or less."""
        lines = []
        for job in jobs:
            ours = self.ratio(job, "recording", self.figure(job))
            for mode in ("heaptrack", "heaptrack-inside", "lsan"):
                theirs = self.ratio(job, mode, self.figure(job))
                if ours and theirs and theirs.median < ours.median:
                    lines.append(
                        f"- {job['title']}: {self.title(mode)} takes {theirs.median:.2f}, "
                        f"recording {ours.median:.2f}.\n")
        return "".join(lines) or "- In no program that was measured is another faster.\n"
