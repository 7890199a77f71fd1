#!/usr/bin/env bash
# Every static check, strict; the first that complains stops the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_CONFIG="$PWD/ansible.cfg"

step() { printf '== %s\n' "$*"; }

step "ruff: check and format"
ruff check .
ruff format --check .
step "mypy --strict"
mypy tools plugins/action plugins/callback plugins/filter plugins/lookup tests molecule/shared dashboards
for module in plugins/modules/*.py roles/*/files/*.py; do mypy "$module"; done
step "yamllint"
yamllint --strict .
step "ansible-lint, profile production"
ansible-lint --nocolor
