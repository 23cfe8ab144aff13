# Every entry point. Settings come from the environment: LAB, LAB_NAME, LAB_DIR, LAB_API_PORT, TORTIE_CACHE, INVENTORY (docs/lab.md).
SHELL := /bin/bash
INVENTORY ?= $(if $(filter vms,$(LAB)),inventory/reference,inventory/lab)
export LAB INVENTORY
PYTHON := .venv/bin/python
PLAYBOOK := .venv/bin/ansible-playbook -i $(INVENTORY)

.DEFAULT_GOAL := help
.PHONY: help up down verify test test-ipip test-reset bench lint load ssh clean image bundle molecule vagrant deps

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## a two-node cluster, ending with the proof (LAB=vms: virtual machines; BUNDLE=dir: a bundle made elsewhere)
	@BUNDLE="$(BUNDLE)" lab/up.sh

down: deps ## remove the lab: machines, network, processes, keys
	@$(PLAYBOOK) lab/destroy.yml

verify: deps ## prove routes, tunnels, peering and MTU on the running cluster
	@$(PLAYBOOK) playbooks/verify.yml

test: ## unit tests, integration tests and the Molecule scenarios (root)
	@lab/test.sh

test-ipip: ## IP-in-IP, other encapsulations and faults on virtual machines (root)
	@LAB=vms lab/deps.sh
	@PATH=$(CURDIR)/.venv/bin:$$PATH molecule test --scenario-name ipip

test-reset: deps ## a machine after playbooks/reset.yml is what it was (root; LAB=vms: on virtual machines)
	@PATH=$(CURDIR)/.venv/bin:$$PATH $(if $(filter vms,$(LAB)),LAB_INVENTORY_NAME=reference LAB_PRELOAD=no) molecule test --scenario-name reset

bench: deps ## measure against peers; writes bench/results.json and docs/benchmarks.md (root, on an idle machine)
	@$(PYTHON) -m lab.prepare
	@$(PYTHON) -m bench.run

lint: deps ## every static check
	@lab/lint.sh

load: ## import an image archive into every node: make load IMAGE=app.tar
	@lab/load.sh "$(IMAGE)"

ssh: ## a shell or a command on a node: make ssh NODE=worker-01 CMD="ip route"
	@lab/ssh.sh $(NODE) $(if $(CMD),'$(subst ','\'',$(CMD))')

clean: down ## down, and drop the project's caches
	@lab/clean.sh

image: deps ## build the network's image; prints the archive's path
	@$(PYTHON) -m lab.image

bundle: deps ## make or fetch the Kubernetes bundle; prints its directory
	@$(PYTHON) -m lab.bundle

molecule: deps ## the Molecule scenario only (root)
	@PATH=$(CURDIR)/.venv/bin:$$PATH molecule test --scenario-name default

vagrant: ## the Vagrantfile's cluster with real Vagrant and libvirt, on machines made from the lab's own image (root)
	@lab/vagrant.sh

deps:
	@lab/deps.sh
