#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Python's own tests, on malloc alone and by --full with its own allocator too: the outcome of each, by name.
#
# They use SIGUSR1 and SIGUSR2 for themselves, so the tracer leaves all signals alone. HEAPTAP_SIGNALS=USR1,USR2
# shows which of them expect that nobody else has a handler, see docs/guests.md.
. "$(dirname "$0")/guest.sh"
python=/usr/bin/python3
needs "$python"
"$python" -c 'import test.test_gc' 2> /dev/null || skip "Debian's libpython3.11-testsuite is not installed"
settings+=("HEAPTAP_SIGNALS=${HEAPTAP_SIGNALS:-none}")

modules=(test_ctypes test_mmap test_tracemalloc)
allocators=(malloc)
if [ -n "$is_full" ]; then
  allocators+=(default)
  modules+=(test_gc test_json test_fork1 test_thread test_wait4 test_threading test_subprocess test_signal
    test_faulthandler test_os test_posix test_eintr test_threadsignals test_capi test_embed test_select test_epoll
    test_resource test_fcntl test_multiprocessing_fork test_selectors test_bytes test_dict test_zlib test_ssl
    test_pty)
fi
[ -z "${PYTHON_TESTS:-}" ] || read -ra modules <<< "$PYTHON_TESTS"

# The outcome and the name of each test in a file that `--junit-xml` wrote.
outcomes() {
  "$python" - "$1" << 'PYTHON'
import sys, xml.etree.ElementTree

for case in xml.etree.ElementTree.parse(sys.argv[1]).iter("testcase"):
    outcome = {child.tag for child in case} & {"failure", "error", "skipped"}
    print(case.get("name"), *(outcome or {"ok"}))
PYTHON
}

play() {
  local allocator
  for allocator in "${allocators[@]}"; do
    guest "PYTHONMALLOC=$allocator" "$python" -m test --timeout 300 --junit-xml "$PWD/$allocator.xml" \
      "${modules[@]}" >&2
    outcomes "$allocator.xml" | sort | sed "s/^/$allocator: /"
    [ -s "$allocator.xml" ] || echo "no outcomes"
  done
}

compare "CPython $("$python" -c 'import platform; print(platform.python_version())'), ${is_full:+its own and }$(allocator "$python")" \
  "${#modules[@]} modules of its own tests, test by test"
