# SPDX-License-Identifier: Apache-2.0
"""The tables and the plot of a campaign, and their places in the documents."""

import re

from driver.figures import geometric_mean
from driver.goals import goals
from driver.plot import svg
from driver.tables import Tables

PLOTTED = ("sampling", "recording", "lsan", "heaptrack")


def machine_text(head):
    machine = head["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    noise = "" if "stolen" not in head else (
        f" Of the processors' time the host took {head['stolen']:.1%}, and other programs {head['foreign']:.1%}.")
    return (
        f"{machine['processor']}, {machine['processors']} processors, {machine['memory_gib']} GiB; "
        f"{machine['system']}, kernel {machine['kernel']}, {machine['libc']}; {versions}. {head['begun'][:10]}, "
        f"{head.get('minutes', 0):.0f} minutes.{noise}\n")


def sections(campaign):
    """Every table by its name, those that have no rows left out."""
    tables = Tables(campaign)
    real, synthetic = tables.group("programs"), tables.group("loops", "living")
    pairs = tables.group("pairs")
    reached = goals(tables, campaign.others)
    made = {
        "machine": machine_text(campaign.head),
        "programs": tables.times(real, mean=True),
        "loops": tables.times(synthetic),
        "processor": tables.processor(real + synthetic),
        "memory": tables.memory(real + synthetic),
        "instructions": tables.instructions(real, lambda count, base: f"{count / base:.3f}"),
        "pair-instructions": tables.instructions(pairs + synthetic, lambda count, base: f"{count - base:+.1f}"),
        "pairs": tables.said(pairs),
        "python": tables.python(tables.group("python")),
        "snapshots": tables.snapshots(campaign.others["snapshot"]),
        "stacks": tables.stacks(campaign.others["stacks"]),
        "diff": tables.diffs(campaign.others["diff"]),
        "absent": "".join(f"- {line}\n" for line in campaign.absences()) or "- nobody.\n",
        "headline": headline(tables, real),
        "goals": tables.goals(reached),
        "costs": tables.costs(reached, pairs),
        "losses": tables.losses(real + synthetic + pairs),
    }
    return {name: text for name, text in made.items() if text.count("\n") > 2 or not text.startswith("|")}


def headline(tables, real):
    """The sentence of the first screen."""
    ours = tables.ratios(real, "recording")
    theirs = tables.ratios(real, "heaptrack")
    if not ours or not theirs:
        return ""
    return (
        f"Recording every allocation with its whole stack, {len(ours)} real programs take "
        f"{geometric_mean(ours):.2f} times as long in the mean and {max(ours):.2f} times at worst; under heaptrack {geometric_mean(theirs):.2f} and "
        f"{max(theirs):.2f}.\n")


def plot(campaign):
    """Ratios of time to the bare program's."""
    tables = Tables(campaign)
    rows = []
    for job in tables.group("programs", "loops", "living"):
        figures = {
            mode: ratio for mode in PLOTTED
            if mode in tables.modes and (ratio := tables.ratio(job, mode, tables.figure(job)))}
        if figures:
            rows.append((job["title"], figures))
    names = [(mode, tables.modes[mode]["title"]) for mode in PLOTTED if mode in tables.modes]
    return svg("Time, as a multiple of the bare program's", rows, names) if rows else None


def markdown(made):
    """All tables in one text."""
    return "\n".join(f"## {name}\n\n{text}" for name, text in made.items())


def filled(document, made):
    """The document with each table between its marks, `<!-- bench: NAME -->` and `<!-- bench end -->`."""
    def put(found):
        name = found.group(2)
        return f"{found.group(1)}\n{made[name]}{found.group(3)}" if made.get(name) else found.group(0)

    return re.sub(r"(<!-- bench: ([a-z-]+) -->)\n.*?(<!-- bench end -->)", put, document, flags=re.DOTALL)
