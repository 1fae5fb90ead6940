#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nginx under wrk and ab, while its configuration is reloaded, its logs are opened anew and it quits: all by
# signals of its own, of which SIGUSR1 and SIGUSR2 are two.
. "$(dirname "$0")/guest.sh"
needs nginx wrk ab curl

configure() {
  cat << CONF
daemon off;
worker_processes 2;
pid pid;
error_log errors;
events { worker_connections 256; }
http {
  access_log access;
  gzip on;
  gzip_types text/plain;
  default_type text/plain;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    listen 127.0.0.1:$port;
    root $PWD;
    location /again/ { proxy_pass http://127.0.0.1:$port/; }
    location /gone { return 410; }
  }
}
CONF
}

page() { curl -s --compressed -w '%{http_code}\n' "http://127.0.0.1:$port/$1" | sha256sum; }
workers() { pgrep -P "$server" | sort | tr '\n' ' '; }
have_gone() { local pid; for pid; do [ ! -e "/proc/$pid" ] || return 1; done; }
has_answered() { [ "$(curl -s -o answer -w '%{http_code}' "http://127.0.0.1:$port/gone")" = 410 ]; }

play() {
  local port server before
  port=$(free_port)
  seq 20000 > page.txt
  configure > conf
  start "$(command -v nginx)" -p "$PWD" -c "$PWD/conf" -e "$PWD/errors"
  wait_until has_answered || return 1
  page page.txt
  page again/page.txt
  page gone
  page missing
  snapshot "$server"
  wrk -t 2 -c 16 -d "${is_full:+2}1" "http://127.0.0.1:$port/page.txt" > wrk.log
  grep -E 'Non-2xx|Socket errors' wrk.log
  ab -q -n 2000 -c 8 -H 'Accept-Encoding: gzip' "http://127.0.0.1:$port/again/page.txt" > ab.log &
  before=$(workers)
  kill -HUP "$server"
  # shellcheck disable=SC2086
  wait_until have_gone $before || return 1
  rm access
  kill -USR1 "$server"
  wait_until test -e access || return 1
  wait %?ab
  grep -E 'Complete requests|Failed requests|Non-2xx' ab.log
  page page.txt
  # That of a new binary, which a master ignores whose parent is still there.
  kill -USR2 "$server"
  page again/page.txt
  kill -QUIT "$server"
  wait "$server"
  echo "ended with $?"
  grep -cE '\[(alert|emerg|crit)\]' errors
}

compare "nginx $(nginx -v 2>&1 | sed 's,.*/,,'), $(allocator "$(command -v nginx)")" \
  "wrk and ab, with HUP, USR1, USR2 and QUIT, by answers and failures"
