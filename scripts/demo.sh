#!/usr/bin/env bash
# From a clean clone to a short research loop: builds modgrad, prepares the default
# corpus, measures a baseline, lets the built-in search run experiments, and draws
# what came of it. BUDGET is the seconds of training in each, EXPERIMENTS how many.
set -euo pipefail
cd "$(dirname "$0")/.."

EXTRAS=report source scripts/setup.sh
PYTHON=.venv/bin/python
OUTPUT=${OUTPUT:-demo}
TAG=${TAG:-demo-$(date +%m%d-%H%M%S)}
mkdir -p "$OUTPUT"

$PYTHON -m isis prepare --output "$OUTPUT"
$PYTHON -m modgrad.autoresearch setup --tag "$TAG" --task language \
    --train "$OUTPUT/train_stdlib.txt" --val "$OUTPUT/val.txt" \
    --budget "${BUDGET:-20}" --baseline-runs 2 --yes
$PYTHON -m modgrad.autoresearch loop --tag "$TAG" --experiments "${EXPERIMENTS:-5}" --yes

BEST=$(git rev-parse --git-common-dir)/modgrad/$TAG/checkpoints
echo
echo "A sample of what the best model writes:"
$PYTHON -m isis generate "$(ls "$BEST"/*.ckpt | tail -n 1)" --prompt "def " --bytes 300
echo
echo "What was tried, as a picture and as a page:"
$PYTHON -m modgrad.autoresearch report --tag "$TAG" --output "$OUTPUT/$TAG"
