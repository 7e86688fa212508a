# SPDX-License-Identifier: Apache-2.0
# "make help" lists the targets.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# What is built is of the time of its commit, so that it can be built again.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
LDFLAGS   = -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)

# Where kernels and linter results are kept.
export CORONER_CACHE ?= $(CURDIR)/.cache
# The version comes from LDFLAGS; a copy without .git builds as well.
export GOFLAGS ?= -buildvcs=false

GOLANGCI_LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.0

FUZZTIME    ?= 10s
BENCH       ?= .
# Those that take longest first.
VM_PACKAGES ?= ./test/system ./internal/source/tracepoint ./internal/recorder ./internal/source/cgroup ./internal/nodemap ./internal/oomtest
ARGS        ?=

.PHONY: build image demo run test test-unit test-real test-vm test-cluster fuzz bench bench-go bench-check lint cross generate generate-bpf privileges clean help

build: ## build bin/coroner, static
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/coroner ./cmd/coroner

image: ## build bin/coroner-image-{amd64,arm64}.tar, for "docker load -i"; needs no daemon
	@for arch in amd64 arm64; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -ldflags '$(LDFLAGS)' -o bin/coroner-linux-$$arch ./cmd/coroner && \
		go run ./deploy/image -binary bin/coroner-linux-$$arch -to bin/coroner-image-$$arch.tar \
			-version '$(VERSION)' -revision '$(REVISION)' -created $(SOURCE_DATE_EPOCH) || exit 1; \
	done

demo: build ## show the main job on a real OOM kill (as root, on Linux)
	bin/coroner demo $(ARGS)

run: build ## watch this machine; pages, API and metrics on :3001
	bin/coroner agent $(ARGS)

test: ## all tests; as root on Debian installs what they need, else says what it leaves out
	go run ./test/run -vm-packages '$(VM_PACKAGES)' $(ARGS)

test-unit: ## the tests that run anywhere
	go run ./test/run -only unit -install=false $(ARGS)

test-real: ## the tests with real OOM kills on this kernel (as root)
	go run ./test/run -only real $(ARGS)

test-vm: ## the same in virtual machines with other kernels
	go run ./test/run -only vm -vm-packages '$(VM_PACKAGES)' $(ARGS)

fuzz: ## each fuzz target for FUZZTIME (10s; or a number of inputs, 20000x)
	@grep -rHoE '^func Fuzz\w+' --include='*_test.go' . | sed 's/:func / /' | while read -r file target; do \
		echo "== $$target in $$(dirname $$file)"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 50x "$$(dirname $$file)" </dev/null || exit 1; \
	done

bench: build ## measure all against goals and peers, on a quiet machine, as root: writes docs/benchmarks.md (6 minutes)
	go -C bench test -count=1 -timeout 20m -v -run '^TestBenchmarks$$' . -args -bench.all -bench.out ../docs/benchmarks.md

bench-go: ## Go benchmarks; BENCH chooses
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

bench-check: ## vet the module of "make bench", and test what it does not measure
	go -C bench vet ./...
	go -C bench test -count=1 ./...

lint: ## golangci-lint, as .golangci.yml says
	GOLANGCI_LINT_CACHE=$(CORONER_CACHE)/golangci-lint $(GOLANGCI_LINT) run
	cd bench && GOLANGCI_LINT_CACHE=$(CORONER_CACHE)/golangci-lint $(GOLANGCI_LINT) run
	cd test/chart && GOLANGCI_LINT_CACHE=$(CORONER_CACHE)/golangci-lint $(GOLANGCI_LINT) run

cross: ## check that everything builds for the other systems
	GOOS=darwin  GOARCH=arm64 CGO_ENABLED=0 go build ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build ./...
	GOOS=linux   GOARCH=arm64 CGO_ENABLED=0 go build ./...

generate: ## make docs/causes.md, docs/metrics.md, rules, dashboards and manifests anew from their tables and the chart
	go generate ./internal/inquest/... ./internal/sink/... ./internal/mixin
	go -C test/chart generate

test-cluster: ## the agent in a real Kubernetes of one node (as root; the first build takes minutes)
	go run ./test/run -only cluster $(ARGS)

privileges: ## measure the tables of docs/privileges.md anew (as root)
	go test -count=1 -timeout 30m ./test/privileges -run '^TestTable$$' -update
	go test -count=1 -timeout 30m ./test/image -run '^TestContainer$$' -update

generate-bpf: ## compile the programs for the kernel (needs clang and libbpf-dev)
	go generate ./internal/source/tracepoint

clean: ## remove what was built and kept
	rm -rf bin $(CURDIR)/.cache

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
