# The two commands people need are 'go run ./cmd/periplus up' and 'make test'.

GO ?= go
FUZZTIME ?= 30s

SHELL := /bin/bash

# What is built does not depend on where the clone is, so that another clone finds it in Go's cache. A cold run compiles
# for most of its time, so the compiler does without debug information, and without its garbage collector as long as it
# takes no more than a GiB: a tenth to a fifth less to do.
export GOFLAGS := $(strip $(GOFLAGS) -trimpath -gcflags=all=-dwarf=false '-toolexec=env GOGC=off GOMEMLIMIT=1GiB')

# The tests with real components and processes, without the race detector; three at a time, for each has addresses of its
# own and mostly waits, but not beside those of 'up', whose loads would be late. Those that need what takes longest to build
# come last. Never from the cache of test results (-count 1): it does not see the programs that they start.
REAL := harness kube etcd oracle grpc prometheus realdeps spire envoy

# What counts the tests, and where it keeps the counts of each part.
TALLY := .cache/tally
COUNTS := .cache/unit.tally .cache/e2e.tally .cache/real.tally

.PHONY: build test unit e2e browser-deps realdeps real real-tests fuzz bench generate lint clean

build: ## every binary, into bin/
	$(GO) build -o bin/ ./cmd/...

# Everything is run even if something fails (vet is run by lint, and no second time by go test), and the last line says how many tests passed, failed and were skipped. The
# components are got meanwhile, in a session of its own, which ends with this one.
test: $(TALLY) ## everything: rules, unit, property, fuzz corpora, simulation, real processes, real components
	@rm -f $(COUNTS); mkdir -p .cache/realdeps; failed=; \
	setsid $(GO) run ./integration/realdeps/get >.cache/realdeps/log 2>&1 & get=$$!; trap 'kill -- -$$get 2>/dev/null' EXIT; \
	for stage in lint unit e2e real-tests; do make --no-print-directory $$stage || failed="$$failed $$stage"; done; \
	wait $$get || failed="$$failed realdeps"; cat .cache/realdeps/log; \
	[ -z "$$failed" ] || echo "failed:$$failed"; \
	$(TALLY) -total $(COUNTS) && [ -z "$$failed" ]

$(TALLY): $(wildcard integration/tally/*.go)
	$(GO) build -o $@ ./integration/tally

lint: ## formatting and vet
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt would change:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...

unit: $(TALLY) ## all but the tests with real processes, with the race detector; what takes longest first
	@set -o pipefail; $(GO) test -vet=off -json -race -timeout 15m ./integration/sim $$($(GO) list ./... | grep -vE '/integration/(sim|e2e|$(subst $() ,|,$(REAL)))(/|$$)') | $(TALLY) .cache/unit.tally
	@$(GO) test -vet=off -run AllocatesNothing ./proxy/forward # the race detector allocates, so that it is skipped above

e2e: $(TALLY) browser-deps ## the mesh of 'periplus up', real processes, under load
	@set -o pipefail; $(GO) test -vet=off -json -count 1 -timeout 25m ./integration/e2e/... | $(TALLY) -v .cache/e2e.tally

realdeps: ## the real API server, kubectl, SPIRE, etcd, Envoy and Prometheus, once, into .cache/realdeps
	$(GO) run ./integration/realdeps/get

real: realdeps real-tests ## the mesh with real components; what cannot be had is named and its tests are skipped

real-tests: $(TALLY) # a test whose component is still being built waits for it
	$(GO) build -o .cache/bin/ ./cmd/...
	@set -o pipefail; PERIPLUS_BIN=$(CURDIR)/.cache/bin $(GO) test -vet=off -json -count 1 -p 3 -timeout 40m $(REAL:%=./integration/%/...) | $(TALLY) -v .cache/real.tally

browser-deps: ## Debian's Chromium, for the test of the dashboard; where it cannot be had that test says so and is skipped
	@command -v chromium >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && (apt-get update -qq; apt-get install -y -qq chromium) >/dev/null 2>&1; } || echo 'chromium is not there and could not be installed: the browser test will be skipped'

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package 2>/dev/null | grep '^Fuzz' || true); do \
	    echo "== $$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; done

bench: ## side by side with the peers; see docs/performance.md
	$(GO) run ./integration/bench/controlplane
	$(GO) run ./integration/bench/dataplane
	$(GO) run ./integration/bench/gateway

generate: ## the code of api/, with protoc and its Go plugins
	cd api && protoc -I . --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative \
	  periplus/v1/mesh.proto periplus/v1/agent.proto periplus/v1/workload.proto periplus/v1/peer.proto
	cd api && protoc -I . --go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative periplus/v1/admin.proto

clean:
	rm -rf bin .cache
