#!/usr/bin/env bash
# Sets up what the tests need and runs all of them. LOOM_LONG=1 adds the long ones.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "test: cargo is needed (see rust-toolchain.toml for the version)" >&2; exit 1; }
scripts/nats-server.sh

# The go operator is tested with a real go; nothing is installed system-wide unless CI asks for it.
if ! command -v go >/dev/null && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "test: installing golang-go (CI=true) for the tests of the go operator"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go >/dev/null \
    || echo "test: golang-go could not be installed; the tests of the go operator are skipped" >&2
fi
command -v go >/dev/null || echo "test: no go here; the tests of the go operator are skipped"

# Tests of the program itself start this binary.
cargo build --locked --package loom-cli --package loom-task
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace --config-file .ci/nextest.toml
  exec cargo test --locked --workspace --doc
fi
exec cargo test --locked --workspace --no-fail-fast
