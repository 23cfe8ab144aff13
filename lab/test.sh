#!/bin/bash
# Every test: unit, integration (network namespaces, real etcd, API server and BIRD), the Molecule scenario.
# All parts run, also when one fails; the summary at the end says what ran and what did not.
# Tests on virtual machines and the long scenarios have commands of their own; the summary names them.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH=$PWD/.venv/bin:$PATH # Molecule calls Ansible's commands by name

if [ "$(id -u)" -ne 0 ]; then
  echo "The tests make network namespaces and containers: run them as root. (.venv/bin/pytest tests/unit needs no root.)" >&2
  exit 1
fi
lab/deps.sh || exit 1

passed=() failed=() skipped=()
elsewhere=(
  "virtual machines: LAB=vms lab/deps.sh && .venv/bin/pytest tests/vms"
  "scenario reset (10 min): molecule test --scenario-name reset"
  "scenario ipip (virtual machines): LAB=vms lab/deps.sh && molecule test --scenario-name ipip"
  "Vagrantfile with real Vagrant: lab/vagrant.sh validate"
)
part() {
  local name=$1 started=$SECONDS
  shift
  echo "==> $name …"
  if "$@"; then
    passed+=("$name in $((SECONDS - started)) s")
    echo "==> $name … passed in $((SECONDS - started)) s"
  else
    failed+=("$name after $((SECONDS - started)) s")
    echo "==> $name … FAILED after $((SECONDS - started)) s"
    return 1
  fi
}

summary() {
  echo
  echo "==> Tests"
  for line in "${passed[@]}"; do echo "    passed   $line"; done
  for line in "${failed[@]}"; do echo "    FAILED   $line"; done
  for line in "${skipped[@]}"; do echo "    not run  $line"; done
  for line in "${elsewhere[@]}"; do echo "    not part of this run  $line"; done
  echo "==> ${#passed[@]} passed, ${#failed[@]} failed, ${#skipped[@]} not run, $SECONDS s"
  [ "${#failed[@]}" -eq 0 ] && [ "${#skipped[@]}" -eq 0 ]
}

part "unit tests" .venv/bin/pytest -q tests/unit
if part "bundle and images" .venv/bin/python -m lab.prepare; then
  part "integration tests" .venv/bin/pytest -q tests/integration
  part "molecule scenario default" molecule test --scenario-name default
else
  skipped+=("integration tests: no bundle or image" "molecule scenario default: no bundle or image")
fi
summary
