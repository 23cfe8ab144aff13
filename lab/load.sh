#!/bin/bash
# lab/load.sh ARCHIVE: import a container image archive (docker-archive or OCI) into every node's containerd.
set -euo pipefail
cd "$(dirname "$0")/.."
lab_dir=${LAB_DIR:-$PWD/.lab}
archive=${1:-}
if [ ! -f "$archive" ]; then
  echo "IMAGE is '${archive}', which is no file; give an image archive: make load IMAGE=app.tar" >&2
  exit 2
fi
if [ ! -d "$lab_dir/nodes" ]; then
  echo "$lab_dir/nodes is missing: this lab is not up. 'make up' brings it up." >&2
  exit 1
fi

declare -A job
for folder in "$lab_dir"/nodes/*/; do
  node=$(basename "$folder")
  ssh -F "$lab_dir/ssh_config" "$node" ctr -n k8s.io images import - < "$archive" | sed "s/^/$node: /" &
  job[$node]=$!
done
failed=()
for node in "${!job[@]}"; do
  wait "${job[$node]}" || failed+=("$node")
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "The image was not loaded on: ${failed[*]}" >&2
  exit 1
fi
