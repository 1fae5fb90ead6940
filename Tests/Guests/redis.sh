#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Redis: the same data set by its own digest, through forks that save it and reloads that read it again.
. "$(dirname "$0")/guest.sh"
needs redis-server redis-cli redis-benchmark

ask() { redis-cli -p "$port" "$@"; }

commands() {
  local i
  for ((i = 0; i < 500; i++)); do
    echo "SET key:$i $(printf "%0$((1 + i % 90))d" "$i")"
    echo "HSET hash:$((i % 40)) field:$i $i"
    echo "ZADD zset:$((i % 7)) $((i * 7919 % 10007)) member:$i"
    echo "RPUSH list:$((i % 13)) $i"
    echo "SADD set:$((i % 11)) $i"
    echo "XADD stream:$((i % 3)) $((i + 1))-1 a $i"
    echo "APPEND key:$((i % 50)) x"
  done
  echo "EVAL \"local t = {} for i = 1, 20000 do t[i] = i .. ':' .. KEYS[1] end return #table.concat(t)\" 1 k"
  echo "SORT list:1 DESC LIMIT 0 20"
  echo "ZRANGE zset:3 0 20 WITHSCORES"
  echo "NOSUCH command"
}

is_saved() { ask INFO persistence | tr -d '\r' | grep -qx "$1_in_progress:0"; }

play() {
  local port server
  port=$(free_port)
  start redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly yes --dir . \
    --enable-debug-command yes --lua-time-limit 60000 --io-threads 2 > server.log
  wait_until ask PING || return 1
  commands | ask
  redis-benchmark -p "$port" -n 1000 -c 10 -P 10 --csv -t set,get,incr,lpush,rpop,sadd,hset,zadd,mset >&2
  ask DEBUG DIGEST
  snapshot "$server"
  ask BGSAVE
  wait_until is_saved rdb_bgsave || return 1
  ask BGREWRITEAOF
  wait_until is_saved aof_rewrite || return 1
  ask INFO persistence | grep -E '_status:'
  ask DEBUG RELOAD
  ask DEBUG DIGEST
  ask DEBUG LOADAOF
  ask DEBUG DIGEST
  ask MEMORY PURGE
  ask CONFIG SET activedefrag yes
  ask DBSIZE
  ask SHUTDOWN NOSAVE
  wait "$server"
  echo "ended with $?"
  if [ -n "$is_full" ]; then play_tests; fi
}

# Redis's own tests, written in Tcl, from the source of the same version.
play_tests() {
  local program
  cp -r "$REDIS_SOURCE/tests" "$REDIS_SOURCE/runtest" "$REDIS_SOURCE/redis.conf" .
  mkdir src
  for program in redis-server redis-cli redis-benchmark redis-check-aof redis-check-rdb redis-sentinel; do
    printf '#!/bin/sh\nexec env %s %s "$@"\n' "$(printf '%q ' "${environment[@]}")" \
      "$(command -v $program)" > src/$program
    chmod +x src/$program
  done
  local single=()
  for unit in ${REDIS_TESTS:-}; do single+=(--single "$unit"); done
  ./runtest --clients 2 --dont-clean "${single[@]}" > tests.log 2>&1
  echo "ended with $?"
  sed -E 's/\x1b\[[0-9;]*m//g' tests.log | sed -nE 's/^(\[(ok|err|exception|skip|ignore)\]: .*)/\1/p' \
    | sed -E 's/ \([0-9]+ ms\)$//; s/[0-9.]+ ?(ms|seconds|keys)//' | sort
}

what="seven types, Lua, BGSAVE, BGREWRITEAOF, reloads, by DEBUG DIGEST"
if [ -n "$is_full" ]; then
  needs tclsh "${REDIS_SOURCE:-/REDIS_SOURCE}/runtest"
  what+=", and its own tests (${REDIS_TESTS:-all})"
fi
compare "Redis $(redis-server --version | sed 's/.* v=\([^ ]*\) .*/\1/'), $(allocator "$(command -v redis-server)")" "$what"
