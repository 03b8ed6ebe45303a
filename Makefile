# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME ?= 3s
KEYS ?= file
TESTBED = $(CURDIR)/bin/testbed
VERSION ?= dev

.PHONY: build demo drill identity test test-short lint fuzz race bench vuln testbed clean

build:
	go build -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/provost ./cmd/provostd

demo: build
	@$(MAKE) --no-print-directory -C deploy/testbed cyclonedx-gomod $(if $(filter vault,$(KEYS)),vault) OUT=$(TESTBED)
	@go build -o bin/testbed/ ./deploy/testbed/vaultup
	@sh deploy/demo.sh $(KEYS)

# A key leaks; what it signed since is taken back; cosign refuses exactly that.
drill: build
	@$(MAKE) --no-print-directory -C deploy/testbed cosign $(if $(filter vault,$(KEYS)),vault) OUT=$(TESTBED)
	@go build -o bin/testbed/ ./deploy/testbed/vaultup
	@sh deploy/drill.sh $(KEYS)

# A job of every provider, and where each field of its provenance comes from.
identity: build
	@sh deploy/identity.sh

test: lint testbed
	go test -count=1 -timeout 20m ./...
	$(MAKE) fuzz
	$(MAKE) demo
	$(MAKE) demo KEYS=vault
	$(MAKE) identity
	$(MAKE) drill

test-short: lint
	go test -short ./...

lint:
	@test -z "$$(gofmt -l attest verify keys store api cmd deploy)" || { gofmt -l attest verify keys store api cmd deploy; echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

# What tests run against: a real Vault, cosign and cyclonedx-gomod.
testbed:
	$(MAKE) -C deploy/testbed all OUT=$(TESTBED)

fuzz:
	@grep -rl '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
	  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file" | while read -r name; do \
	    go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$(dirname "$$file")" </dev/null || exit 1; \
	  done || exit 1; done

race:
	go test -race -short ./...

bench: build testbed
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./api ./cmd ./keys ./store

vuln:
	go run $(GOVULNCHECK) ./...

clean:
	rm -rf bin
