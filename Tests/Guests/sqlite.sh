#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SQLite: a database of some tables, indices, triggers, a full-text index and JSON, by its own checksum.
. "$(dirname "$0")/guest.sh"
needs sqlite3
settings+=(HEAPTAP_EXIT=dump)

statements() {
  cat << 'SQL'
PRAGMA journal_mode=WAL;
PRAGMA page_size=1024;
CREATE TABLE t(n INTEGER PRIMARY KEY, x TEXT, y REAL, z BLOB);
CREATE TABLE log(n INTEGER, what TEXT);
CREATE TRIGGER gone AFTER DELETE ON t BEGIN INSERT INTO log VALUES(old.n, old.x); END;
CREATE VIRTUAL TABLE words USING fts5(body);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40000)
  INSERT INTO t(x, y, z) SELECT printf('%08d-%s', i * 7919 % 10007, hex(i)), i / 3.0, zeroblob(i % 90) FROM c;
CREATE INDEX tx ON t(x);
CREATE INDEX ty ON t(y) WHERE n % 2;
INSERT INTO words SELECT replace(x, '-', ' ') FROM t LIMIT 5000;
SELECT count(*) FROM words WHERE words MATCH '0000*';
SELECT substr(x, 5, 2) AS p, count(*), max(x), round(avg(y), 4) FROM t GROUP BY p ORDER BY p LIMIT 20;
SELECT json_group_array(json_object('n', n, 'x', x)) FROM (SELECT n, x FROM t WHERE n % 4001 = 0);
BEGIN;
DELETE FROM t WHERE n % 3 = 0;
SAVEPOINT a;
UPDATE t SET x = upper(x) || n;
ROLLBACK TO a;
COMMIT;
SELECT count(*), sum(n) FROM log;
SELECT a.n, b.n FROM t a JOIN t b ON a.x = b.x AND a.n < b.n ORDER BY 1, 2 LIMIT 30;
SELECT * FROM nowhere;
INSERT INTO t(n) VALUES(1);
VACUUM;
PRAGMA integrity_check;
.sha3sum
SQL
}

play() {
  guest sqlite3 base.db < <(statements) 2>&1
  echo "ended with $?"
}

compare "SQLite $(sqlite3 --version | cut -d' ' -f1), $(allocator "$(command -v sqlite3)")" \
  "tables, indices, triggers, FTS5, JSON and WAL, by .sha3sum"
