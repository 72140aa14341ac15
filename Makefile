# The two commands people need are 'go run ./cmd/periplus up' and 'make test'.

GO ?= go
FUZZTIME ?= 30s

.PHONY: build test unit race e2e browser-deps fuzz bench generate lint clean

build: ## every binary, into bin/
	$(GO) build -trimpath -o bin/ ./cmd/...

test: lint unit e2e ## everything: rules, unit, property, fuzz corpora, simulation, real processes

lint: ## formatting and vet
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt would change:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...

unit: ## all but the tests with real processes, with the race detector
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v /integration/e2e)

e2e: browser-deps ## the mesh of 'periplus up', real processes, under load
	$(GO) test -timeout 25m -v ./integration/e2e/...

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
