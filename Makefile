# `make up` and `make test` are the two commands; the others are what they are made of. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up down status demo-fault image venv machine test lint unit app bench metrics-doc alerts-doc dashboards messages-doc message-pictures mutants faults molecule containers grafana

RELEASE ?= trixie
VENV := .venv/bin
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# A colour code in a log helps nobody; a terminal still gets colours.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

up: ## The whole stack on this machine, from nothing
	@tools/up.sh $(RELEASE)

down: ## Removes all of it again
	@tools/down.sh

status: ## What runs where
	@$(VENV)/python tools/status.py

SECONDS_OF_FAULT ?= 300
demo-fault: ## A fault on the local stack, and what is to be seen of it (FAULT=slow-db, errors, cache-off, ...)
	@$(VENV)/python -m tools.demo_fault $(FAULT) --seconds $(SECONDS_OF_FAULT)

venv:
	@tools/ensure_venv.sh requirements/test.txt

image:
	@molecule/shared/image/build.sh $(RELEASE)

machine:
	@tools/ensure_docker.sh

test: ## Everything that must be true, from seconds to the whole stack
	@tools/test.sh

lint: venv ## ansible-lint (production), yamllint, ruff, mypy
	@tools/lint.sh

unit: venv ## Plugins, specifications, rules, routes, tools: no container
	@python tools/debian_packages.py --test-tools
	@python tools/build_test_archives.py
	@pytest --numprocesses 2 tests

app: ## The backend's own tests
	@tools/app_tests.sh

BENCH ?=
bench: venv ## What the instrumentation costs, beside its peers, in a table (BENCH='--quick' or '--json FILE')
	@tools/bench.sh $(BENCH)

metrics-doc: ## Writes docs/metrics.md from the metric contract
	@PYTHONPATH=app/src python3 -m allin_backend.metrics.document > docs/metrics.md

dashboards: venv ## Builds the Grafana dashboards from dashboards/ into roles/grafana/files
	@python -m dashboards

messages-doc: venv ## Writes docs/messages.md: what alerts look like in Slack and in a mail
	@python -m tests.roles.messages

alerts-doc: venv ## Writes docs/alerts.md: all alerts, who is told of them, and how soon
	@python -m tests.rules.alerts_document

message-pictures: venv ## Makes the pictures of docs/messages.md with a headless Chromium
	@python tools/message_pictures.py

mutants: venv ## Breaks every alert rule in turn and sees a test fail (RULES=/path/*.yml CASES=/path/ for yours)
	@python tools/debian_packages.py --test-tools
	@python tests/rules/mutants.py $(if $(RULES),--rules $(RULES) --cases $(CASES)) $(if $(RULE),--rule '$(RULE)')

faults: venv machine ## Ten faults and what people are told of each, an hour or more (FAULT=slow-db, message, ...: one of them)
	@molecule/shared/image/build.sh $(RELEASE)
	@ALLIN_RELEASE=$(RELEASE) tools/run_faults.sh $(FAULT)

molecule: venv machine ## The whole stack in a container, through site.yml (RELEASE=bookworm for Debian 12)
	@molecule/shared/image/build.sh $(RELEASE)
	@ALLIN_RELEASE=$(RELEASE) molecule test
	@ALLIN_RELEASE=$(RELEASE) molecule test --scenario-name archive

containers: venv machine ## cAdvisor on a host with a Docker engine and on one with services alone: what comes, is full, is killed
	@molecule/shared/image/build.sh $(RELEASE)
	@ALLIN_RELEASE=$(RELEASE) molecule/containers/run.sh

grafana: venv machine ## Grafana for real, with an archive at hand: who may see what, and every panel
	@molecule/shared/image/build.sh $(RELEASE)
	@ALLIN_RELEASE=$(RELEASE) molecule/grafana/run.sh
