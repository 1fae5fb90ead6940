# SPDX-License-Identifier: Apache-2.0
"""What is computed from records. To run: `python3 -m unittest driver.test_figures`, in the directory above."""

import math
import os
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree
from unittest import mock

from driver import diffs, servers
from driver.campaign import Campaign
from driver.figures import Record, Records, Spread, geometric_mean
from driver.goals import Goal
from driver.plot import svg
from driver.report import filled
from driver.tables import Tables
from driver.warm import judged
from driver.workshop import BENCHMARKS, Unmeasurable, Workshop


class FigureTests(unittest.TestCase):
    def test_a_ratio_is_taken_within_a_round(self):
        # The machine was twice as slow in the second round, for both.
        records = Records([
            Record("job", "bare", 0, seconds=1.0), Record("job", "ours", 0, seconds=1.5),
            Record("job", "bare", 1, seconds=2.0), Record("job", "ours", 1, seconds=3.0)])
        self.assertEqual(records.ratio("job", "ours", "bare", "seconds"), Spread(1.5, 1.5, 1.5))

    def test_a_round_that_failed_is_in_no_ratio(self):
        records = Records([
            Record("job", "bare", 0, seconds=1.0), Record("job", "ours", 0, failure="ended with status 1"),
            Record("job", "bare", 1, seconds=2.0), Record("job", "ours", 1, seconds=2.2)])
        self.assertEqual(records.ratio("job", "ours", "bare", "seconds"), Spread(1.1, 1.1, 1.1))
        self.assertEqual(records.failure("job", "ours"), "ended with status 1")
        self.assertIsNone(records.ratio("job", "theirs", "bare", "seconds"))

    def test_start_up_cancels_in_a_slope(self):
        records = Records([
            Record("job@10", "ours", 0, instructions=1000 + 10 * 7),
            Record("job@30", "ours", 0, instructions=1000 + 30 * 7)])
        self.assertEqual(records.slope("job", "ours", (10, 30)), 7)
        self.assertIsNone(records.slope("job", "theirs", (10, 30)))

    def test_a_median_has_its_least_and_largest(self):
        self.assertEqual(Spread.of([3, 1, 9, 2, 4]), Spread(3, 1, 9))
        self.assertIsNone(Spread.of([]))

    def test_twice_and_half_are_one_in_the_mean(self):
        self.assertTrue(math.isclose(geometric_mean([2, 0.5]), 1))
        self.assertIsNone(geometric_mean([]))


class JudgementTests(unittest.TestCase):
    kept = {("pair", "bare"): 100.0, ("pair", "recording"): 200.0, ("pair", "dormant"): 4.0}

    def verdicts(self, **counts):
        found = {("pair", mode): count for mode, count in counts.items()}
        return [is_too_much for _, is_too_much in judged(self.kept, found)]

    def test_five_percent_more_is_too_much(self):
        self.assertEqual(self.verdicts(recording=209.0), [False])
        self.assertEqual(self.verdicts(recording=211.0), [True])

    def test_one_instruction_more_is_too_much_where_there_are_four(self):
        self.assertEqual(self.verdicts(dormant=4.3), [False])
        self.assertEqual(self.verdicts(dormant=5.0), [True])

    def test_a_path_that_nothing_is_kept_of_is_told(self):
        self.assertEqual(self.verdicts(sampling=1.0), [True])

    def test_the_bare_program_is_not_judged(self):
        self.assertEqual(self.verdicts(bare=500.0), [])


class DocumentTests(unittest.TestCase):
    def test_tables_are_put_between_their_marks(self):
        document = "a\n<!-- bench: one -->\nold\n<!-- bench end -->\nb\n<!-- bench: two -->\nkept\n<!-- bench end -->\n"
        expected = document.replace("old", "| new |")
        self.assertEqual(filled(document, {"one": "| new |\n"}), expected)
        self.assertEqual(filled(expected, {"one": "| new |\n"}), expected)

    def test_a_plot_is_well_formed_whatever_is_in_a_name(self):
        row = ("a & b", {"recording": Spread(1.1, 1.0, 40.0)})
        drawn = svg("<Time>", [row], [("recording", "ours"), ("lsan", "LSan")])
        root = xml.etree.ElementTree.fromstring(drawn)
        texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("a & b", texts)
        self.assertNotIn("LSan", texts)  # it has no figures


