# Everything a newcomer needs: `make demo` shows Loom at work, `make test` runs the tests.
# Both do all their own set-up inside this checkout.

CARGO ?= cargo

.PHONY: help build demo image test test-long bench bench-log bench-life bench-process bench-signal bench-dev bench-chain bench-fleet bench-docker bench-scheduler lint doc clean-setup nats-server

help:            ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

nats-server:     ## fetch the pinned nats-server into .loom/bin
	@scripts/nats-server.sh

build: nats-server ## build loomctl, and the shim beside it
	$(CARGO) build --locked --package loom-cli --package loom-task --bins

demo:            ## start a cluster, run a job, signal a task, stop, leave nothing behind
	@scripts/demo.sh

image:           ## build the image that docker-compose.yml runs
	@scripts/image.sh

test:            ## set up what the tests need and run all of them
	@scripts/test.sh

test-long:       ## the tests that take long: leader kills, long histories
	@LOOM_LONG=1 scripts/test.sh

bench: nats-server ## measure: every figure with its ratio to the raw thing
	@scripts/bench.sh

bench-log bench-life bench-process bench-signal bench-dev bench-chain bench-fleet bench-docker bench-scheduler: bench-%: nats-server
	@scripts/bench.sh $*

lint:            ## formatting, clippy, documentation, as CI does
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

clean-setup:     ## remove what the set-up fetched
	rm -rf .loom
