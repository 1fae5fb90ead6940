#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# PostgreSQL under pgbench: each connection is a fork of the postmaster, and all of them talk to each other by
# SIGUSR1 and SIGUSR2, which must stay theirs.
. "$(dirname "$0")/guest.sh"
bin=$(find /usr/lib/postgresql -path '*/bin/postgres' 2> /dev/null | sort -V | tail -n 1 | xargs -r dirname)
[ -n "$bin" ] || skip "there is no PostgreSQL server"
needs "$bin/initdb" "$bin/pgbench" "$bin/psql"

# It refuses to be root.
user=() role=()
if [ "$(id -u)" = 0 ]; then
  needs setpriv
  getent passwd postgres > /dev/null || skip "there is no user 'postgres'"
  user=(setpriv --reuid=postgres --regid=postgres --init-groups)
  role=(-U postgres)
fi
chmod 1777 "$scratch"
"${user[@]}" "$bin/initdb" -D "$scratch/template" --no-sync --no-locale > "$scratch/initdb.log" 2>&1 \
  || fail "$(cat "$scratch/initdb.log")"

sql() { "${user[@]}" "$bin/psql" -h "$scratch" "${role[@]}" -d postgres -X -q -At "$@"; }
bench() { "${user[@]}" "$bin/pgbench" -h "$scratch" "${role[@]}" "$@" postgres; }

play() {
  local server sleeper
  mv "$PWD" "$PWD.data" && cp -a "$scratch/template" "$PWD" && cd "$PWD" || return 1
  start "${user[@]}" "$bin/postgres" -D "$PWD" -k "$scratch" -c listen_addresses= -c fsync=off \
    -c autovacuum_naptime=1s -c max_wal_size=32MB -c log_min_messages=warning > server.log 2>&1
  wait_until sql -c 'SELECT 1' || return 1
  snapshot "$server"
  bench -i -s 1 -q >&2
  bench -c 4 -j 2 -T "${is_full:+3}3" > bench.log 2>&1
  grep -E 'number of failed|number of clients' bench.log
  grep -iE 'error|fatal' bench.log
  bench -n -S -M prepared -C -c 2 -t 20 > bench.log 2>&1
  grep -E 'number of failed|actually processed' bench.log
  # All four agree, however many transactions there were.
  sql << 'SQL' | sed 's/ with PID [0-9]*//'
SELECT count(*) > 0, sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts),
  sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches),
  sum(delta) = (SELECT sum(tbalance) FROM pgbench_tellers) FROM pgbench_history;
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*), sum(aid), md5(string_agg(bid::text, '')) FROM pgbench_accounts;
CREATE TABLE t AS SELECT i, md5(i::text) AS m FROM generate_series(1, 50000) AS i;
CREATE INDEX ON t(m);
SELECT md5(string_agg(m, ',' ORDER BY m)) FROM t WHERE i % 3 = 0;
SELECT a.m < b.m, count(*) FROM t a JOIN t b ON a.i = b.i + 1 GROUP BY 1 ORDER BY 1;
LISTEN x;
NOTIFY x, 'heard';
SELECT 1 / 0;
CHECKPOINT;
VACUUM ANALYZE t;
SELECT pg_reload_conf();
DO $$ BEGIN RAISE EXCEPTION 'thrown'; EXCEPTION WHEN OTHERS THEN NULL; END $$;
SELECT md5(string_agg(regexp_replace(m, '[a-f]+', '-', 'g'), '' ORDER BY i)) FROM t;
SQL
  # Interrupted by another session (SIGINT), and ended by one (SIGTERM).
  sql -c "SET application_name = 'sleeper'" -c 'SELECT pg_sleep(100)' > sleeper.log 2>&1 &
  sleeper=$!
  wait_until sleeps || return 1
  sql -c "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'sleeper'"
  wait "$sleeper"
  cat sleeper.log
  sql -c "SET application_name = 'sleeper'" -c 'SELECT pg_sleep(100)' > sleeper.log 2>&1 &
  sleeper=$!
  wait_until sleeps || return 1
  snapshot "$(sql -c "SELECT pid FROM pg_stat_activity WHERE application_name = 'sleeper'")"
  sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sleeper'"
  wait "$sleeper"
  grep -o 'FATAL.*' sleeper.log
  kill -INT "$server"
  wait "$server"
  echo "ended with $?"
  grep -E 'PANIC|crash|signal' server.log
  "${user[@]}" "$bin/pg_controldata" "$PWD" | grep 'cluster state'
}

sleeps() {
  sql -c "SELECT 1 FROM pg_stat_activity WHERE application_name = 'sleeper' AND wait_event = 'PgSleep'" | grep 1
}

compare "PostgreSQL $("$bin/postgres" --version | cut -d' ' -f3), $(allocator "$bin/postgres")" \
  "pgbench, parallel queries, NOTIFY, cancelled and ended sessions, by sums, checksums and messages"
