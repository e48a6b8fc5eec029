#!/usr/bin/env bash
# Sets up what the tests need and runs all of them. LOOM_LONG=1 adds the long ones.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "test: cargo is needed (see rust-toolchain.toml for the version)" >&2; exit 1; }
scripts/nats-server.sh
scripts/docker.sh up
# What was skipped, and why, is said last, whatever came before.
export LOOM_SKIPPED="$PWD/.loom/skipped"
rm -f "$LOOM_SKIPPED"
finish() {
  if [ -s "$LOOM_SKIPPED" ]; then sort -u "$LOOM_SKIPPED" >&2; fi
  scripts/docker.sh down
}
trap finish EXIT

if [ -z "${LOOM_LONG:-}" ]; then
  # The same cases each time: what fails here is of the change, not of the day.
  export LOOM_SEED="${LOOM_SEED:-1}" PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
fi

# Tests of the program itself start this binary.
cargo build --locked --package loom-cli --package loom-task --bins
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace --lib --bins --test it --config-file .ci/nextest.toml
  # Has a main of its own: it kills itself.
  cargo test --locked --package loom-bus --test parent_death
  cargo test --locked --workspace --doc
  exit
fi
cargo test --locked --workspace --no-fail-fast
