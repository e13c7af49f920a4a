# make up      build, start a cluster, run examples/hello in it
# make test    everything CI runs
# make test-vm end-to-end tests on another kernel, in a virtual machine
# make bench   measure (test/bench)
# make down    remove the cluster without a trace

SHELL := /bin/bash
.DEFAULT_GOAL := build

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The time of the commit, in UTC, so that the same sources make the same binary.
DATE    ?= $(shell TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo 1970-01-01T00:00:00Z)
LDFLAGS := -s -w $(foreach v,Release=$(VERSION) Commit=$(COMMIT) Date=$(DATE),-X github.com/proa-k8s/proa/internal/cluster.$(v))

GOFILES := $(shell git ls-files -co --exclude-standard '*.go' 2>/dev/null) go.mod go.sum

# Packages where goroutines share: their tests run with the race detector. Left out are those that run containerd in the
# test's process, which has races of its own (two StopContainer of one container).
RACE = ./internal/store/... ./internal/client/... ./internal/controller/... ./internal/scheduler/... \
       ./internal/apiserver/auth/... ./internal/network/... \
       $$($(GO) list ./internal/kubelet/... | grep -v -e '/kubelet$$' -e '/kubelet/server$$')

include hack/helpers.mk
include hack/openapi.mk
include hack/vm.mk

.PHONY: build
build: bin/proa

bin/proa: build/.deps $(HELPERS) $(OPENAPI) $(GOFILES)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o build/proa ./cmd/proa
	@# Written in single pages: from 6.18 on, Linux maps all of the cache's folio that a page is in, and the folios of
	@# a file that was written in large pieces are large, which makes an idle cluster look 60 MB bigger.
	@mkdir -p bin && rm -f $@ && dd if=build/proa of=$@ bs=4096 status=none && chmod +x $@ && rm build/proa

# What the build and the tests need beside Go. Installed once, and only what is missing.
DEBIAN := gcc libc6-dev libseccomp-dev pkg-config busybox-static nftables iproute2 curl ca-certificates
build/.deps: Makefile
	@mkdir -p build
	@missing=$$(for p in $(DEBIAN); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing $$missing"; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; fi
	@touch $@

.PHONY: images
images: build/images/hello.tar
build/images/hello.tar: build/.deps $(wildcard test/images/*.go test/images/*/*.go)
	$(GO) run ./test/images -o build/images hello

.PHONY: up
up: bin/proa images
	@hack/up.sh

.PHONY: down
down:
	@if [ -x bin/proa ]; then bin/proa down; fi

.PHONY: lint
lint: $(HELPERS) $(OPENAPI)
	@unformatted=$$(gofmt -l cmd internal test hack); if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: unit
unit: $(HELPERS) $(OPENAPI) build/.deps
	$(GO) test $$($(GO) list ./... | grep -v /test/e2e)
	$(GO) test -race $(RACE)

.PHONY: e2e
e2e: bin/proa
	$(GO) run ./test/images -o build/images
	@# Most of a test is waiting, so more run at a time than there are processors.
	$(GO) test -count=1 -parallel 6 -timeout 20m ./test/e2e/...

.PHONY: test
test: build lint unit e2e

.PHONY: bench
bench: bin/proa images
	$(GO) run ./test/bench $(BENCHFLAGS)

.PHONY: clean
clean:
	rm -rf bin build
