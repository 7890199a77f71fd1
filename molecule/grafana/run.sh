#!/usr/bin/env bash
# The scenario grafana, where an archive of Grafana is to be had; elsewhere what is left out, loudly.
#   molecule/grafana/run.sh [molecule's command, test by default]
#   molecule/grafana/run.sh --left-out    only that line, or nothing
# ALLIN_GRAFANA_ARCHIVE=/path/grafana-<version>.linux-amd64.tar.gz names one; else the artifacts folder is looked into, and the
# folders in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts
archive=${ALLIN_GRAFANA_ARCHIVE:-}
if [[ -z $archive ]]; then
    # A folder that is not there yet has nothing.
    archive=$({ find "$cache" -maxdepth 2 -name 'grafana-[0-9]*.linux-amd64.tar.gz' 2>/dev/null || true; } | sort -V | tail -n 1)
fi
if [[ -z $archive ]]; then
    printf 'LEFT OUT: Grafana for real (sign-in, permissions, dashboards). Put grafana-<version>.linux-amd64.tar.gz into %s\n' "$cache"
    exit 0
fi
if [[ ${1:-} == --left-out ]]; then exit 0; fi
tools/ensure_chromium.sh

ALLIN_GRAFANA_ARCHIVE=$(readlink -f "$archive")
ALLIN_GRAFANA_SHA256=$(sha256sum "$ALLIN_GRAFANA_ARCHIVE" | cut -d ' ' -f 1)
export ALLIN_GRAFANA_ARCHIVE ALLIN_GRAFANA_SHA256
exec molecule/shared/timed.py "${1:-test}" --scenario-name grafana "${@:2}"
