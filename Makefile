# make run    build, set up ./data if it is not there, serve on 127.0.0.1:8080
# make test   every test; brings the Nix clients that some of them need
# make bench  the benchmarks, side by side with nginx
# The others: build lint race fuzz e2e e2e-smoke clean.

GO        ?= go
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CACHE     := $(CURDIR)/.cache
FUZZTIME  ?= 30s

GOLANGCI_VERSION := v2.12.2
GOLANGCI         ?= $(CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION)

# One static binary, the same with and without a C compiler.
export CGO_ENABLED ?= 0
export GOFLAGS := $(GOFLAGS) -buildvcs=false
export NARWHARF_NIX_DIR ?= $(CACHE)/nix
export NARWHARF_BIN ?= $(CURDIR)/bin/narwharf

.PHONY: build run test bench e2e e2e-smoke nix-clients lint race fuzz clean

build:
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/narwharf ./cmd/narwharf

run: build
	@[ -e data/config.toml ] || bin/narwharf init ./data
	@exec bin/narwharf serve --config data/config.toml

test: build nix-clients
	@.ci/gotest -count=1 -timeout 60m ./...

# The stock Nix of three Debian suites, unpacked below .cache; nothing is
# installed for them and /nix is not touched.
nix-clients:
	@.ci/nix-clients

bench: build nix-clients
	$(GO) run ./bench $(BENCH)

e2e: build nix-clients
	@NARWHARF_FLEET=1 .ci/gotest -count=1 -timeout 60m ./e2e/...

e2e-smoke: build nix-clients
	@NARWHARF_FLEET=1 .ci/gotest -count=1 -short -timeout 20m ./e2e/...

# With a cache of its own: what it remembers of another clone has that one's paths,
# and fails once that is gone.
lint: $(GOLANGCI)
	GOLANGCI_LINT_CACHE=$(CACHE)/lint $(GOLANGCI) run ./...
	shellcheck -x -S warning -e SC1007,SC2154 $$(grep -rlE '^#!.*sh$$' .ci e2e)
	$(GO) test -count=1 .

$(CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION):
	mkdir -p $(CACHE)/tools/new
	GOBIN=$(CACHE)/tools/new $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(CACHE)/tools/new/golangci-lint $@

# The binary is checked by e2e-smoke: NARWHARF_BIN=bin/narwharf-race.
race:
	CGO_ENABLED=1 $(GO) build -race -o bin/narwharf-race ./cmd/narwharf
	@CGO_ENABLED=1 .ci/gotest -count=1 -race -short -timeout 20m $$($(GO) list ./... | grep -v /e2e$$)

fuzz:
	@.ci/fuzz $(FUZZTIME)

clean:
	rm -rf bin
