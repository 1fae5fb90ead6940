# SPDX-License-Identifier: Apache-2.0
"""What tracing may cost, and what it does cost."""

import dataclasses
import re

from driver.figures import Spread, geometric_mean

REAL = "programs"
LARGE = 100 << 10  # KiB


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure that should not be larger than another."""

    what: str
    most: float
    form: str  # how the figure is written, such as '{:.2f}'
    value: float | None  # None where it was not measured

    @property
    def is_met(self):
        return self.value <= self.most

    @property
    def wanted(self):
        """In as many digits as it has: rounded, it might be met by what does not meet it."""
        return re.sub(r"\{:\+?\.\df\}", f"{self.most:g}", self.form)


class Figures:
    """What goals ask of a campaign's tables; None where it was not measured."""

    def __init__(self, tables, others):
        self.tables = tables
        self.others = others

    def job(self, name):
        return next((job for job in self.tables.jobs if job["name"] == name), None)

    def times(self, group, mode):
        return self.tables.ratios(self.tables.group(group), mode)

    def mean(self, mode):
        return geometric_mean(self.times(REAL, mode))

    def worst(self, group, mode):
        return max(self.times(group, mode), default=None)

    def ratio(self, name, mode, figure="seconds"):
        job = self.job(name)
        found = self.tables.ratio(job, mode, figure) if job else None
        return found.median if found else None

    def threads(self):
        """Eight threads' ratio as a multiple of one's."""
        one, eight = self.ratio("paths-1", "recording"), self.ratio("paths-8", "recording")
        return eight / one if one and eight else None

    def more_nanoseconds(self, name, mode):
        """Of a pair; differences within a round."""
        records = self.tables.records
        bare, ours = records.figures(name, "bare", "said"), records.figures(name, mode, "said")
        found = Spread.of([ours[number] - bare[number] for number in ours if number in bare])
        return found.median if found else None

    def worst_instructions(self, mode):
        ratios = []
        for job in self.tables.group(REAL):
            bare, ours = (self.tables.counted(job, one) if job["small"] else None for one in ("bare", mode))
            if bare and ours:
                ratios.append(ours / bare)
        return max(ratios, default=None)

    def large_memory(self):
        """The largest ratio of peaks of real programs and heaps over 100 MiB."""
        ratios = []
        for job in self.tables.group(REAL, "living"):
            bare = self.tables.records.spread(job["name"], "bare", "peak")
            if bare and bare.median > LARGE and (ratio := self.tables.ratio(job, "recording", "peak")):
                ratios.append(ratio.median)
        return max(ratios, default=None)

    def dump(self, blocks, figure):
        return next(
            (one[figure] for one in self.others["snapshot"] if (one["blocks"], one["threads"]) == (blocks, 0)), None)

    def comparison(self):
        """Our time, without a cache, as a share of the fastest other's."""
        medians = {}
        for one in self.others["diff"]:
            medians.setdefault(one["tool"], []).append(one["seconds"])
        medians = {tool: Spread.of(seconds).median for tool, seconds in medians.items()}
        others = [seconds for tool, seconds in medians.items() if not tool.startswith("`heaptap")]
        ours = medians.get("`heaptap diff`, nothing in the cache")
        return ours / min(others) if ours and others else None


def goals(tables, others):
    """All goals, those left out for which nothing was measured."""
    figures = Figures(tables, others)
    times, more, milliseconds = "{:.2f} ×", "{:+.2f} ns", "{:.0f} ms"
    all_goals = [
        Goal("armed and dormant: real programs, geometric mean", 1.005, times, figures.mean("dormant")),
        Goal("armed and dormant: a malloc+free pair", 0.5, more, figures.more_nanoseconds("pair-25", "dormant")),
        Goal("recording: real programs, geometric mean", 1.10, times, figures.mean("recording")),
        Goal("recording: the worst of them", 1.30, times, figures.worst(REAL, "recording")),
        Goal("recording: the worst tight loop", 2.5, times, figures.worst("loops", "recording")),
        Goal("recording: 8 threads compared with one", 1.05, times, figures.threads()),
        Goal("recording: 5,000,000 live blocks", 1.8, times, figures.worst("living", "recording")),
        Goal("recording: memory of the same", 1.30, times, figures.ratio("living", "recording", "peak")),
        Goal("recording: memory of programs over 100 MiB, the worst", 1.30, times, figures.large_memory()),
        Goal("recording: each object of Python's own job", 1.30, times, figures.ratio("python", "recording-objects")),
        Goal(
            "sampling: more instructions, the worst real program", 1.01, "{:.3f} ×", figures.worst_instructions("sampling")),
        Goal("sampling: a malloc+free pair", 1.5, more, figures.more_nanoseconds("pair-25", "sampling")),
        Goal("a dump of 1,000,000 live blocks", 50, milliseconds, figures.dump(1000000, "milliseconds")),
        Goal("a dump of 10,000,000 live blocks", 300, milliseconds, figures.dump(10000000, "milliseconds")),
        Goal("its file", 5, "{:.1f} MiB", (figures.dump(10000000, "file_bytes") or 0) / 2**20 or None),
        Goal("`diff` of 100,000 stacks, compared with the fastest other", 1, times, figures.comparison()),
    ]
    return [goal for goal in all_goals if goal.value is not None]
