# Where Go was unpacked by hand it often is in no PATH. With a SHELL of our own,
# make looks commands up in this PATH and not in the one it was called with.
SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin

# Else each program that is built with the race detector sleeps for a second when it ends.
export GORACE ?= atexit_sleep_ms=0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
SUITE ?= trixie

.PHONY: help build demo test fresh check test-long test-unit test-workers fuzz bench deb rpm image sbom vuln install clean need-go

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

build: need-go ## Build build/fpm-gate
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o build/fpm-gate ./cmd/fpm-gate

demo: need-go ## Compare real servers with and without the gate (75 seconds)
	@scripts/install-deps demo
	@$(MAKE) --no-print-directory build
	@build/fpm-gate demo

# Packages run in the order in which they are named: tests/ takes the longest. Its tests often wait, so there are two at
# once for each core. What go vet finds, check has found: with the flags of the tests, so that packages compile once.
test: need-go ## Check and test everything, with all real servers
	@scripts/install-deps test
	@$(MAKE) --no-print-directory check RACE=-race
	go test -race -vet=off -count=1 -timeout 60m -parallel $$((2 * $$(nproc))) ./tests/... ./...

test-workers: need-go ## Test what looks at the workers of the PHP-FPM that is installed; takes root
	@scripts/install-deps test-workers
	go test -count=1 ./phpworker
	go test -count=1 -v ./tests \
		-run 'WorkersSession|WorkerMayDie|AnotherConnection|ChangeIsAwaited|EndedAsBy|DeafScript|Understood|UnknownVersion|AnUpgradeWhile'

fresh: need-go ## Run demo and test, or TARGETS, in a new, bare Debian SUITE (trixie), bookworm or bullseye; takes root
	@scripts/fresh $(SUITE) $(TARGETS)

check: need-go ## Check the format, go vet and staticcheck
	@unformatted=$$(gofmt -l .) && if [[ $$unformatted ]]; then echo "gofmt these:" $$unformatted; exit 1; fi
	go vet $(RACE) ./...
	GOFLAGS="$$(go env GOFLAGS) $(RACE)" $$(CGO_ENABLED=0 go tool -n staticcheck) ./...

test-long: need-go ## Count under faults, and end scripts under load, for longer; writes docs/RELIABILITY.md
	@scripts/install-deps test
	FPM_GATE_LONG=1 go test -count=1 -timeout 30m -run 'TestNoUpdateIsLostInAFleet|TestNoOtherVisitorIsEverEnded' -v ./tests

test-unit: need-go ## Test the packages that need no real server
	go test -race -count=1 $$(go list ./... | grep -Ev '/(tests|internal)(/|$$)')

fuzz: need-go ## Run each fuzz target for FUZZTIME (30s)
	@scripts/fuzz $(FUZZTIME)

bench: need-go ## Measure the gate against plain nginx and PHP-FPM
	@scripts/install-deps bench
	go run ./internal/bench

deb: need-go ## Build the .deb into build/
	packaging/build build deb

rpm: need-go ## Build the .rpm into build/
	packaging/build build rpm

image: need-go ## Build the container image into build/, as an OCI archive
	packaging/image/build build

sbom: need-go ## List what is in the program, as build/fpm-gate.cdx.json (CycloneDX)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o build/sbom/fpm-gate ./cmd/fpm-gate
	go -C packaging tool cyclonedx-gomod bin -json -std -noserial -notimestamp -version $(VERSION) \
		-output ../build/fpm-gate.cdx.json ../build/sbom/fpm-gate

vuln: need-go ## Look for known vulnerabilities in what the gate calls; takes access to vuln.go.dev
	go -C packaging build -o ../build/govulncheck golang.org/x/vuln/cmd/govulncheck
	build/govulncheck ./...

install: build ## Install below PREFIX (/usr/local), with units, pages and completions
	packaging/install

clean: ## Remove what was built
	rm -rf build

need-go:
	@command -v go >/dev/null || { echo "Go is neither in PATH nor in /usr/local/go/bin; see https://go.dev/dl/" >&2; exit 1; }
