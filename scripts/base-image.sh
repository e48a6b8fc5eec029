#!/usr/bin/env bash
# Makes a small base image from programs of this machine, for where no registry can be reached:
#   scripts/base-image.sh NAME [PROGRAM...]
# PROGRAMs are put in with the libraries they need, beside a shell and a few tools.
set -euo pipefail

name=${1:?scripts/base-image.sh NAME [PROGRAM...]}
shift
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,usr/local/bin,etc,tmp,var/lib,root,proc,sys,dev}
chmod 1777 "$root/tmp"
ln -s bin "$root/sbin"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

add() { # a program, and every library it is linked with, at the same path
  local path
  path=$(type -P "$1") || { echo "base-image: $1 is not on this machine" >&2; exit 1; }
  cp -L "$path" "$root/bin/$(basename "$1")"
  libraries "$path"
}
libraries() {
  ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -Ln "$library" "$root$library" 2>/dev/null || true
  done
}
for program in bash sh cat date echo env ls mkdir rm seq sleep true false; do add "$program"; done
for program in "$@"; do libraries "$program"; done
# Looked up by name at run time, so ldd does not list them.
for library in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2 libgcc_s.so.1; do
  found=$(ldconfig -p 2>/dev/null | sed -n "s|.*$library .*=> ||p" | head -n 1)
  [ -z "$found" ] || { mkdir -p "$root$(dirname "$found")"; cp -Ln "$found" "$root$found" || true; }
done
tar -C "$root" -c . | docker import --change 'ENV PATH=/usr/local/bin:/bin' - "$name" >/dev/null
echo "base-image: $name"
