# `make` lists the targets. Every target can be run on a clean checkout and again at any time.
.DEFAULT_GOAL := help
.PHONY: help setup build demo test compat chaos notify year bench prices walk attack up down fmt clean

# Passed on to the command of `make demo`, `make chaos`, `make notify`, `make year`, `make bench` and `make walk`, e.g. ARGS=--headless.
ARGS ?=
# What is measured; `release` builds faster and checks its invariants while it runs.
BENCH_PROFILE ?= dist

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Check prerequisites; fetch Kafka and the embedded ClickHouse into .cache (240 MB, once)
	@scripts/setup

build: setup ## Build the program, the demo and the development stack
	@cargo build --release -p spendfuse -p spendfuse-demo -p spendfuse-devstack
	@target/release/spendfuse-devstack prepare

demo: build ## Real Kafka, real ClickHouse, real traffic, live on screen (ARGS=--headless for JSON)
	@target/release/spendfuse demo $(ARGS)

test: setup ## Format, lints and all tests, against the real parts
	@scripts/test

compat: ## The SDKs with older versions of the providers' packages
	@for sdk in sdk/*/scripts/compat; do echo "== $$sdk"; $$sdk || exit 1; done

chaos: setup ## Faults at random for 7 minutes, then exact checks (ARGS="--seed 7 --nodes 3", ARGS=--variants)
	@scripts/chaos $(ARGS)

notify: setup ## 10,000 alerts to places that fail, notifier and broker killed (ARGS="--alerts 1000 --seed 7", ARGS=--variants)
	@scripts/notify $(ARGS)

year: ## Simulated years of an installation, the books compared daily (ARGS="--seeds 20 --days 365 --seed 1", ARGS=--variants)
	@scripts/year $(ARGS)

bench: setup ## Measure next to limits and peers: a table of ratios (ARGS="--only guard --quick")
	@cargo build --profile $(BENCH_PROFILE) -p spendfuse -p spendfuse-devstack -p spendfuse-benches
	@target/$(BENCH_PROFILE)/ratios $(ARGS)

prices: ## Calls priced next to LiteLLM and genai-prices, each difference explained (ARGS="--report FILE")
	@scripts/prices $(ARGS)

walk: setup ## README's first screens and the wrong turns as printed, every answer compared
	@scripts/walk $(ARGS)

attack: setup ## A hostile program against a sidecar, and what honest callers see (ARGS="--slow 2000")
	@scripts/attack $(ARGS)

up: build ## Start the development stack and all roles; addresses go to .devstack/env
	@scripts/up

down: ## Stop what `make up` started; data stays in .devstack
	@scripts/down

fmt: ## Format the code
	@cargo fmt --all

clean: down ## Remove build results and the development stack's data, not what was fetched
	@cargo clean
	@rm -rf .devstack
