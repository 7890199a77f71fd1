#!/usr/bin/env bash
# Removes what make up made: the container with everything in it, and our images. Packages and caches that other
# programs may use stay, and are named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! docker version >/dev/null 2>&1; then
    printf 'No Docker engine answers, so nothing of ours runs.\n'
    exit 0
fi
if docker container inspect allin-local >/dev/null 2>&1; then
    printf 'Removing the container allin-local and its data.\n'
    docker container rm --force --volumes allin-local >/dev/null
fi
# By label, so that images that a newer one has replaced go too.
images=$(docker image ls --quiet --filter label=allin.recipe | sort -u)
if [[ -n $images ]]; then
    printf 'Removing the images allin-host.\n'
    # shellcheck disable=SC2086 # one argument an image
    docker image rm --force $images >/dev/null
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts
printf 'Left, because you may want them again: %s (downloads), .venv (Python packages), the Docker engine.\n' "$cache"
printf 'To remove those too: rm -rf %q .venv\n' "$cache"
