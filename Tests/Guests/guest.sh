# SPDX-License-Identifier: Apache-2.0
# What the scripts of this directory share: a real program does the same work bare and traced, and what it
# answers must be the same. Sourced by each of them.
#
# A script defines `play`, which runs in an empty directory, starts its programs by `guest`, and prints what
# is to be compared; all else goes to standard error. Then it calls `compare`. In the traced run the programs
# record from their first allocation, and one after the other is asked for snapshots all the while.
#
#     Tests/Guests/redis.sh            what takes seconds
#     Tests/Guests/redis.sh --full     all that there is, see docs/guests.md
#
# HEAPTAP_COMMAND and HEAPTAP_LIBRARY name another heaptap and libheaptap.so than those of the release build.
# Prints one line. Exit status: 0 when the answers are the same and each dump is sound, 1 when not, 77 when
# something is missing that the script needs.
set -uo pipefail
export LC_ALL=C TZ=UTC

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$(basename "$0" .sh)
heaptap=$(realpath -m "${HEAPTAP_COMMAND:-$here/../../.build/release/heaptap-cli}")
library=$(realpath -m "${HEAPTAP_LIBRARY:-$here/../../.build/release/libheaptap.so}")
for built in "$heaptap" "$library"; do
  [ -e "$built" ] || { echo "$name: there is no '$built'; 'make build' makes it"; exit 1; }
done
is_full=
[ "${1:-}" != --full ] || is_full=1
PATH=$PATH:/usr/sbin:/sbin

# What `guest` adds to the environment of a traced program; a script may add to it.
settings=("HEAPTAP=record" "HEAPTAP_LOG=off")
# Allocators that are preloaded in both runs, before or after the tracer.
preload_before= preload_after=

scratch=$(mktemp -d)
chmod 755 "$scratch" # a program may give its privileges up
dumps=$scratch/dumps
mkdir -m 1733 "$dumps"
asker=
clean_up() {
  [ -z "$asker" ] || kill "$asker" 2> /dev/null
  local left
  left=$(descendants)
  # shellcheck disable=SC2086
  [ -z "$left" ] || kill -KILL $left 2> /dev/null
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

skip() {
  echo "$name: skipped: $*"
  exit 77
}

# Exits where a program or a file that the script needs is not here.
needs() {
  local what
  for what; do
    case $what in
      /*) [ -e "$what" ] || skip "there is no '$what'" ;;
      *) command -v "$what" > /dev/null || skip "there is no '$what'" ;;
    esac
  done
}

# Prints the processes below this script.
descendants() {
  ps -e -o pid=,ppid= | awk -v root=$$ '
    { parent[$1] = $2 }
    END {
      for (pid in parent) {
        for (up = parent[pid]; up in parent && up != root; up = parent[up]);
        if (up == root) print pid
      }
    }'
}

# Prints those of them that are armed: their tracer has a thread.
armed() {
  local pid
  for pid in $(descendants); do
    if grep -qsx heaptap "/proc/$pid/task/"*/comm; then echo "$pid"; fi
  done
}

# Runs a program as this run has it: with the tracer, or without.
guest() { env "${environment[@]}" "$@"; }

# Starts one that goes on; its pid is in `server`.
start() {
  env "${environment[@]}" "$@" &
  server=$!
}

# Asks a traced program for a snapshot, which must be written.
snapshot() {
  [ "$mode" = traced ] || return 0
  "$heaptap" snapshot "$1" > /dev/null || echo "no snapshot of $(cat "/proc/$1/comm")"
}

# Waits until a command succeeds, a minute at most.
wait_until() {
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    "$@" > /dev/null 2>&1 && return
    sleep 0.1
  done
  echo "waited in vain for '$*'"
  return 1
}

# Prints a port that nobody listens on.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
  done
  echo "$port"
}

# Prints which malloc a program has: what it is linked to or what is preloaded, or else glibc's.
allocator() {
  local found
  found=$({ echo "$preload_before $preload_after"; ldd "$1"; } 2> /dev/null \
    | grep -oE 'lib(jemalloc|tcmalloc|mimalloc)[^ ]*\.so[.0-9]*' | head -n 1)
  [ -n "$found" ] || found="glibc $(ldd --version | sed -n '1s/.* //p')"
  echo "$found"
}

# Asks a program that is traced for a snapshot, and then another one, until it is killed.
ask_all_the_while() {
  local pid
  while sleep 0.2; do
    pid=$(armed | shuf -n 1)
    [ -z "$pid" ] || "$heaptap" snapshot "$pid" > /dev/null 2>&1
  done
}

# Plays in one of both ways; the answers are in $scratch/bare and $scratch/traced.
play_as() {
  mode=$1
  local preload="$preload_before $preload_after"
  environment=(-u HEAPTAP -u LD_PRELOAD)
  if [ "$mode" = traced ]; then
    preload="$preload_before $library $preload_after"
    environment+=("${settings[@]}" "HEAPTAP_DIR=$dumps")
  fi
  [ -z "${preload// /}" ] || environment+=("LD_PRELOAD=$preload")
  mkdir -m 755 "$scratch/$mode.d"
  (cd "$scratch/$mode.d" && play > "$scratch/$mode" 2> "$scratch/$mode.errors"
    echo "play ended with $?" >> "$scratch/$mode")
}

fail() {
  echo "$name: $*"
  exit 1
}

# Each dump must be whole, and its samples what its scan has counted; up to 30 are looked at.
read_dumps() {
  local dump json figure
  find "$dumps" -name '*.pb' > "$scratch/list"
  count=$(wc -l < "$scratch/list")
  [ "$count" -gt 0 ] || fail "no dump was written"
  while read -r dump; do
    json=$("$heaptap" show --json --no-symbols -n 1 "$dump" 2>&1) || fail "a dump cannot be read: $json"
    for figure in bytes blocks; do
      local live scanned
      live=$(sed -nE "s/.*\"total\":\{[^}]*\"live_$figure\":([0-9]+).*/\1/p" <<< "$json")
      scanned=$(sed -nE "s/.*\"scanned_$figure\":\"([0-9]+)\".*/\1/p" <<< "$json")
      [ -n "$live" ] && [ "$live" = "$scanned" ] || fail "a dump is not sound: $json"
    done
    case $json in
      *'"complete":"1"'*'"warnings":[]'*) ;;
      *) fail "a dump is not whole: $json" ;;
    esac
  done < <(shuf -n 30 "$scratch/list")
}

# Plays in both ways and says how it went: with what, and what was done.
compare() {
  local with=$1 what=$2
  play_as bare
  ask_all_the_while &
  asker=$!
  play_as traced
  kill "$asker"
  wait "$asker" 2> /dev/null
  asker=
  # What was done at all: a script that does nothing would find no difference.
  [ "$(wc -l < "$scratch/bare")" -gt 1 ] || fail "no answers: $(tail -n 20 "$scratch/bare.errors")"
  if ! diff "$scratch/bare" "$scratch/traced" > "$scratch/difference"; then
    fail "$with: $what: differs: $(head -n 60 "$scratch/difference"; tail -n 20 "$scratch/traced.errors")"
  fi
  grep -qx 'play ended with 0' "$scratch/bare" \
    || fail "$what: not even bare: $(tail -n 5 "$scratch/bare"; tail -n 20 "$scratch/bare.errors")"
  read_dumps
  echo "$name: $with: $what: the same ($(($(wc -l < "$scratch/bare") - 1)) answers, $count dumps)"
}
