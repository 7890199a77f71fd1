#!/usr/bin/env bash
# The whole stack on this machine: make up. Run again, it changes nothing and takes seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
release=${1:-trixie}

step() { printf '\n== %s\n' "$*"; }

# First, because on a minimal Debian it brings the Python that the next step is written in.
step "Python packages (.venv; a minute or two the first time)"
tools/ensure_venv.sh requirements/controller.txt
export PATH="$PWD/.venv/bin:$PATH"

step "Looking at this machine"
tools/check_machine.py up

step "Docker engine"
tools/ensure_docker.sh

step "Image of the local host, Debian $release (a minute the first time)"
molecule/shared/image/build.sh "$release"

existing=$(docker container inspect --format '{{.Config.Image}}' allin-local 2>/dev/null || true)
if [[ -n $existing && $existing != "allin-host:$release" ]]; then
    printf 'The local host exists already, made of %s. To have Debian %s instead: make down, then this again.\n' \
        "$existing" "$release" >&2
    exit 1
fi

step "cAdvisor (Debian 11's program, unless upstream's is there)"
tools/build_test_archives.py --stand-ins || printf 'Without it the next step goes on as it can.\n' >&2

step "Deploying: ansible-playbook site.yml (about two minutes the first time)"
ansible-playbook site.yml --extra-vars "local_host_release=$release"

step "What runs where"
tools/status.py
