# SPDX-License-Identifier: Apache-2.0
"""What is computed from the records of runs: ratios within a round, medians, means."""

import dataclasses
import math
import statistics


@dataclasses.dataclass(frozen=True)
class Record:
    """One run of a job in a mode.

    A figure that was not measured is None; a run that failed says why and has no figures.
    """

    job: str
    mode: str
    round: int
    seconds: float | None = None  # elapsed
    processor: float | None = None  # seconds of processor time, of user and system
    peak: int | None = None  # resident, in KiB
    said: float | None = None  # what the program measured by itself
    beside: float | None = None  # seconds of processor time of what the tool runs beside the program
    instructions: int | None = None
    failure: str | None = None


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of some figures, with the least and the largest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values)) if values else None


class Records:
    """Records in the order in which they were measured, by job, mode and round."""

    def __init__(self, records=()):
        self.all = list(records)

    def add(self, record):
        self.all.append(record)

    def figures(self, job, mode, figure):
        """The figure of each round that has one."""
        found = {}
        for record in self.all:
            value = getattr(record, figure)
            if (record.job, record.mode) == (job, mode) and value is not None:
                found[record.round] = value
        return found

    def spread(self, job, mode, figure):
        return Spread.of(list(self.figures(job, mode, figure).values()))

    def ratio(self, job, mode, base, figure):
        """The mode's figure to the base's, each taken within a round: what the machine did to both cancels."""
        ours, theirs = self.figures(job, mode, figure), self.figures(job, base, figure)
        return Spread.of([ours[n] / theirs[n] for n in sorted(ours) if theirs.get(n)])

    def failure(self, job, mode):
        """Why there is no figure, if a run was tried."""
        found = [r.failure for r in self.all if (r.job, r.mode) == (job, mode) and r.failure]
        return found[0] if found else None

    def slope(self, job, mode, sizes):
        """Instructions of one more unit of work, where records of two sizes have them; start-up cancels."""
        (small, large) = (self.figures(f"{job}@{size}", mode, "instructions") for size in sizes)
        if not small or not large:
            return None
        return (large[0] - small[0]) / (sizes[1] - sizes[0])


def geometric_mean(values):
    """Of ratios, where an arithmetic mean would favour those above one."""
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
