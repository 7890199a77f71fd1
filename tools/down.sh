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
# By label, so that images that a newer one has replaced go too. What a molecule scenario runs on stays for it.
used=$(docker container ls --all --quiet | xargs --no-run-if-empty docker container inspect --format '{{.Image}} {{.Name}}')
for image in $(docker image ls --quiet --no-trunc --filter label=allin.recipe | sort -u); do
    if containers=$(grep --fixed-strings "$image " <<<"$used"); then
        printf 'Left, an image allin-host: the container %s runs on it.\n' "$(sed 's|.* /||' <<<"$containers" | paste -sd ' ')"
    else
        printf 'Removing an image allin-host.\n'
        docker image rm --force "$image" >/dev/null
    fi
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts
printf 'Left, because you may want them again: %s (downloads), .venv (Python packages), the Docker engine.\n' "$cache"
printf 'To remove those too: rm -rf %q .venv\n' "$cache"
