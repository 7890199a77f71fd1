#!/usr/bin/env bash
# The backend's own checks and tests, in a virtual environment of its own: they must pass without Ansible.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../app"
lock=requirements/test.txt
stamp=.venv/.lock.sha256
want=$(sha256sum "$lock" pyproject.toml)
if [[ $(cat "$stamp" 2>/dev/null) != "$want" ]]; then
    printf 'app: installing %s into app/.venv\n' "$lock"
    ../.venv/bin/python -m venv --clear .venv
    # pip rather than uv: it knows this machine's index and certificates.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$lock"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    printf '%s\n' "$want" >"$stamp"
fi
PROMTOOL=${PROMTOOL:-${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts/debian/sid/usr/bin/promtool}
export PROMTOOL
[[ -x $PROMTOOL ]] || ../.venv/bin/python ../tools/debian_packages.py --test-tools
../tools/ensure_servers.sh
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/pytest --numprocesses 2 "$@"
