#!/usr/bin/env bash
# The backend's own checks and tests, in a virtual environment of its own: they must pass without Ansible.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../app"
lock=requirements/test.txt
stamp=.venv/.lock.sha256
want=$(sha256sum "$lock" pyproject.toml)
if [[ $(cat "$stamp" 2>/dev/null) != "$want" ]]; then
    printf 'app: installing %s into app/.venv\n' "$lock"
    ../.venv/bin/uv venv --quiet --clear --python ../.venv/bin/python .venv
    ../.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --requirement "$lock"
    ../.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
    printf '%s\n' "$want" >"$stamp"
fi
PROMTOOL=${PROMTOOL:-${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts/debian/sid/usr/bin/promtool}
export PROMTOOL
[[ -x $PROMTOOL ]] || ../.venv/bin/python ../tools/debian_packages.py --test-tools
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/pytest "$@"
