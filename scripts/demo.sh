#!/usr/bin/env bash
# From a clean clone to a trained and scored model: builds modgrad, prepares the
# default corpus, trains for a minute, scores, and prints a sample of text.
# BUDGET changes the seconds of training.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/setup.sh
PYTHON=.venv/bin/python
OUTPUT=${OUTPUT:-demo}
mkdir -p "$OUTPUT"

$PYTHON -m isis prepare --output "$OUTPUT"
rm -f "$OUTPUT/model.ckpt"
$PYTHON -m isis learn-ffn --budget "${BUDGET:-60}" --val-data "$OUTPUT/val.txt" \
    "$OUTPUT/model.ckpt" "$OUTPUT/train_stdlib.txt"
echo
echo "A sample of what it writes:"
$PYTHON -m isis generate "$OUTPUT/model.ckpt" --prompt "def " --bytes 300
