#!/usr/bin/env bash
# All checks, from a clean clone: build, lints, Rust tests with each instruction
# set that the machine has, Python tests. Ends with pytest's closing line.
# Arguments are passed on to pytest, as in `scripts/test.sh -m slow`.
set -euo pipefail
cd "$(dirname "$0")/.."

EXTRAS=dev source scripts/setup.sh

echo "== lints" >&2
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy

echo "== Rust tests" >&2
cargo test --workspace --exclude modgrad-py --locked --quiet
# Kernels that are compiled per instruction set, again on the lower ones. Matrix
# products and the op table run all sets by themselves; the rest of AVX-512 is
# the run above.
for set in $(.venv/bin/python scripts/instruction_sets.py | grep -x -e portable -e avx2); do
    echo "== kernels on $set" >&2
    MODGRAD_ISA=$set cargo test --locked --quiet -p modgrad-compute -- --skip gemm
done

echo "== GPU kernels, compiled for real cards" >&2
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    .venv/bin/python scripts/compile_kernels.py --require nvidia >&2
fi

echo "== Python tests" >&2
for set in $(.venv/bin/python scripts/instruction_sets.py); do
    echo "== programs and training on $set" >&2
    MODGRAD_ISA=$set .venv/bin/python -m pytest tests/test_program.py tests/test_training.py
done
.venv/bin/python -m pytest "$@"
