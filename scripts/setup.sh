#!/usr/bin/env bash
# Makes ./.venv with modgrad built into it. Sourced by test.sh and demo.sh; also
# runs alone. What the machine lacks is named in one line with the way to get it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing() {
    echo "error: $1" >&2
    exit 1
}

PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null || missing "no $PYTHON: install Python 3.10 or later (Debian: apt-get install python3-venv)"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    missing "$("$PYTHON" --version) is too old: modgrad needs Python 3.10 or later; set PYTHON to one"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    missing "$PYTHON has no venv: install it (Debian: apt-get install python3-venv)"
command -v cargo >/dev/null || missing "no cargo: install Rust 1.89 or later from https://rustup.rs"
command -v cc >/dev/null || missing "no C linker: install one (Debian: apt-get install gcc libc6-dev)"

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
echo "building modgrad (a few minutes the first time)" >&2
PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 VIRTUAL_ENV="$PWD/.venv" .venv/bin/maturin develop --release --quiet ${EXTRAS:+--extras="$EXTRAS"} >&2
