#!/usr/bin/env bash
# What the tests with containers need: a Docker Engine, the image loom-test/busybox:1, and the program
# docker-registry. `up` gets them, `down` takes away what `up` brought; both may be repeated.
# Where there is no engine and none can be had, it says so and the tests with containers are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

state=.loom/docker
image=loom-test/busybox:1

say() { echo "docker: $*" >&2; }
engine_runs() { command -v docker >/dev/null && docker version >/dev/null 2>&1; }
is_debian() { command -v apt-get >/dev/null && command -v dpkg >/dev/null; }

# A Debian package, unpacked below .loom and not installed.
unpacked() { # package, file in it
  local package=$1 file=.loom/packages/$1$2
  if [ ! -x "$file" ]; then
    is_debian || { say "$package is needed (Debian's package of that name)"; return 1; }
    say "fetching Debian's package $package into .loom/packages"
    mkdir -p .loom/packages
    (cd .loom/packages && { apt-get download -qq "$package" 2>/dev/null ||
      { apt-get update -qq && apt-get download -qq "$package"; }; } &&
      dpkg -x "$package"_*.deb "$package" && rm -f "$package"_*.deb) || return 1
  fi
  echo "$file"
}

start_engine() {
  if [ -n "${LOOM_NO_DOCKER:-}" ]; then
    say "SKIPPED: LOOM_NO_DOCKER is set"
    return 1
  fi
  if [ "$(id -u)" != 0 ] || ! is_debian; then
    say "SKIPPED: no Docker Engine runs; as root on Debian this script would install and start one"
    return 1
  fi
  if ! command -v dockerd >/dev/null; then
    say "no Docker Engine is installed: running apt-get install docker.io docker-compose"
    apt-get update -qq
    # From Debian 13 on the command `docker` is in a package of its own.
    local client=
    apt-cache show docker-cli >/dev/null 2>&1 && client=docker-cli
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      docker.io $client docker-compose iptables >/dev/null || { say "SKIPPED: apt-get could not install docker.io"; return 1; }
  fi
  engine_runs && return 0
  say "no Docker Engine runs: starting dockerd --live-restore with its data in $state"
  mkdir -p "$state"
  dockerd --live-restore --data-root "$PWD/$state/data" --exec-root "$PWD/$state/exec" \
    --pidfile "$PWD/$state/engine.pid" >"$state/dockerd.log" 2>&1 &
  echo $! >"$state/pid"
  for _ in $(seq 150); do
    engine_runs && return 0
    kill -0 "$(cat "$state/pid")" 2>/dev/null || break
    sleep 0.2
  done
  say "SKIPPED: dockerd does not start here; the last it said:"
  tail -3 "$state/dockerd.log" >&2 || true
  stop_engine
  return 1
}

# The engine that was started here is for the tests alone: every container on it is theirs. With
# --live-restore they would outlive it, and hold its folders.
stop_engine() {
  [ -f "$state/pid" ] || return 0
  local pid
  pid=$(cat "$state/pid")
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
    say "stopping the dockerd that was started"
    docker ps --all --quiet 2>/dev/null | xargs --no-run-if-empty docker rm --force >/dev/null 2>&1 || true
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 150); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.2
    done
  fi
  # dockerd leaves mounts behind: the network namespace of the host among them. Innermost first.
  awk -v below="$PWD/$state/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort --reverse |
    while IFS= read -r left; do umount --lazy "$left" 2>/dev/null || true; done
  rm -rf "$state" || say "could not remove all of $state; the next run tries again"
}

import_image() {
  docker image inspect "$image" >/dev/null 2>&1 && return 0
  local busybox work
  busybox=$(unpacked busybox-static /bin/busybox) || return 1
  work=$(mktemp -d)
  mkdir -p "$work"/{bin,etc,tmp,proc,sys,dev,root}
  cp "$busybox" "$work/bin/busybox"
  for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$work/bin/$applet"
  done
  echo 'root:x:0:0:root:/root:/bin/sh' >"$work/etc/passwd"
  echo 'worker:x:1000:1000:worker:/tmp:/bin/sh' >>"$work/etc/passwd"
  printf 'root:x:0:\nworker:x:1000:\n' >"$work/etc/group"
  chmod 1777 "$work/tmp"
  tar -C "$work" -c . | docker import --change 'ENV PATH=/bin' --change 'CMD ["sh"]' - "$image" >/dev/null
  rm -rf "$work"
}

case "${1:-}" in
  up)
    engine_runs || start_engine || exit 0
    had=yes
    docker image inspect "$image" >/dev/null 2>&1 || had=
    import_image || { say "SKIPPED: the image of the tests cannot be made"; exit 0; }
    [ -n "$had" ] || { mkdir -p .loom && touch .loom/docker-image; }
    unpacked docker-registry /usr/bin/docker-registry >/dev/null || say "pulls are not tested"
    ;;
  down)
    if [ -f .loom/docker-image ]; then
      docker image rm -f "$image" >/dev/null 2>&1 || true
      rm -f .loom/docker-image
    fi
    stop_engine
    ;;
  *) echo "usage: scripts/docker.sh up|down" >&2; exit 64 ;;
esac
