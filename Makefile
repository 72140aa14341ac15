# The two commands people need are 'go run ./cmd/periplus up' and 'make test'.

GO ?= go
FUZZTIME ?= 30s

SHELL := /bin/bash

# The tests with real components and processes, without the race detector; two at a time, for each has addresses of its
# own and mostly waits. Those that need what takes longest to build come last. Never from the cache of test results (-count 1):
# it does not see the programs that they start.
REAL := harness kube etcd oracle grpc prometheus realdeps spire envoy

.PHONY: build test unit e2e browser-deps realdeps real real-tests fuzz bench generate lint clean

build: ## every binary, into bin/
	$(GO) build -trimpath -o bin/ ./cmd/...

test: ## everything: rules, unit, property, fuzz corpora, simulation, real processes, real components
	@mkdir -p .cache/realdeps && ($(GO) run ./integration/realdeps/get >.cache/realdeps/log 2>&1 &) # meanwhile
	@$(MAKE) --no-print-directory lint unit e2e real-tests
	@cat .cache/realdeps/log

lint: ## formatting and vet
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt would change:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...

unit: ## all but the tests with real processes, with the race detector
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -vE '/integration/(e2e|$(subst $() ,|,$(REAL)))(/|$$)')

e2e: browser-deps ## the mesh of 'periplus up', real processes, under load
	$(GO) test -count 1 -timeout 25m -v ./integration/e2e/...

realdeps: ## the real API server, kubectl, SPIRE, etcd, Envoy and Prometheus, once, into .cache/realdeps
	$(GO) run ./integration/realdeps/get

real: realdeps real-tests ## the mesh with real components; what cannot be had is named and its tests are skipped

real-tests: # a test whose component is still being built waits for it
	$(GO) build -o .cache/bin/ ./cmd/...
	@set -o pipefail; PERIPLUS_BIN=$(CURDIR)/.cache/bin $(GO) test -count 1 -p 2 -timeout 25m -v $(REAL:%=./integration/%/...) | tee .cache/real.log
	@echo "skipped with real components: $$(grep -c -- '--- SKIP' .cache/real.log)"; grep -A1 -- '--- SKIP' .cache/real.log || true

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
