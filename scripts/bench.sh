#!/usr/bin/env bash
# Measures: every figure as a median with spread and its ratio to the raw thing in the same run.
# One part: scripts/bench.sh log|life|process|signal|dev|chain|fleet|docker|scheduler
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/nats-server.sh
trap "scripts/docker.sh down" EXIT
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(log life process signal dev chain fleet docker scheduler)
cargo build --locked --release --quiet --package loom-cli --package loom-task --package loom-tests --bins
for part in "${parts[@]}"; do
  case "$part" in
    scheduler) cargo run --locked --release --quiet --package loom-manager --example bench_scheduler ;;
    log) cargo run --locked --release --quiet --package loom-bus --example bench_log ;;
    life) cargo run --locked --release --quiet --package loom-manager --example bench_life ;;
    process | signal | dev | chain | fleet) target/release/bench "$part" ;;
    docker)
      scripts/docker.sh up
      for network in none bridge; do target/release/bench_docker "$network"; done
      ;;
    *) echo "bench: no part called $part; there are log, life, process, signal, dev, chain, fleet, docker, scheduler" >&2; exit 64 ;;
  esac
done
