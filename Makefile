# Needs Go and bash; everything else is installed or skipped with a reason by the scripts in .github/scripts.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

scripts := .github/scripts
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 20s
ENGINES ?= default current
export FUZZ FUZZTIME VERSION

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/agent-sandbox, with the guest inside it
	@$(scripts)/build

.PHONY: docker
docker: ## an engine that answers: the one that is there, else installed and started
	@$(scripts)/docker

.PHONY: image
image: docker ## the agent image, agent-sandbox:dev
	@$(scripts)/image

.PHONY: demo
demo: build image ## a scripted agent mends a real project: run, diff, apply
	@$(scripts)/demo

.PHONY: test
test: build ## all tests; without an engine the fast ones
	@$(scripts)/test fast default

.PHONY: test-engines
test-engines: build ## the tests that need an engine, on ENGINES: default, current
	@$(scripts)/test $(ENGINES)

.PHONY: verifiers
verifiers: ## cosign, gh, Fulcio, a timestamp authority and Rekor, against what we sign
	@$(scripts)/verifiers

.PHONY: images
images: build image ## the image with agents, built twice without a cache to the same digest; an altered one is told
	@$(scripts)/images

SOAK ?= 10m
.PHONY: soak
soak: build image ## 20,000 connections in sequence, and all kinds for SOAK, after which nothing may be left
	SOAK=$(SOAK) go test -tags docker -count=1 -timeout 24h -run 'TestNetwork(Load|Soak)$$' -v ./cmd/agent-sandbox

.PHONY: bench
bench: build image ## start-up, extraction, the network and the action, in tables
	@$(scripts)/bench
	@$(MAKE) --no-print-directory bench-network
	@$(MAKE) --no-print-directory bench-action

.PHONY: bench-action
bench-action: build image ## what the GitHub Action adds to a task, with act
	@$(scripts)/bench-action

.PHONY: bench-network
bench-network: build image ## the network of a run beside docker run's
	@$(scripts)/peers
	@$(scripts)/bench-network

.PHONY: fuzz
fuzz: ## every fuzz target, or those that FUZZ matches, for FUZZTIME
	@$(scripts)/fuzz

.PHONY: lint
lint: ## gofumpt, go vet, staticcheck, actionlint, go mod tidy
	@$(scripts)/lint

.PHONY: clean
clean: ## what was built in the tree; images and the cache stay
	rm -rf bin var runner/engine/embedded/*.gz
