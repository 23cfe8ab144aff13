#!/bin/bash
# lab/ssh.sh NODE [COMMAND...]: a shell, or one command, on a node of the lab.
set -euo pipefail
cd "$(dirname "$0")/.."
config=${LAB_DIR:-$PWD/.lab}/ssh_config
if [ "$#" -lt 1 ]; then
  echo "usage: lab/ssh.sh NODE [COMMAND...]" >&2
  exit 2
fi
if [ ! -e "$config" ]; then
  echo "$config is missing: this lab is not up. 'make up' brings it up." >&2
  exit 1
fi
exec ssh -F "$config" "$@"
