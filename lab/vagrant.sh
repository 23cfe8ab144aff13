#!/bin/bash
# The Vagrantfile with real Vagrant and libvirt, without a way to the internet: every machine from a box made of the lab's own
# disk image, everything in namespaces that end with this script. `lab/vagrant.sh validate` only checks the Vagrantfile.
set -euo pipefail
cd "$(dirname "$0")/.."

action=${1:-up}
case $action in
  up | validate) ;;
  *) echo "usage: $0 [up|validate]" >&2; exit 2 ;;
esac
if [ "$(id -u)" -ne 0 ]; then
  echo "This makes namespaces and virtual machines: run it as root." >&2
  exit 1
fi

lab/deps.sh
started=$SECONDS
step() { echo "==> $* …"; }
# The last line of a tool's output is its answer.
made() { .venv/bin/python -m "$@" | tee /dev/stderr | tail -n 1; }

work=${LAB_DIR:-$PWD/.lab}/vagrant
mkdir -p "$work"
exec 9> "$work.lock"
flock --nonblock 9 || { echo "Another $0 works in $work; wait for it, or set LAB_DIR to another folder." >&2; exit 1; }
rm -rf "$work"
mkdir -p "$work/root" "$work/home"
namespaces=
# Also when interrupted. unshare ignores the gentle signals; its end is the end of every process in the namespaces.
cleanup() {
  if [ -n "$namespaces" ] && kill -KILL "$namespaces" 2>/dev/null; then wait "$namespaces" || true; fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

step "Vagrant and libvirt"
tar --extract --numeric-owner --preserve-permissions --directory "$work/root" --file "$(made lab.vagrant.root)"

arguments=()
if [ "$action" = up ]; then
  step "Bundle, network image, disk image"
  bundle=$(made lab.bundle)
  image=$(made lab.image)
  disk=$(BUNDLE=$bundle made lab.vms.disk)
  arguments=("$bundle" "$image" "$disk")
fi

# A process namespace: whatever happens, its daemons and machines end with its first process.
unshare --mount --net --uts --ipc --pid --fork --kill-child --propagation private \
  lab/vagrant/enter.sh "$work" "$action" "${arguments[@]}" &
namespaces=$!
wait "$namespaces"
namespaces=
echo "==> Vagrant $action … done in $((SECONDS - started)) s"
