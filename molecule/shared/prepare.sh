#!/usr/bin/env bash
# What a scenario needs of the machine: an engine and the image. Seconds when both are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools/ensure_docker.sh
molecule/shared/image/build.sh "${ALLIN_RELEASE:-trixie}"
