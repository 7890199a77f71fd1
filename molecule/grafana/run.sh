#!/usr/bin/env bash
# The scenario grafana, where an archive of Grafana is to be had; elsewhere what is left out, loudly.
#   molecule/grafana/run.sh [molecule's command, test by default]
#   molecule/grafana/run.sh --left-out    only that line, or nothing
# ALLIN_GRAFANA_ARCHIVE=/path/grafana-<version>.linux-amd64.tar.gz names one; else the artifacts folder is looked into, and the
# folders in it, for the newest. grafana_<version>_<build>_linux_amd64.tar.gz is another name of the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts
archive=${ALLIN_GRAFANA_ARCHIVE:-}
if [[ -z $archive ]]; then
    archive=$(molecule/shared/newest.sh "$cache" 'grafana(-VERSION\.linux-|_VERSION_[0-9]+_linux_)ARCH\.tar\.gz')
fi
if [[ -z $archive ]]; then
    printf "LEFT OUT: Grafana for real (sign-in, permissions, dashboards). Put upstream's archive (README.md says which) into %s\n" "$cache"
    exit 0
fi
if [[ ${1:-} == --left-out ]]; then exit 0; fi
tools/ensure_chromium.sh

ALLIN_GRAFANA_ARCHIVE=$(readlink -f "$archive")
ALLIN_GRAFANA_SHA256=$(sha256sum "$ALLIN_GRAFANA_ARCHIVE" | cut -d ' ' -f 1)
export ALLIN_GRAFANA_ARCHIVE ALLIN_GRAFANA_SHA256
exec molecule/shared/timed.py "${1:-test}" --scenario-name grafana "${@:2}"
