#!/bin/bash
# From a fresh machine to a proven cluster; a second run changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
lab/deps.sh
exec .venv/bin/python -m lab.up
