#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# git: a repository of some hundred commits, its packs, bundles and clones, by the names of its objects.
. "$(dirname "$0")/guest.sh"
needs git
settings+=(HEAPTAP_EXIT=dump)
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b.c GIT_AUTHOR_DATE='1700000000 +0000'
export GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b.c GIT_COMMITTER_DATE='1700000000 +0000'
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1

# What fast-import(1) reads: a history with branches.
history() {
  local i j
  for ((i = 1; i <= ${is_full:+10}100; i++)); do
    echo "commit refs/heads/$((i % 10 ? 0 : 1))"
    echo "mark :$i"
    echo "committer A <a@b.c> $((1700000000 + i)) +0000"
    echo "data <<END"
    echo "commit $i"
    echo END
    [ $i -le 10 ] || echo "merge :$((i - 10))"
    for ((j = 0; j < 5; j++)); do
      echo "M 644 inline d$((i % 7))/f$j"
      echo "data <<END"
      seq $((i * j)) $((i * j + 300))
      echo END
    done
  done
}

play() {
  git init -q -b 0 one && cd one || return 1
  history | guest git fast-import --quiet || return 1
  guest git reset -q --hard
  guest git rev-list --objects --all | sort | sha256sum
  guest git log --stat -p --all | sha256sum
  # Which deltas it finds depends on its threads.
  guest git -c pack.threads=4 repack -q -adf --window=50
  guest git verify-pack .git/objects/pack/*.idx || echo "a bad pack"
  guest git cat-file --batch-all-objects --batch-check | sha256sum
  guest git blame d1/f1 | sha256sum
  guest git checkout -q -b topic HEAD~5
  seq 7 > new
  guest git add new
  guest git commit -q -m new
  guest git merge -q -m merged 1 2>&1
  guest git rebase -q 0 2>&1
  guest git status --porcelain=2 --branch
  guest git bundle create -q ../all.bundle --all
  guest git clone -q ../all.bundle ../two 2>&1
  guest git clone -q "file://$PWD" ../three 2>&1
  guest git -C ../three fsck --full --strict
  guest git gc -q --prune=now
  guest git fsck --full
  guest git grep -n -e '^77$' 0 | sha256sum
  guest git archive --format=tar.gz 0 | zcat | sha256sum
  guest git nosuch 2>&1
  echo "ended with $?"
}

compare "git $(git --version | sed 's/.* //'), $(allocator "$(command -v git)")" \
  "import, repack with threads, merge, rebase, clone, gc, fsck, by object names and checksums"
