#!/bin/bash
# In the root file system with Vagrant: check the Vagrantfile; with `up` also start libvirt, make the cluster, prove it.
set -euo pipefail
work=$1 action=$2
cd "$VAGRANT_CWD"

step() { echo "==> $* …"; }

step "vagrant validate"
ruby -wc Vagrantfile
vagrant validate
[ "$action" = up ] || exit 0
bundle=$3 image=$4 disk=$5

# No security driver, control groups or device namespace: this root file system is the fence.
cat > /etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
CONF
printf 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n' > /etc/libvirt/libvirtd.conf

step "libvirt"
mkdir -p /run/libvirt
libvirtd > "$work/libvirtd.log" 2>&1 &
for _ in $(seq 120); do
  virsh --connect qemu:///system version > /dev/null 2>&1 && break
  sleep 0.5
done
virsh --connect qemu:///system version || { tail -n 20 "$work/libvirtd.log"; exit 1; }

step "Box"
key=$(find /usr/share -path '*/vagrant-*/keys/vagrant.pub' -print -quit)
python -m lab.vagrant.box "$disk" "$work/tortie.box" < "$key"

step "vagrant up"
export TORTIE_VAGRANT_BOX_CENTOS=tortie/debian TORTIE_VAGRANT_BOX_UBUNTU=tortie/debian TORTIE_VAGRANT_BOX_DEBIAN=tortie/debian
export TORTIE_IMAGE_ARCHIVE=$image
version=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["version"])' "$bundle/manifest.json")
arguments=(--extra-vars @lab/vagrant/emulated.yml --extra-vars "kubernetes_bundle_dir=$bundle kubernetes_version=$version")
TORTIE_VAGRANT_ANSIBLE_ARGS=$(printf '%q ' "${arguments[@]}")
export TORTIE_VAGRANT_ANSIBLE_ARGS
vagrant --no-tty box add --name tortie/debian "$work/tortie.box"
vagrant --no-tty up --provider=libvirt

step "verification"
ansible-playbook -i inventory/vagrant "${arguments[@]}" playbooks/verify.yml
vagrant destroy --force
