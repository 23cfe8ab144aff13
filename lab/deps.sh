#!/bin/bash
# Install what `make up`, `make test` and `make lint` need: Debian packages, and .venv with what pyproject.toml
# names. Quick when everything is there already. LAB=vms adds what virtual machines need.
set -euo pipefail
cd "$(dirname "$0")/.."

# One line per purpose. No package here runs a daemon on the machine: where only a daemon's files are needed
# (etcd, bird2), lab/debs.py unpacks them into the cache.
packages=(
  python3 python3-venv git make ca-certificates xz-utils                         # this repository's own tools
  podman runc mmdebstrap debian-archive-keyring                                  # node and network images, nodes
  iproute2 procps kmod util-linux mount openssh-client socat                     # the lab's network and the way in
  containernetworking-plugins                                                    # portmap, loopback, host-local for tests
  nftables iptables ipset conntrack ethtool tcpdump iputils-ping                 # integration tests and kube-proxy's image
  dpkg-dev gcc libc6-dev                                                         # the Kubernetes bundle from Debian's source
  libssh-gcrypt-4 libreadline8                                                   # libraries of BIRD
  ruby                                                                           # tests of the Vagrantfile
  curl jq shellcheck                                                             # people's hands, linting
)

case ${LAB:-containers} in
  containers) ;;
  vms) packages+=(qemu-system-x86 qemu-utils e2fsprogs) ;;
  *)
    echo "LAB is '$LAB'; set it to containers or to vms." >&2
    exit 2
    ;;
esac

started=$SECONDS
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "These packages are missing and only root can install them: ${missing[*]}" >&2
    exit 1
  fi
  echo "==> Debian packages: ${missing[*]} …"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q -o Acquire::Retries=3
  apt-get install -q --yes --no-install-recommends "${missing[@]}"
fi

# The virtual environment uses Debian's Python: the image's wheels are chosen for it.
stamp=.venv/.tortie-dependencies
wanted=$(cat pyproject.toml <(/usr/bin/python3 --version) | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "==> Python environment .venv …"
  if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    rm -rf .venv
    /usr/bin/python3 -m venv .venv
  fi
  .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
  echo "$wanted" > "$stamp"
fi
echo "==> Packages and Python environment … done in $((SECONDS - started)) s"