class TableTests(unittest.TestCase):
    def tables(self, *records, unit=None):
        job = {"name": "job", "title": "a job", "is_server": False, "unit": unit, "small": [10, 20]}
        modes = [
            {"name": name, "title": name, "base": "bare", "absent": None, "package": None}
            for name in ("bare", "recording", "heaptrack", "heaptrack-inside")]
        campaign = Campaign([job], modes)
        for record in records:
            campaign.records.add(record)
        return Tables(campaign), [job]

    def test_a_title_has_a_unit_where_the_row_is_in_it(self):
        tables, jobs = self.tables(
            Record("job", "bare", 0, said=9.0), Record("job", "recording", 0, said=20.0),
            Record("job@10", "bare", 0, instructions=1000), Record("job@20", "bare", 0, instructions=2440),
            unit="ns")
        self.assertIn("| a job (ns) | 9.0 | 20.0 |", tables.said(jobs))
        self.assertIn("| a job | 144 |", tables.instructions(jobs, lambda count, base: ""))

    def test_a_pair_in_which_another_is_faster_is_told(self):
        tables, jobs = self.tables(
            Record("job", "bare", 0, said=10.0), Record("job", "recording", 0, said=20.0),
            Record("job", "heaptrack-inside", 0, said=15.0), unit="ns")
        self.assertIn("a job: heaptrack-inside takes 1.50, recording 2.00", tables.losses(jobs))

    def test_processor_time_is_the_median_of_an_even_number_too(self):
        records = []
        for number, beside in enumerate((1.0, 3.0)):
            records.append(Record("job", "bare", number, processor=1.0))
            records.append(Record("job", "recording", number, processor=1.5))
            records.append(Record("job", "heaptrack", number, processor=2.0, beside=beside))
        tables, jobs = self.tables(*records)
        self.assertIn("| a job | 1.50 | 4.00 |", tables.processor(jobs))

    def test_a_dump_that_says_nothing_of_its_stacks_is_in_no_row(self):
        tables, _ = self.tables()
        nothing = {"job": "job", "allocations": 0, "stacks": 0, "followed": 0, "walked": 0}
        self.assertNotIn("a job", tables.stacks([nothing]))

    def test_what_is_wanted_is_not_rounded(self):
        goal = Goal("what", 1.005, "{:.2f} ×", 1.004)
        self.assertEqual((goal.wanted, goal.is_met), ("1.005 ×", True))


class Sleeper(servers.Server):
    """A server that never answers."""

    name = "sleeper"

    def command(self):
        return ["sh", "-c", "echo $$ >started; mv started process; exec sleep 1000"]

    def wait_until_it_answers(self):
        self.wait_until(lambda: os.path.exists(f"{self.directory}/process"))
        super().wait_until_it_answers()

    @staticmethod
    def wait_until(is_so):
        end = time.monotonic() + 60
        while not is_so() and time.monotonic() < end:
            time.sleep(0.05)


class RunTests(unittest.TestCase):
    def run_it(self, *arguments):
        return subprocess.run(
            [sys.executable, f"{BENCHMARKS}/run", *arguments], capture_output=True, text=True, check=False)

    def test_a_server_that_does_not_answer_is_ended(self):
        with Workshop("/nowhere") as workshop, mock.patch.dict(servers.SERVERS, sleeper=Sleeper):
            with mock.patch.object(servers, "PATIENCE", 1), self.assertRaises(servers.ServerFailure):
                with servers.started(workshop, "sleeper", []):
                    self.fail("it answers")
            [path] = [f"{workshop.directory}/{name}/process" for name in os.listdir(workshop.directory) if
                      name.startswith("sleeper-") and os.path.isdir(f"{workshop.directory}/{name}")]
            with open(path, encoding="ascii") as file:
                process = int(file.read())
            Sleeper.wait_until(lambda: not lives(process))
            self.assertFalse(lives(process))

    def test_what_cannot_be_compiled_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as directory:
            with mock.patch("driver.workshop.roomy_directory", return_value=directory):
                with mock.patch.dict(os.environ, PATH="/nowhere"), self.assertRaises(Unmeasurable):
                    with Workshop("/nowhere"):
                        self.fail("there is a compiler")
            self.assertEqual(os.listdir(directory), [])

    def test_a_dump_that_was_not_written_is_told(self):
        with self.assertRaisesRegex(Unmeasurable, "there are 0 files"):
            diffs.the_one("/nowhere/*.pb")

    def test_what_there_is_not_is_refused(self):
        for arguments, sentence in (
                (["--parts", "times,tea"], "--parts takes times,instructions,snapshots,diff, and not 'tea'"),
                (["--products", "/nowhere"], "there is no 'libheaptap.so' in '/nowhere'")):
            done = self.run_it(*arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(sentence, done.stderr)

    def test_a_part_of_a_run_is_not_published(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write('{"head": {"options": {"rounds": 1, "partial": true}}, "jobs": [], "modes": []}\n')
            file.flush()
            done = self.run_it("--from", file.name, "--publish")
        self.assertEqual(done.returncode, 2)
        self.assertIn("has a part of a run, and --publish takes a whole one", done.stderr)


def lives(process):
    """Whether it runs; one that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    unittest.main()
