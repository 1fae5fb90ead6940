# SPDX-License-Identifier: Apache-2.0
# Builds, tries, installs. `make help` lists what there is.

PREFIX ?= /usr/local
DESTDIR ?=
SWIFT ?= swift
SOAK ?= 1000
FUZZ_SECONDS ?= 60
STRESS ?= 3600

# Debian's names of what the build and the tests need besides a Swift toolchain.
PACKAGES := libdw-dev libiberty-dev zlib1g-dev libunwind-dev libsystemd-dev pkg-config valgrind redis-server \
  nginx-light sqlite3 python3 curl apache2-utils procps golang-go systemd systemd-sysv \
  systemd-journal-remote util-linux iproute2 libcurl4-openssl-dev gdb git perl strace rustc nodejs dwz xz-utils debuginfod \
  libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0 libpython3.11-testsuite wrk postgresql

# What the benchmarks compare with, where it can be had; memray comes from PyPI.
PEERS := heaptrack libgoogle-perftools4 libjemalloc2 python3-venv zstd

RELEASE := .build/release
bindir := $(DESTDIR)$(PREFIX)/bin
libdir := $(DESTDIR)$(PREFIX)/lib
includedir := $(DESTDIR)$(PREFIX)/include
datadir := $(DESTDIR)$(PREFIX)/share
unitdir := $(DESTDIR)$(PREFIX)/lib/systemd/system
tmpfilesdir := $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
# journalctl reads it below /usr/lib and /usr/local/lib only.
catalogdir := $(DESTDIR)$(PREFIX)/lib/systemd/catalog

.DEFAULT_GOAL := all
.PHONY: all build deps test demo docs bench instructions soak fuzz stress sanitize guests install stage uninstall format lint clean help

all: deps build ## Install what is missing and build (the default)

# The command carries Swift's runtime, so that it runs where no toolchain is. The tracer needs none.
build: ## Build the tracer and the command
	$(SWIFT) build -c release --product heaptap
	$(SWIFT) build -c release --static-swift-stdlib --product heaptap-cli

deps: ## Install the Debian packages that are missing
	@missing=$$(for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' \
	    || echo $$package; \
	done); \
	[ -z "$$missing" ] && exit 0; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update \
	  && $$sudo env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y --no-install-recommends $$missing

test: deps ## Build, and run all tests
	SWIFT=$(SWIFT) Tests/run

demo: deps build ## Trace a leaking server of Examples/ and name the line
	Examples/demo.sh

docs: deps ## Build the reference of the Swift modules (.build/reference)
	docs/reference.sh

bench: deps build ## Measure what tracing costs, beside others, for half an hour; BENCH=--help
	-@$(MAKE) --no-print-directory deps PACKAGES='$(PEERS)'
	Benchmarks/run --publish $(BENCH)

instructions: deps build ## Keep the instruction counts of the warm paths that the tests compare with
	Benchmarks/instructions --renew

soak: deps build ## Repeat the tests of endurance SOAK times (1000)
	HEAPTAP_SOAK=$(SOAK) $(SWIFT) test --filter '[Ss]oak'

fuzz: deps ## Give every parser FUZZ_SECONDS (60) of libFuzzer's inputs, and its corpus
	Tests/Fuzz/run "$$(Tests/Fuzz/build)" $(FUZZ_SECONDS)

stress: deps build ## Everything that a process may do to its tracer at once, for STRESS seconds (3600)
	HEAPTAP_STRESS=$(STRESS) $(SWIFT) test --filter StressTests

guests: deps build ## Compare real programs bare and traced; GUESTS=--full runs their own test suites
	Tests/Guests/all $(GUESTS)

# Leaks are left to the runtimes and the test library, which keep some.
sanitize: deps ## The tests of the tracer's core under ThreadSanitizer and AddressSanitizer
	cd Tests/Sanitizers && TSAN_OPTIONS=suppressions=$(CURDIR)/Tests/Sanitizers/thread.suppressions \
	  $(SWIFT) test --sanitize=thread --scratch-path .build/thread
	cd Tests/Sanitizers && ASAN_OPTIONS=detect_leaks=0 \
	  $(SWIFT) test --sanitize=address --scratch-path .build/address

install: build ## Install under PREFIX (/usr/local), staged in DESTDIR
	@$(MAKE) --no-print-directory stage
	@[ -n "$(DESTDIR)" ] || printf '%s\n' '' 'To finish, as root:' \
	  '    systemctl daemon-reload' \
	  '    systemd-tmpfiles --create heaptap.conf' \
	  '    journalctl --update-catalog' \
	  'New dumps are reported in the journal after:' \
	  '    systemctl enable --now heaptap-report.path'

# What install does, of a build that is there: for packages, and for the tests.
stage:
	install -d $(bindir) $(libdir) $(includedir) $(datadir)/man/man1 $(datadir)/man/man7 \
	  $(datadir)/bash-completion/completions $(datadir)/zsh/site-functions \
	  $(datadir)/fish/vendor_completions.d $(unitdir) $(tmpfilesdir)
	install -m 0755 $(RELEASE)/heaptap-cli $(bindir)/heaptap
	install -m 0644 $(RELEASE)/libheaptap.so $(libdir)/libheaptap.so
	install -m 0644 Sources/CHeaptap/heaptap.h $(includedir)/heaptap.h
	install -m 0644 docs/man/heaptap.1 $(datadir)/man/man1/heaptap.1
	install -m 0644 docs/man/heaptap.7 $(datadir)/man/man7/heaptap.7
	$(RELEASE)/heaptap-cli --generate-completion-script bash \
	  > $(datadir)/bash-completion/completions/heaptap
	$(RELEASE)/heaptap-cli --generate-completion-script zsh \
	  > $(datadir)/zsh/site-functions/_heaptap
	$(RELEASE)/heaptap-cli --generate-completion-script fish \
	  > $(datadir)/fish/vendor_completions.d/heaptap.fish
	install -m 0644 systemd/heaptap-report.path $(unitdir)/heaptap-report.path
	sed 's|@bindir@|$(PREFIX)/bin|' systemd/heaptap-report.service.in \
	  > $(unitdir)/heaptap-report.service
	chmod 0644 $(unitdir)/heaptap-report.service
	install -m 0644 systemd/heaptap.tmpfiles $(tmpfilesdir)/heaptap.conf
	if [ -e systemd/heaptap.catalog ]; then \
	  install -D -m 0644 systemd/heaptap.catalog $(catalogdir)/heaptap.catalog; fi

uninstall: ## Remove what install put there
	rm -f $(bindir)/heaptap $(libdir)/libheaptap.so $(includedir)/heaptap.h \
	  $(datadir)/man/man1/heaptap.1 $(datadir)/man/man7/heaptap.7 \
	  $(datadir)/bash-completion/completions/heaptap $(datadir)/zsh/site-functions/_heaptap \
	  $(datadir)/fish/vendor_completions.d/heaptap.fish \
	  $(unitdir)/heaptap-report.path $(unitdir)/heaptap-report.service \
	  $(tmpfilesdir)/heaptap.conf $(catalogdir)/heaptap.catalog

format: ## Format the Swift sources
	$(SWIFT) format -i -r Sources Tests Package.swift

lint: ## Check format and man pages
	$(SWIFT) format lint --strict -r Sources Tests Package.swift
	@! command -v mandoc > /dev/null || mandoc -T lint -W warning docs/man/heaptap.1 docs/man/heaptap.7

clean: ## Remove what was built
	rm -rf .build

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
