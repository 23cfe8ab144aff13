#!/bin/bash
# Every test: unit, integration (network namespaces, real etcd, API server and BIRD), the Molecule scenarios.
# All parts run, also when one fails; the summary at the end says what ran and what did not.
# The scenario on virtual machines runs last, when it will be done within TEST_BUDGET seconds of the start (TEST_VMS=no leaves it out);
# what has a command of its own, and what there was no time for, the summary names.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH=$PWD/.venv/bin:$PATH # Molecule calls Ansible's commands by name
export CI=${CI:-true} COLUMNS=200 # else pytest and Molecule cut off the reason why a test failed

if [ "$(id -u)" -ne 0 ]; then
  echo "The tests make network namespaces and containers: run them as root. (.venv/bin/pytest tests/unit needs no root.)" >&2
  exit 1
fi
lab/deps.sh || exit 1

# shellcheck source=lab/parts.sh
. lab/parts.sh
elsewhere=(
  "life of virtual machines: LAB=vms lab/deps.sh && .venv/bin/pytest tests/vms"
  "scenario reset (10 min): make test-reset; on virtual machines (60 min): LAB=vms make test-reset"
  "Vagrant with emulated machines: make vagrant"
)

# Bash has what runs in the background ignore Ctrl-C: these tests shall end by it, too, and clean up.
background() { env --default-signal=INT "$@" & }

# Three runs side by side, for they wait more than they compute: these take as long as all others together.
integration_tests() {
  local logs run result=0 folders=() runs=() others=()
  logs=$(mktemp -d)
  for run in agent "cni dataplane"; do
    read -ra folders <<<"$run"
    others+=("${folders[@]/#/--ignore=tests/integration/}")
    background .venv/bin/pytest -q --basetemp="$logs/${folders[0]}" "${folders[@]/#/tests/integration/}" >"$logs/${folders[0]}.log" 2>&1
    runs+=($!)
  done
  .venv/bin/pytest -q --basetemp="$logs/others" "${others[@]}" tests/integration || result=1
  for run in "${runs[@]}"; do wait "$run" || result=1; done
  cat "$logs"/*.log
  rm -rf "$logs"
  return "$result"
}

on_virtual_machines() { LAB=vms lab/deps.sh && "$@"; }

# What the scenario may take, by processors.
ipip_seconds() { echo $((6400 / ($(nproc) < 4 ? $(nproc) : 4))); }

# Scenario ipip, or the reason why not.
virtual_machines() {
  local name="molecule scenario ipip (virtual machines)" left=$((${TEST_BUDGET:-3600} - SECONDS - ${TEST_STARTED_BEFORE:-0}))
  if [ "${TEST_VMS:-yes}" != yes ]; then
    elsewhere+=("$name: TEST_VMS=$TEST_VMS; make test-ipip")
  elif [ "$(nproc)" -lt 2 ]; then
    elsewhere+=("$name: needs 2 processors, here is 1: make test-ipip")
  elif [ "$left" -lt "$(ipip_seconds)" ]; then
    elsewhere+=("$name: may take $(ipip_seconds) s, $left s of TEST_BUDGET=${TEST_BUDGET:-3600} are left: make test-ipip")
  else
    part "$name" on_virtual_machines molecule test --scenario-name ipip
  fi
}

# Beside each other: without caches the bundle takes longer, and mostly waits.
unit_log=$(mktemp)
background .venv/bin/pytest -q tests/unit >"$unit_log" 2>&1
unit=$!
unit_tests() {
  local result=0
  wait "$unit" || result=1
  cat "$unit_log"
  rm "$unit_log"
  return "$result"
}
prepared=yes
part "bundle and images" .venv/bin/python -m lab.prepare || prepared=no
part "unit tests (begun beside them)" unit_tests
if [ "$prepared" = yes ]; then
  part "integration tests" integration_tests
  part "molecule scenario default" molecule test --scenario-name default
  part "molecule scenario policy" molecule test --scenario-name policy
  part "Vagrantfile with real Vagrant" lab/vagrant.sh validate
  virtual_machines
else
  skipped+=("integration tests: no bundle or image" "molecule scenarios: no bundle or image")
fi
summary
