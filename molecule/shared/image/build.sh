#!/usr/bin/env bash
# Builds the image of a Debian host with systemd as PID 1: allin-host:<release>. Quick when the recipe has not changed.
#
#   molecule/shared/image/build.sh [--force|--print-recipe] [trixie|bookworm]
#
# The recipe is this directory, plus the machine's Debian mirror and its extra CA certificates; its hash is the image's
# label allin.recipe. Packages come from the mirror that apt on this machine uses. --force builds again all the same,
# for newer packages. --print-recipe prints the hash only.
#
# Start a container of it with (cgroup v1 and v2 alike):
#   docker run --detach --cgroupns host --volume /sys/fs/cgroup:/sys/fs/cgroup:rw --cap-add SYS_ADMIN --cap-add NET_ADMIN \
#     --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
#     --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec allin-host:trixie
# `exec` because Docker mounts a tmpfs noexec, and Ansible's modules may run from /tmp. The host is up when
# `systemctl is-system-running` says `running`; for its first moments that command fails (no bus yet), so ask again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages_tool=$here/../../../tools/debian_packages.py
python=${PYTHON:-python3}
force=no
print_recipe=no
release=trixie

say() { printf 'image: %s\n' "$*" >&2; }
die() {
    printf 'image: %s\n' "$@" >&2
    exit 1
}

for argument in "$@"; do
    case $argument in
        --force) force=yes ;;
        --print-recipe) print_recipe=yes ;;
        trixie | bookworm) release=$argument ;;
        *)
            printf 'usage: %s [--force|--print-recipe] [trixie|bookworm]\n' "$0" >&2
            exit 2
            ;;
    esac
done

machine_files() {
    "$python" "$packages_tool" --suite "$release" --describe-image
    find /usr/local/share/ca-certificates -name '*.crt' -exec sha256sum {} + 2>/dev/null | sort
}

# apt's configuration may be missing altogether (Docker on another distribution): the Dockerfile needs none of it.
machine=$(machine_files 2>&1) || true
recipe=$(
    {
        cat "$here/build.sh" "$here/setup.sh" "$here/packages.txt" "$here/Dockerfile"
        printf '%s\n' "$release" "$machine"
    } | sha256sum | cut -c1-16
)

if [[ $print_recipe == yes ]]; then
    printf '%s\n' "$recipe"
    exit 0
fi

image=allin-host:$release
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
    die "no Docker engine answers." "Run tools/ensure_docker.sh, or start the engine yourself, then run this again."

is_current() {
    [[ $(docker image inspect --format '{{index .Config.Labels "allin.recipe"}}' "$image" 2>/dev/null) == "$recipe" ]]
}

if [[ $force == no ]] && is_current; then
    exit 0
fi

# One build at a time; who waited finds the image done.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/allin-artifacts
mkdir -p "$cache"
exec 9>"$cache/.image-$release.lock"
if ! flock --nonblock 9; then
    say "another build of $image is running; waiting for it"
    flock 9
fi
if [[ $force == no ]] && is_current; then
    exit 0
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 0755 "$stage"
context=$stage/allin-image
mkdir -p "$context/certificates" "$context/keyrings"
cp "$here/setup.sh" "$here/packages.txt" "$here/Dockerfile" "$context/"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$context/certificates/" \; 2>/dev/null || true

have_mmdebstrap() {
    command -v apt-get >/dev/null || return 1
    if command -v mmdebstrap >/dev/null && [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
        return 0
    fi
    [[ $EUID -eq 0 ]] || return 1
    say "installing mmdebstrap ..."
    local log=$stage/apt.log
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        mmdebstrap debian-archive-keyring; } </dev/null >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        say "apt could not install mmdebstrap"
        return 1
    fi
}

build_with_mmdebstrap() {
    local include
    include=$(grep -v '^#' "$here/packages.txt" | paste -sd, -)
    "$python" "$packages_tool" --suite "$release" --image-files "$context" || return 1
    say "building $image with mmdebstrap from this machine's mirror (about a minute) ..."
    # Documentation is left out of this image and of what is installed in it later; licences stay.
    # shellcheck disable=SC2016  # $1 is for mmdebstrap's shell: the new root directory
    if ! mmdebstrap --quiet --variant=minbase --include="$include" \
        --aptopt='Acquire::Languages "none"' --aptopt="$context/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*/LC_MESSAGES/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --skip=cleanup/apt/lists \
        --customize-hook="copy-in $context /root/" \
        --customize-hook='chroot "$1" sh /root/allin-image/setup.sh' \
        --customize-hook='rm -rf "$1/root/allin-image"' \
        "$release" "$stage/root.tar" "$context/debian.sources" >"$stage/build.log" 2>&1; then
        tail -n 20 "$stage/build.log" >&2
        return 1
    fi
    local base=allin-host-import:$release-$$ built=0
    docker import "$stage/root.tar" "$base" >/dev/null || return 1
    # `docker import` cannot set the signal that makes systemd shut down, a build on top can; it adds no layer.
    printf '%s\n' "FROM $base" 'ENV container=docker LANG=C.UTF-8' 'STOPSIGNAL SIGRTMIN+3' 'CMD ["/sbin/init"]' |
        docker build --quiet --label "allin.recipe=$recipe" --tag "$image" - >"$stage/build.log" 2>&1 || built=$?
    docker image rm "$base" >/dev/null 2>&1 || true
    ((built == 0)) || tail -n 20 "$stage/build.log" >&2
    return "$built"
}

build_with_dockerfile() {
    local number=13
    [[ $release == bookworm ]] && number=12
    # The base image brings its own mirror, so the machine's is not forced upon it.
    rm -f "$context/debian.sources" "$context/apt.conf"
    say "building $image from the image debian:$number (mmdebstrap is not to be had; needs an image registry) ..."
    docker build --quiet --build-arg "RELEASE=$number" --label "allin.recipe=$recipe" --tag "$image" "$context" \
        >"$stage/build.log" 2>&1 || {
        tail -n 20 "$stage/build.log" >&2
        return 1
    }
}

before=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)
SECONDS=0
if have_mmdebstrap; then
    build_with_mmdebstrap || die "mmdebstrap could not build $image; the lines above say why." \
        "Usual reasons: the Debian mirror cannot be reached (try apt-get update), or the disk is full (df -h)."
else
    build_with_dockerfile || die "$image could not be built; the lines above say why." \
        "Either install mmdebstrap and debian-archive-keyring (apt-get install mmdebstrap debian-archive-keyring)" \
        "or let this machine reach an image registry that has debian:13, then run this again."
fi
# The image that this one replaces; it stays while a container uses it.
after=$(docker image inspect --format '{{.Id}}' "$image")
if [[ -n $before && $before != "$after" ]]; then
    docker image rm "$before" >/dev/null 2>&1 || true
fi
say "$image is built ($SECONDS s)"
