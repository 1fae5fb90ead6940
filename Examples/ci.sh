#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A step for CI: runs tests from their first allocation under Heaptap, shows what is left at their
# end, and what is left more than in an earlier run.
#
#     Examples/ci.sh DIRECTORY ./tests --some-option
#     BASELINE=main.pb Examples/ci.sh DIRECTORY ./tests --some-option
#     BASELINE=main.pb MAX_GROWTH=1M Examples/ci.sh DIRECTORY ./tests --some-option
#
# The dump is left in DIRECTORY, which should be kept as an artifact: any pprof tool opens it, and
# it is the BASELINE of a later run. With MAX_GROWTH more than that fails, as the job's summary says.
# Exit status: that of the tests; 1 where they passed and what is left has grown too much.
set -eu

if [ $# -lt 2 ]; then
  echo "usage: ci.sh DIRECTORY COMMAND…" >&2
  exit 64
fi
heaptap=${HEAPTAP_COMMAND:-heaptap}
directory=$1
shift

mkdir -p "$directory"
status=0
"$heaptap" run -o "$directory" -- "$@" || status=$?

# Names sort by time. Tests that were killed outright leave none.
dump=$(find "$directory" -name '*.pb' | sort | tail -n 1)
if [ -n "$dump" ]; then
  echo "left at the end of the tests:"
  "$heaptap" show "$dump"
  if [ -n "${BASELINE:-}" ]; then
    echo "compared with '$BASELINE':"
    "$heaptap" diff "$BASELINE" "$dump" --by function
    if [ -n "${MAX_GROWTH:-}" ]; then
      "$heaptap" check "$BASELINE" "$dump" --max-growth "$MAX_GROWTH" --format markdown \
        >> "${GITHUB_STEP_SUMMARY:-/dev/stdout}" || [ "$status" -ne 0 ] || status=1
    fi
  fi
fi
exit "$status"
