# SPDX-License-Identifier: Apache-2.0
"""What is computed from records. To run: `python3 -m unittest driver.test_figures`, in the directory above."""

import math
import unittest
import xml.etree.ElementTree

from driver.figures import Record, Records, Spread, geometric_mean
from driver.plot import svg
from driver.report import filled
from driver.warm import judged


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


if __name__ == "__main__":
    unittest.main()
