#!/usr/bin/env bash
# Makes sure that a headless Chromium and its driver are there, for tests and pictures of pages. Silent when they are.
# Exit code 0: both are there; 1: they are not, and stderr says what to do.
set -euo pipefail

die() {
    printf 'chromium: %s\n' "$@" >&2
    exit 1
}

if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
packages=(chromium chromium-driver)
advice="Install them (Debian: \`apt-get install ${packages[*]}\`), then run this again."
command -v apt-get >/dev/null || die "the tests of pages need ${packages[*]}, and this machine has no apt-get." "$advice"
[[ $EUID -eq 0 ]] || die "the tests of pages need ${packages[*]}, and only root may install packages." "$advice"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1; }
printf 'chromium: installing %s by apt ...\n' "${packages[*]}" >&2
if ! { apt_get update && apt_get install --yes --no-install-recommends "${packages[@]}"; }; then
    tail -n 8 "$log" >&2
    die "apt could not install ${packages[*]}; the lines above say why." "$advice"
fi
