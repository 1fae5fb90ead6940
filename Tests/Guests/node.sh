#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Node.js: generated code, worker threads, child processes, zlib, crypto, and its own use of SIGUSR1.
. "$(dirname "$0")/guest.sh"
needs node
settings+=(HEAPTAP_EXIT=dump)

play() { guest node --expose-gc "$here/Programs/work.js" 2>&1; }

compare "Node.js $(node --version), V8's heap and $(allocator "$(command -v node)")" \
  "workers, children, zlib, crypto, buffers, by checksums"
