#!/usr/bin/env bash
# Measures what the backend's instrumentation costs, beside its peers, in a virtual environment of its own.
#
#   tools/bench.sh [--quick] [--json FILE]
#
# Exit code 0: every bar was met; 1: one was missed, or could not be measured.
set -euo pipefail
from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../app"
lock=requirements/bench.txt
stamp=.venv-bench/.lock.sha256
want=$(sha256sum "$lock")
if [[ $(cat "$stamp" 2>/dev/null) != "$want" ]]; then
    printf 'bench: installing %s into app/.venv-bench\n' "$lock" >&2
    ../.venv/bin/python -m venv --clear .venv-bench
    .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$lock"
    printf '%s\n' "$want" >"$stamp"
fi
python=$PWD/.venv-bench/bin/python
export PYTHONPATH=$PWD/src:$PWD
# Where the caller was, so that FILE means what it says.
cd "$from"
exec "$python" -m benchmarks "$@"
