# Keywright's house-keeping. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Every tool, with its version, in one place; each runs from source through the
# Go module proxy. The plugins of buf stand in proto/buf.gen.yaml.
BUF          := go run github.com/bufbuild/buf/cmd/buf@v1.75.0
GOLANGCI     := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
STATICCHECK  := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK  := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
LDFLAGS := -s -w -X main.version=$(VERSION)

# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 20s
# Where `make run` keeps its token and its data.
DEV_DIR ?= .keywright

.PHONY: help
help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: softhsm build ## install SoftHSM2 if it is missing, then serve from .keywright on loopback
	bin/keywrightd dev --dir $(DEV_DIR)

.PHONY: demo
demo: softhsm python build ## do the main job on real input against a real server and token
	bash bench/demo/demo.sh

.PHONY: build
build: ## build bin/keywright (without cgo) and bin/keywrightd
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/keywright ./cmd/keywright
	CGO_ENABLED=1 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/keywrightd ./cmd/keywrightd

.PHONY: test
test: softhsm nss python ## run all tests under the race detector (some 20 minutes on 2 cores)
	@.ci/test
	cd kms/audit/publish/interop && go test ./...
	cd keyring/transit/interop && go test ./...
	cd hsm/interop && go test -count=1 ./...
	cd bench/chart && go test ./...
	@# What the race detector makes meaningless: allocations, sizes, a million rounds.
	go test -run 'Allocations|MemorySize|XAESAccumulated|FloodOfTampered' ./hsm ./keyring ./keyring/transit ./kms ./kms/audit ./kms/policy

.PHONY: hsm-all
hsm-all: softhsm build ## run the HSM suite on all kinds of devices, and print what each can do
	@.ci/devices bin/keywrightd

.PHONY: check
check: generated format tidy layers vet lint staticcheck vulnerabilities guard test ## check everything that CI checks, tests included

.PHONY: compat
compat: softhsm ## try the Kubernetes sockets and the Vault surface with their clients' own code (4 minutes)
	cd server/kube/interop && go test -count=1 -parallel 3 -timeout 15m ./...
	@# What needs a whole OpenBao compiles also where there is none.
	cd server/vault/interop && go vet -tags bao ./...
	cd server/vault/interop && go test $(if $(KEYWRIGHT_COMPAT_BAO),-tags bao )-count=1 -parallel 3 -timeout 15m ./...

.PHONY: compat-table
compat-table: ## write the table of docs/vault.md anew from the tests' rows
	cd server/vault/interop && go test -count=1 -run TestTableInDocs -update .

.PHONY: faults
faults: softhsm ## make the HSM fail in every way, and print what was observed of each fault
	@.ci/faults

.PHONY: fuzz
fuzz: softhsm ## run every fuzz target for FUZZTIME (20s)
	@.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: softhsm ## measure against floors in the same run, print the report, and draw the curves
	go run ./bench
	cd bench/chart && go run . ../out

.PHONY: guard
guard: softhsm ## fail if the hot path allocates more, or takes longer, than its baseline
	go run ./bench guard

.PHONY: generate
generate: ## make the Go and OpenAPI files anew from proto
	cd proto && $(BUF) generate

# The parts of check, each of which can run alone.
.PHONY: generated format tidy layers vet lint staticcheck vulnerabilities softhsm nss python

generated:
	@$(BUF) lint proto
	@.ci/generated $(BUF)
	@# The table of docs/vault.md is the rows of a test.
	cd server/vault/interop && go test -run 'TestTableInDocs|TestRowsAreWhole' .

format:
	@files=$$(gofmt -l $$(find . -name '*.go' -not -path './.*')); \
	[ -z "$$files" ] || { echo "gofmt would change:"; echo "$$files"; exit 1; }

tidy:
	go mod tidy -diff

layers:
	@.ci/layers

vet:
	go vet ./...

lint:
	$(GOLANGCI) run ./...

staticcheck:
	$(STATICCHECK) ./...

vulnerabilities:
	@.ci/vulnerabilities $(GOVULNCHECK)

softhsm:
	@.ci/softhsm

nss:
	@.ci/nss

python:
	@.ci/python
