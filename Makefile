# Everything a new user and CI need. On a fresh Debian machine with a Swift toolchain: `make run`, `make test`.

SHELL := /bin/bash
SWIFT ?= swift
RELEASE := -c release --static-swift-stdlib
BINARY := .build/release/tollgate
PACKAGES := curl openssl libcurl4-openssl-dev libssl-dev libhiredis-dev redis-server pkg-config
TEST_PACKAGES := $(PACKAGES) nginx
BENCH_PACKAGES := $(PACKAGES) nginx wrk nghttp2-client python3
# How long `make fuzz` fuzzes each target.
SECONDS ?= 600
# Where `make bench-routing` finds its traces.
TRACES ?= traces
# Test suites that need no server.
QUICK := DomainTests|JSONTests|OpenAIProtocolTests|TokenizationTests|RoutingTests|BillingTests|ArchitectureTests

.PHONY: run build test quick lint fuzz bench bench-routing test-conformance test-tokens test-allocations test-real clean
.PHONY: packages test-packages bench-packages

run: build
	@exec $(BINARY) demo $(ARGS)

build: packages
	$(SWIFT) build $(RELEASE) --product tollgate

test: test-packages lint
	@scripts/fuzz.sh 20
	$(SWIFT) build --build-tests
	$(SWIFT) test --skip-build --no-parallel
	@TOLLGATE_BINARY=.build/debug/tollgate scripts/test-tokens.sh small
	@scripts/test-conformance.sh

# Real clients against a debug build that is there already.
test-conformance:
	@scripts/test-conformance.sh $(ARGS)

quick: packages
	$(SWIFT) test --filter '$(QUICK)'

lint:
	$(SWIFT) format lint --strict --parallel --recursive Package.swift Sources Tests

fuzz: test-packages
	@scripts/fuzz.sh $(SECONDS) $(ARGS)
	TOLLGATE_SMUGGLING_SEED=$${RANDOM} TOLLGATE_SMUGGLING_MUTATIONS=$$((20 * $(SECONDS))) \
		$(SWIFT) test --filter SmugglingMutationTests

bench: bench-packages build
	@python3 Benchmarks/bench.py $(ARGS)

# The balancer on traces, in virtual time and live: docs/routing-results.md and its plot.
bench-routing: bench-packages build
	@python3 Benchmarks/routing_report.py --traces $(TRACES) $(ARGS)

# Ids and counts against the libraries that define them, on 27 MB; TOKENS_FUZZ_SECONDS=3600 fuzzes for an hour.
test-tokens: build
	@scripts/test-tokens.sh full $(ARGS)

# That a decision allocates nothing: true of optimized code only, so with a build of its own.
test-allocations: packages
	$(SWIFT) test -c release -Xswiftc -enable-testing --scratch-path .build-testing --filter DecisionAllocationTests

test-real: build
	@scripts/test-real.sh $(ARGS)

packages:
	@scripts/install-packages.sh $(PACKAGES)

test-packages:
	@scripts/install-packages.sh $(TEST_PACKAGES)

bench-packages:
	@scripts/install-packages.sh $(BENCH_PACKAGES)

clean:
	rm -rf .build .build-* .venv-*
