#!/usr/bin/env bash
# What a scenario needs of the machine: an engine and the image, with `archives` the test archives too. Seconds when
# all of it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools/ensure_docker.sh
molecule/shared/image/build.sh "${ALLIN_RELEASE:-trixie}"
python3 tools/build_test_archives.py --stand-ins
if [[ ${1:-} == archives ]]; then
    python3 tools/debian_packages.py --test-tools
    python3 tools/build_test_archives.py
fi
