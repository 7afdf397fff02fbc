# Every task of this repository. `make` alone lists them.
# Nothing here sets CARGO_TARGET_DIR: where cargo builds is yours to choose.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := list

.PHONY: list run cluster test check lint doc fmt deny bench k6 soak setup

list: ## lists the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: ## builds a quick binary, starts tyr beside mock-llm without any API key, prints what to try
	@exec scripts/run

cluster: ## starts Postgres, three nodes on 127.0.0.1 to 127.0.0.3 and mock-llm; prints how to see one limit shared by them
	@exec scripts/cluster

test: ## installs what is missing and runs every test, the socket tests against the release binaries
	@exec scripts/test

check: fmt-check lint doc ## formatting, clippy and documentation, all without a warning

fmt: ## formats the Rust code
	cargo fmt --all

.PHONY: fmt-check
fmt-check:
	@echo "==> formatting"
	cargo fmt --all --check

lint: setup ## clippy with warnings as errors
	@echo "==> clippy"
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: setup ## documentation with warnings as errors
	@echo "==> documentation"
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

deny: ## licences, sources, duplicates and advisories of the dependencies (installs cargo-deny when missing)
	@exec scripts/deny

bench: ## CPU time per request against nginx and a bare Pingora, interleaved (loadtest/README.md)
	@exec scripts/bench

k6: ## load scenarios that fail on a broken promise (loadtest/README.md)
	@exec scripts/k6

soak: ## the tests of outages and fleets at full length, hours (result: loadtest/results/soak.md)
	@exec scripts/soak

setup: ## installs what a build needs and a Rust toolchain lacks
	@scripts/setup-build
