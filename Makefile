# make help says what there is to make.

GO        ?= go
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CACHE     := $(CURDIR)/.cache
FUZZTIME  ?= 30s

GOLANGCI_VERSION := v2.12.2
GOLANGCI         ?= $(CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION)

VERSITYGW_VERSION := v1.8.0
VERSITYGW         := $(CACHE)/tools/versitygw-$(VERSITYGW_VERSION)

# One static binary, the same with and without a C compiler.
export CGO_ENABLED ?= 0
export GOFLAGS := $(GOFLAGS) -buildvcs=false
export NARWHARF_NIX_DIR ?= $(CACHE)/nix
export NARWHARF_BIN ?= $(CURDIR)/bin/narwharf

.PHONY: build cross run demo test test-quick bench e2e e2e-scale e2e-smoke screenshots nix-clients versitygw lint lint-ci race release release-again vendored fuzz rollout-model nixos-keys nixos-eval vendor-hash clean help

build: ## bin/narwharf alone
	@echo "compiling bin/narwharf; from nothing this takes a minute or two"
	@$(GO) build -v -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/narwharf ./cmd/narwharf

run: build ## build, set up ./data if it is not there, serve on 127.0.0.1:8080
	@[ -e data/config.toml ] || bin/narwharf init ./data
	@exec bin/narwharf serve --config data/config.toml

demo: build ## a server with 200 simulated hosts whose roll-outs go well and badly, to look at
	@$(GO) build -o bin/demo ./bench/demo
	@exec bin/demo $(DEMO)

test: build nix-clients versitygw ## every test, also with real Nix, which it brings; some 10 minutes
	@.ci/gotest -count=1 -timeout 60m ./...

# As go test does, it leaves out packages that nothing has changed for.
test-quick: ## what needs no Nix, with fewer repetitions: the first time some 5 minutes
	@NARWHARF_NIX_DIR=/nonexistent LIST_SKIPPED=no .ci/gotest -short $$($(GO) list ./... | grep -v -e /e2e -e /bench)

# The stock Nix of three Debian suites, unpacked below .cache; nothing is
# installed for them and /nix is not touched.
nix-clients: ## the Nix clients that tests and benchmarks use
	@.ci/nix-clients

bench: build nix-clients ## the benchmarks, side by side with nginx
	$(GO) run ./bench $(BENCH)

e2e: build nix-clients versitygw ## deployments on real hosts, which it boots here: as root, on Debian
	@NARWHARF_FLEET=1 .ci/gotest -count=1 -timeout 60m ./e2e/...
	@echo "once more, in short, with limits.fast_path = false"
	@NARWHARF_FAST_PATH=false NARWHARF_FLEET=1 .ci/gotest -count=1 -short -timeout 20m ./cache ./e2e/...

e2e-scale: build versitygw ## servers with one database and one bucket, and every fault that may befall them
	@NARWHARF_SCALE=1 .ci/gotest -count=1 -timeout 60m -run 'TestFaults|TestMigrate|TestReplica|TestDatabase|TestBucket' ./e2e

e2e-smoke: build nix-clients versitygw ## every kind of them once, with small sizes
	@NARWHARF_FLEET=1 .ci/gotest -count=1 -short -timeout 20m ./e2e/...

# What they show, people have to look at; docs/ui.md has words to each.
screenshots: build ## the pictures of docs/ui.md, of a demo in a browser
	$(GO) test -count=1 -timeout 20m -v -run TestScreenshots ./e2e -screenshots $(CURDIR)/docs/ui

# With a cache of its own: what it remembers of another clone has that one's paths,
# and fails once that is gone.
lint: $(GOLANGCI) ## golangci-lint, shellcheck, and the layout of packages
	GOLANGCI_LINT_CACHE=$(CACHE)/lint $(GOLANGCI) run ./...
	shellcheck -x -S warning -e SC1007,SC2154 $$(grep -rlE '^#!.*sh$$' .ci e2e)
	$(GO) test -count=1 .

versitygw: $(VERSITYGW) ## the S3 server that tests use, compiled here

$(VERSITYGW):
	@echo "compiling versitygw; from nothing this takes some minutes"
	mkdir -p $(CACHE)/tools/new
	GOFLAGS= GOBIN=$(CACHE)/tools/new $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)
	mv $(CACHE)/tools/new/versitygw $@

lint-ci: ## docs/ci: shellcheck, actionlint, the schemas of GitLab and Buildkite
	@.ci/forges

cross: ## compile for other machines: Linux on ARM, and the command line on macOS
	@for t in linux/arm64 darwin/amd64 darwin/arm64; do echo "compiling for $$t"; \
	  CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -o /dev/null ./cmd/narwharf || exit 1; done

$(CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION):
	mkdir -p $(CACHE)/tools/new
	GOBIN=$(CACHE)/tools/new $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(CACHE)/tools/new/golangci-lint $@

# The binary is checked by e2e-smoke: NARWHARF_BIN=bin/narwharf-race.
race: ## the short tests with the race detector, and bin/narwharf-race
	CGO_ENABLED=1 $(GO) build -race -o bin/narwharf-race ./cmd/narwharf
	@CGO_ENABLED=1 .ci/gotest -count=1 -race -short -timeout 20m $$($(GO) list ./... | grep -v /e2e$$)

# 20,000,000 steps, and faults that tests have to catch. `make test` has 1,000,000 of
# them, the same each time, and then new ones for 40 seconds; -args -trace tells of a world that fails.
rollout-model: ## the roll-out engine against its model, long
	@NARWHARF_MUTATIONS=1 .ci/gotest -count=1 -timeout 60m ./hooks/rollout/engine -args -shards=2600

fuzz: ## every fuzz target for FUZZTIME (30s)
	@.ci/fuzz $(FUZZTIME)

release: ## binaries, OCI image, SBOM and checksums of VERSION in dist/
	@.ci/release "$(VERSION)" dist
	@.ci/release-check "$(VERSION)" dist

release-again: ## the same release once more, elsewhere and from nothing, compared byte by byte
	@.ci/release-again "$(VERSION)" dist

vendored: ## build as nixpkgs' buildGoModule does, and what the package installs
	@.ci/vendored

nixos-keys: ## write the keys of configurations for the NixOS modules
	$(GO) test -count=1 -run TestKeys ./nixos/tests -write

# What Nix makes of the modules, with each Nix that nixpkgs takes; some minutes. NIXPKGS is a whole nixpkgs, or
# one that lacks its largest generated files. Nothing is built and /nix is not touched.
nixos-eval: nix-clients ## evaluate the NixOS modules with the nixpkgs in NIXPKGS, and write what comes of it
	@[ -e "$(NIXPKGS)/nixos/lib/eval-config.nix" ] || { echo "make nixos-eval NIXPKGS=DIR, where DIR is a nixpkgs" >&2; exit 2; }
	$(GO) test -count=1 -timeout 60m -run TestEvaluate ./nixos/tests -nixpkgs $(abspath $(NIXPKGS)) -write

vendor-hash: ## write the hash of the dependencies to nixos/package.nix
	$(GO) test -count=1 -run TestVendorHash . -write-vendor-hash

clean: ## remove bin; rm -rf .cache removes what was fetched and built for tests
	rm -rf bin

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'
