#!/usr/bin/env bash
# Builds the image that docker-compose.yml runs: loomctl and nats-server on a base image.
#   LOOM_IMAGE    what it is called             (loom)
#   LOOM_BASE     the image below it            (debian:12-slim)
#   LOOM_LOOMCTL  a loomctl that is built already, with loom-shim beside it or without; else a
#                 release build is made
set -euo pipefail
cd "$(dirname "$0")/.."

image=${LOOM_IMAGE:-loom}
base=${LOOM_BASE:-debian:12-slim}
command -v docker >/dev/null || { echo "image: docker is needed (apt-get install docker.io)" >&2; exit 1; }
scripts/nats-server.sh
loomctl=${LOOM_LOOMCTL:-}
if [ -z "$loomctl" ]; then
  cargo build --locked --release --package loom-cli --package loom-task --bins
  loomctl=target/release/loomctl
fi

mkdir -p .loom
context=$(mktemp -d .loom/image.XXXXXX)
trap 'rm -rf "$context"' EXIT
cp "$loomctl" "$context/loomctl"
shim=$(dirname "$loomctl")/loom-shim
[ ! -x "$shim" ] || cp "$shim" "$context/loom-shim"
cp .loom/bin/nats-server "$context/nats-server"
strip --strip-debug "$context/loomctl" 2>/dev/null || true
docker build --quiet --build-arg "BASE=$base" --tag "$image" --file Dockerfile "$context" >/dev/null
# A base that is too old for the programs is found out here, not by three restarting containers.
docker run --rm --network none "$image" loomctl version
docker run --rm --network none "$image" nats-server --version
echo "image: $image is built on $base"
