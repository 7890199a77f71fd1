#!/usr/bin/env bash
# Makes sure that PostgreSQL and Redis are there for the backend's tests, which start their own and need the programs only.
# Silent when they are. Installs the distribution's packages as root; what these would run as services stays off.
# ALLIN_TEST_POSTGRES_BIN names the folder of another PostgreSQL.
# Exit code 0: both are there; 1: they are not, and stderr says what to do.
set -euo pipefail
policy=/usr/sbin/policy-rc.d

say() { printf 'servers: %s\n' "$*" >&2; }
die() {
    printf 'servers: %s\n' "$@" >&2
    exit 1
}

has_postgresql() {
    [[ -n ${ALLIN_TEST_POSTGRES_BIN:-} ]] || command -v initdb >/dev/null ||
        compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

packages=()
has_postgresql || packages+=(postgresql)
command -v redis-server >/dev/null || packages+=(redis-server)
[[ ${#packages[@]} -eq 0 ]] && exit 0

advice="Install them (Debian, Ubuntu: \`apt-get install ${packages[*]}\`), then run this again."
command -v apt-get >/dev/null || die "the tests need ${packages[*]}, and this machine has no apt-get." "$advice"
[[ $EUID -eq 0 ]] || die "the tests need ${packages[*]}, and only root may install packages." "$advice"

log=$(mktemp)
made_policy=
cleanup() {
    rm -f "$log"
    if [[ -n $made_policy ]]; then rm -f "$policy"; fi
}
trap cleanup EXIT
apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1; }
failed() {
    tail -n 8 "$log" >&2
    die "apt could not install ${packages[*]}; the lines above say why." "$advice"
}

# Debian starts a service when it is installed, unless this file says no.
if [[ ! -e $policy ]]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
fi
say "installing ${packages[*]} by apt ..."
apt_get update || failed
apt_get install --yes --no-install-recommends "${packages[@]}" || failed
for service in "${packages[@]}"; do
    # Nor at the next boot. In a container without systemd there is nothing to turn off.
    if command -v systemctl >/dev/null; then
        systemctl disable "$service.service" >>"$log" 2>&1 || say "could not disable $service.service"
        [[ ! -d /run/systemd/system ]] || systemctl stop "$service.service" >>"$log" 2>&1 || true
    fi
done
