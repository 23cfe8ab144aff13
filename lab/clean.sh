#!/bin/bash
# Remove the project's cache: bundles, root file systems, image archives, podman's store. Running labs need it.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${TORTIE_CACHE:-$HOME/.cache/tortie}
[ -d "$cache" ] || exit 0

if [ -e "$cache/podman/storage.conf" ]; then
  export CONTAINERS_CONF=$cache/podman/containers.conf CONTAINERS_STORAGE_CONF=$cache/podman/storage.conf
  running=$(podman ps --all --format '{{.Names}}')
  if [ -n "$running" ]; then
    echo "These containers live in $cache: ${running//$'\n'/ }. Destroy their labs first (make down, with their LAB_NAME and LAB_DIR)." >&2
    exit 1
  fi
  while grep -qF " $cache/podman/storage/overlay " /proc/self/mounts; do
    umount "$cache/podman/storage/overlay"
  done
fi
rm -rf "$cache"
echo "==> $cache is gone"
