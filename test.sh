#!/usr/bin/env bash
# The test command: installs what it lacks (Debian packages, npm, PyPI, cargo), then checks everything.
# On a fresh Debian machine: ./test.sh. It ends with the test runner's own count.
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

step "tools"
packages=()
have mosquitto_pub || packages+=(mosquitto-clients)
[ -x /usr/sbin/mosquitto ] || have mosquitto || packages+=(mosquitto)
have chromium || packages+=(chromium)
have cc || packages+=(build-essential)
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(faketime)
have node && have npm || packages+=(nodejs npm)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3 python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
fi
# Without optimizations and symbols: that is built in a fraction of the time, and they wait for others anyway.
tool() { have "$1" || CARGO_PROFILE_DEV_DEBUG=false cargo install --locked --debug --quiet "$1"; }
tool cargo-nextest
tool cargo-deny

# The Python client lives in a folder of its own; a changed list of requirements makes a new one.
requirements=node/tests/clients/requirements.txt
venv=target/test-python-$(cksum <"$requirements" | cut -d' ' -f1)
if [ ! -e "$venv/ready" ]; then
  mkdir -p target
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
  touch "$venv/ready"
fi
export TIDEGATE_PYTHON="$PWD/$venv/bin/python"

for dir in node/tests/clients node/tests/browser node/tests/types scripts/tests/packages; do
  [ -f "$dir/package-lock.json" ] || continue
  stamp="$dir/node_modules/.tidegate-$(cksum <"$dir/package-lock.json" | cut -d' ' -f1)"
  [ -e "$stamp" ] && continue
  npm ci --prefix "$dir" --no-audit --no-fund --silent
  touch "$stamp"
done

step "format"
cargo fmt --all --check

step "licences, bans, sources, advisories"
cargo deny --log-level error check bans licenses sources
# The advisories' database comes over git; a machine that cannot reach it checks the rest.
if timeout 60 cargo deny --log-level error fetch db >/dev/null 2>&1; then
  cargo deny --log-level error check advisories
else
  echo "NOTE: the advisory database cannot be reached from here; advisories were not checked"
fi

step "clippy"
# Linted in the profile that is built anyway, so that dependencies compile once.
cargo clippy --release --workspace --all-targets --locked --quiet -- -D warnings

# The fuzz targets are no part of the workspace; they include files of it, and must go on to compile.
step "fuzz targets"
cargo fmt --manifest-path fuzz/Cargo.toml --check
cargo check --manifest-path fuzz/Cargo.toml --locked --quiet

step "documentation"
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --release --workspace --no-deps --document-private-items --locked --quiet

step "tests"
cargo test --release --workspace --doc --locked --quiet
cargo nextest run --release --workspace --locked --no-fail-fast
