#!/bin/bash
# Inside new namespaces: make the root file system that lab/vagrant.sh has unpacked ours, and work there.
set -euo pipefail
work=$1
root=$work/root
checkout=$PWD
cache=${TORTIE_CACHE:-$HOME/.cache/tortie}

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount --rbind /dev "$root/dev"
for folder in "$checkout" "$cache" "$work"; do
  mkdir -p "$root$folder"
  mount --rbind "$folder" "$root$folder"
done
ip link set lo up

exec env --ignore-environment PATH="$checkout/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root LANG=C.UTF-8 \
  TORTIE_CACHE="$cache" VAGRANT_CWD="$checkout" VAGRANT_HOME="$work/home" VAGRANT_DOTFILE_PATH="$work/dot" \
  VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt \
  TORTIE_VAGRANT_LIBVIRT_DRIVER="${TORTIE_VAGRANT_LIBVIRT_DRIVER:-qemu}" \
  TORTIE_VAGRANT_CPUS="${TORTIE_VAGRANT_CPUS:-2}" TORTIE_VAGRANT_MEMORY="${TORTIE_VAGRANT_MEMORY:-2048}" \
  chroot "$root" "$checkout/lab/vagrant/work.sh" "$@"
