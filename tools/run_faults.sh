#!/usr/bin/env bash
# Makes faults in a container of its own and sees what people are told: make faults.
#
#   tools/run_faults.sh            everything, most of an hour; the container goes at the end
#   tools/run_faults.sh CASE       one fault of tools/faults.py, or message, heartbeat, deployment; the container stays for the next
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_CONFIG="$PWD/ansible.cfg"

if [[ $# -eq 0 ]]; then
    exec molecule test --scenario-name faults
fi
export ALLIN_FAULT=$1
if ! docker container inspect allin-faults >/dev/null 2>&1; then
    molecule converge --scenario-name faults
fi
molecule verify --scenario-name faults
printf 'The container allin-faults stays. To remove it: .venv/bin/molecule destroy --scenario-name faults\n'
