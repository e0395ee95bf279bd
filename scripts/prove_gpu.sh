#!/usr/bin/env bash
# Proves modgrad on a GPU in one run of under ten minutes: builds, lists the card, runs every
# op on it against the reference, compares loss curves with the CPU's, measures throughput.
#
#   scripts/prove_gpu.sh cuda|hip [--pytorch PYTHON] [--sakana CHECKOUT] [--corpus FOLDER]
#
# PYTHON is one that has torch for the card; without it, python3 is used if it has. A short
# table comes last; full logs are in prove-gpu/, or the folder that LOGS names. BUILD=0 takes
# ./.venv as it is and leaves the Rust tests out. `emulated --quick` tries the script itself.
set -euo pipefail
cd "$(dirname "$0")/.."

device=${1:?say cuda or hip}
shift
logs=${LOGS:-prove-gpu}
mkdir -p "$logs"
if [ "${BUILD:-1}" = 1 ]; then
    EXTRAS=dev source scripts/setup.sh
    if [ "$device" = cuda ] && ! ldconfig -p | grep -q libcublas.so; then
        .venv/bin/python -m pip install --quiet nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12
    fi
fi
.venv/bin/python -m isis devices >"$logs/machine.txt"
.venv/bin/python -m isis devices --device "$device" | tee "$logs/device.txt"

status=0
if [ "${BUILD:-1}" = 1 ]; then
    # Also results stored as bf16, gradients, sparse ones and each optimiser; each launch is
    # waited for, so that a fault names its kernel.
    folders=$(echo "$PWD"/.venv/lib/python3*/site-packages/nvidia)
    if MODGRAD_TEST_DEVICE=$device MODGRAD_CHECK_LAUNCHES=1 MODGRAD_LIBRARIES=$folders \
        cargo test --locked --quiet -p modgrad-device --test ops --test training \
        --test optimisers --test clipping --test indices >"$logs/tests.txt" 2>&1; then
        echo "tests of modgrad-device on $device: ok"
    else
        echo "tests of modgrad-device on $device: FAILED, see $logs/tests.txt"
        status=1
    fi
fi
.venv/bin/python scripts/prove_gpu.py --device "$device" --logs "$logs" "$@" || status=1
exit $status
