#!/usr/bin/env bash
# Loom at work: a cluster on this machine, a service, a batch job, a signal; leaves nothing behind.
# LOOMCTL=PATH shows that program; without it one is built.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/nats-server.sh
if [ -z "${LOOMCTL:-}" ]; then
  command -v cargo >/dev/null || { echo "demo: cargo is needed (see rust-toolchain.toml for the version)" >&2; exit 1; }
  echo "demo: building loomctl (the first time takes some minutes)"
  cargo build --locked --quiet --package loom-cli --package loom-task --bins
  LOOMCTL=${CARGO_TARGET_DIR:-target}/debug/loomctl
fi
PATH="$(cd "$(dirname "$LOOMCTL")" && pwd):$PATH"

work=$(mktemp -d)
dev=
leave() {
  if [ -n "$dev" ] && kill -0 "$dev" 2>/dev/null; then
    kill -INT "$dev"
    wait "$dev" || true
  fi
  if [ -n "$made_image" ]; then
    scripts/docker.sh down
  fi
  rm -rf "$work"
}
trap leave EXIT

# The image of the container that is shown: made from Debian's static busybox, nothing is pulled.
made_image=
image_is_there() {
  docker image inspect loom-test/busybox:1 >/dev/null 2>&1 && return 0
  scripts/docker.sh up
  docker image inspect loom-test/busybox:1 >/dev/null 2>&1 && made_image=yes
}

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
try() { printf '\033[1m$ %s\033[0m\n' "$*"; "$@"; }

# Every process whose command line names a path, as the kernel lists them.
processes_of() {
  local process words
  for process in /proc/[0-9]*; do
    { mapfile -d '' -t words <"$process/cmdline"; } 2>/dev/null || continue
    case "${words[*]}" in
      *"$1"*) echo "${process#/proc/} ${words[*]}" ;;
    esac
  done
}

say "A whole cluster in one process: bus, manager, node"
printf '\033[1m$ loomctl dev\033[0m\n'
loomctl dev --listen 127.0.0.1:0 --data-dir "$work/data" --ready-file "$work/ready" 2>"$work/dev.log" &
dev=$!
for _ in $(seq 600); do
  [ -s "$work/ready" ] && break
  kill -0 "$dev" 2>/dev/null || { cat "$work/dev.log" >&2; dev=; exit 1; }
  sleep 0.1
done
[ -s "$work/ready" ] || { echo "demo: loomctl dev was not ready within a minute" >&2; cat "$work/dev.log" >&2; exit 1; }
cat "$work/dev.log"
LOOM_BUS=$(sed -E 's/.*"bus":"([^"]+)".*/\1/' "$work/ready")
export LOOM_BUS

say "A job: run it and follow it until it runs"
try loomctl run examples/web.yaml
try loomctl status web

say "Every running task is an address: a signal goes straight to it"
try loomctl signal web/0 HUP
try loomctl pause web/1
try loomctl status web
try loomctl resume web/1
try loomctl logs web --tail 8

say "A batch job, streamed, with its own exit code"
try loomctl run --once examples/hello.yaml

if docker version >/dev/null 2>&1 && image_is_there; then
  say "A container with a published port and a health check, from the same kind of file"
  printf '%s\n' \
    'name: page' \
    'image: loom-test/busybox:1' \
    'command: [sh, -c, "echo hello from a container >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"]' \
    'ports: {http: 8080}' \
    'health: {http: /, interval: 1s}' >"$work/page.yaml"
  try cat "$work/page.yaml"
  try loomctl run "$work/page.yaml"
  try loomctl status page/0
  try loomctl stats page
  try loomctl stop page
else
  say "Containers are not shown: no Docker Engine answers here, or no image of busybox can be made"
fi

say "What happened, from the history"
try loomctl events web

say "Stop"
try loomctl stop web --reason "end of the demo"
try loomctl status
kill -INT "$dev"
wait "$dev" && dev=
left=$(processes_of "$work/data")
if [ -n "$left" ]; then
  printf 'demo: something was left behind:\n%s\n' "$left" >&2
  exit 1
fi
say "Stopped, and nothing was left behind. Next: README.md, docs/jobs.md, docs/bus.md"
