# make demo    the whole story, on real systemd, git and OCI registry
# make test    every test; installs what it needs where it may
# make check   what CI runs: formatting, linters, generated files, race detector, tests
# make bench   the numbers of the design, measured here beside other programs
# make help    the rest

SHELL := /bin/bash
.DEFAULT_GOAL := build

CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/bin
# Versions of what is built through the Go module proxy, pinned.
REGISTRY_VERSION := v3.1.2
GOLANGCI_VERSION := v2.15.0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DATE := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null)
INFO := github.com/gpuaas/node-agent/internal/buildinfo
GOFLAGS_BUILD := -trimpath -ldflags "-s -w -X $(INFO).version=$(VERSION) -X $(INFO).date=$(DATE)"

export PATH := $(TOOLS):$(PATH)
export GPUAAS_TEST_REGISTRY := $(TOOLS)/registry

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: build
build: ## Build both binaries into bin/
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/ ./agent/cmd/gpuaas-node-agent ./signer/cmd/gpuaas-signer

# Not `go run`: it ends at SIGTERM without passing that on, and leaves what it runs behind.
.PHONY: demo
demo: build deps servers ## Play the main story; KEEP=1 leaves everything running
	go build -o $(CACHE)/demo ./test/demo
	$(CACHE)/demo $(if $(KEEP),-keep)

.PHONY: test
test: deps servers ## Run every test
	go test -timeout 20m ./...

# test/integration runs the binaries as they are built for users, so the detector
# would watch its helpers only.
.PHONY: test-race
test-race: deps servers ## Run the tests with the race detector
	go test -race -timeout 30m $$(go list ./... | grep -v '/test/integration')

.PHONY: static
static: format lint generated ## Check formatting, linters and generated files

.PHONY: check
check: static test test-race ## Everything that CI runs, but for the demo

.PHONY: bench
bench: build deps servers ## Measure the numbers of the design beside their peers
	go build -o $(CACHE)/bench ./test/bench
	$(CACHE)/bench $(BENCH)

.PHONY: format
format: ## Fail where gofmt would change a file
	@out="$$(gofmt -l agent signer schema internal test examples fleet-repo-template)"; \
	if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

.PHONY: lint
lint: $(TOOLS)/golangci-lint
	go vet ./...
	golangci-lint run ./...

.PHONY: generate
generate: ## Make JSON Schemas and command references anew
	go generate ./...

.PHONY: generated
generated: generate
	@out="$$(git status --porcelain -- schema docs fleet-repo-template)"; if [ -n "$$out" ]; then git diff -- schema docs fleet-repo-template; \
	echo "$$out"; echo "generated files are not up to date: commit what \`make generate\` made"; exit 1; fi

.PHONY: deps
deps: ## Install from Debian what tests and demo need; say what is missing where that is not allowed
	@scripts/deps

.PHONY: servers
servers: $(TOOLS)/registry-$(REGISTRY_VERSION)

# Each tool is a file with its version in the name, and a link without it.
$(TOOLS)/registry-$(REGISTRY_VERSION):
	scripts/tool registry $(REGISTRY_VERSION) github.com/distribution/distribution/v3/cmd/registry
$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION):
	scripts/tool golangci-lint $(GOLANGCI_VERSION) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/golangci-lint: $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist $(CACHE)
