#!/usr/bin/env bash
# Holds a commit or a range against contract.toml: exit 0 clean, 1 violation, 2 usage.
#   scripts/autoresearch-check.sh HEAD
#   scripts/autoresearch-check.sh main..autoresearch/nov24
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python="$here/.venv/bin/python"
[ -x "$python" ] || python=${PYTHON:-python3}
exec "$python" -m modgrad.autoresearch check "$@"
