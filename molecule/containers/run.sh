#!/usr/bin/env bash
# The scenario containers, with upstream's cAdvisor where it is to be had, elsewhere with Debian 11's. What that, or this
# machine, cannot show is in the last lines.
#   molecule/containers/run.sh [molecule's command, test by default]
#   molecule/containers/run.sh --left-out    only those lines, or nothing
# Looked for in the artifacts folder, and in the folders in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts
program=$(molecule/shared/newest.sh "$cache" 'cadvisor-vVERSION-linux-ARCH')
left_out() {
    # As test_services.py asks the host, which sees this machine's.
    [[ -e /sys/fs/cgroup/cgroup.controllers || -e /sys/fs/cgroup/cpu,cpuacct/tasks ]] ||
        printf 'LEFT OUT: the CPU time of services. This machine has control groups v1, with cpu and cpuacct apart\n'
    [[ -n $program ]] ||
        printf 'LEFT OUT: containers that run out of memory. Put cadvisor-v<0.57 or newer>-linux-amd64 into %s\n' "$cache"
}
if [[ ${1:-} == --left-out ]]; then
    left_out
    exit 0
fi

if [[ -n $program ]]; then
    ALLIN_CADVISOR_FOLDER=$(dirname "$(readlink -f "$program")")
    export ALLIN_CADVISOR_FOLDER
fi
code=0
molecule/shared/timed.py "${1:-test}" --scenario-name containers "${@:2}" || code=$?
left_out
exit "$code"
