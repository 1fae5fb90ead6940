# SPDX-License-Identifier: Apache-2.0
"""Python that makes objects: classes, dictionaries, text, sorting, json and regular expressions.

    words.py ROUNDS
"""

import collections
import json
import re
import sys


class Node:
    def __init__(self, name, parent):
        self.name = name
        self.parent = parent
        self.children = []
        self.seen = {}

    def path(self):
        return (self.parent.path() if self.parent else []) + [self.name]


def make_tree(width, depth, parent=None):
    node = Node(f"node {depth} of {parent.name if parent else 'nobody'}", parent)
    if depth:
        node.children = [make_tree(width, depth - 1, node) for _ in range(width)]
    return node


def leaves(node):
    return [node] if not node.children else [leaf for child in node.children for leaf in leaves(child)]


def text_of(count):
    state = 1
    words = []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        words.append("".join(chr(97 + (state >> shift) % 26) for shift in (8, 13, 18, 23)[: 2 + state % 3]))
    return " ".join(words)


def work(text):
    counted = collections.Counter(re.findall("[a-z]+", text))
    table = [{"word": word, "times": times, "at": list(range(times % 7))} for word, times in counted.items()]
    again = json.loads(json.dumps(table))
    again.sort(key=lambda row: (-row["times"], row["word"]))
    paths = ["/".join(leaf.path()) for leaf in leaves(make_tree(4, 5))]
    groups = collections.defaultdict(list)
    for row in again:
        groups[row["word"][0]].append(tuple(row["at"]))
    return len(again) + len(paths) + len(groups) + sum(map(len, (f"{row['word']:>8}" for row in again)))


def main():
    text = text_of(6000)
    print(sum(work(text) for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)))


main()
