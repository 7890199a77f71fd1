#!/usr/bin/env bash
# Makes the virtual environment .venv at the top of the repository from a hash-locked list. Silent when it is up to date.
#
#   tools/ensure_venv.sh requirements/controller.txt|requirements/test.txt
#
# test.txt holds all of controller.txt, so an environment made from it serves for both. Nothing is ever removed from an
# environment; delete .venv to start afresh. Uses the package index, proxy and certificates that pip is configured with.
# PYTHON names the interpreter to use (3.11 or newer); else the usual names are tried.
# Exit code 0: .venv is complete; 1: it is not, and stderr says what to do; 2: wrong argument.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repo/.venv
stamp=$venv/.allin-locks
bootstrap=requirements/bootstrap.txt

say() { printf 'venv: %s\n' "$*" >&2; }
die() {
    printf 'venv: %s\n' "$@" >&2
    exit 1
}

lock=requirements/$(basename "${1:-}" .txt).txt
if [[ $# -ne 1 || ! -f $repo/$lock ]]; then
    printf 'usage: %s requirements/controller.txt|requirements/test.txt\n' "$0" >&2
    exit 2
fi
cd "$repo"

is_current() { # is_current LOCK: has .venv been completed from this very file, and does its Python still exist?
    [[ -x $venv/bin/python && -f $stamp ]] && grep -qxF "$(sha256sum "$1")" "$stamp"
}
is_served() {
    is_current "$lock" || { [[ $lock == requirements/controller.txt ]] && is_current requirements/test.txt; }
}

if is_served; then
    exit 0
fi

# One at a time; who waited finds the work done.
exec 9<"$repo/requirements"
if ! flock --nonblock 9; then
    say "another call is filling .venv; waiting for it"
    flock 9
fi
if is_served; then
    exit 0
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT

usable() { # usable PYTHON: does it run, and is it new enough?
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        # A pyenv shim is on PATH although its version is not installed, so finding a name is not enough.
        if usable "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}
apt_install() { # apt_install PACKAGE...: quietly, as root only
    [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 1
    say "installing $* by apt ..."
    if ! { apt-get -q -o DPkg::Lock::Timeout=300 update &&
        DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"; \
        } </dev/null >"$output" 2>&1; then
        tail -n 5 "$output" >&2
        return 1
    fi
}

if [[ -n ${PYTHON:-} ]] && ! usable "$PYTHON"; then
    die "PYTHON=$PYTHON is not a Python of version 3.11 or newer. Unset it, or name another one."
fi
if ! python=$(find_python); then
    apt_install python3 python3-venv || true
    if ! python=$(find_python); then
        # A distribution whose python3 is older may have a newer one beside it.
        for version in 3.13 3.12 3.11; do
            if [[ -n $(apt-cache madison "python$version-venv" 2>/dev/null) ]] &&
                apt_install "python$version" "python$version-venv"; then
                break
            fi
        done
        python=$(find_python) ||
            die "no Python 3.11 or newer on this machine." \
                "Install one (Debian 12, Ubuntu 24.04 and newer: \`apt-get install python3 python3-venv\`)," \
                "or name it (\`PYTHON=/path/to/python3.12\`), then run this again."
    fi
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    # Debian keeps these two in a package of their own, named after the version.
    package=$("$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")')
    apt_install "$package" ||
        die "$python cannot make virtual environments." "Run \`apt-get install $package\` as root, then run this again."
fi

if [[ -e $venv && ! -w $venv ]]; then
    die ".venv belongs to $(stat --format %U "$venv"), and this account may not change it." \
        "Run this as that user, or delete .venv as that user first."
fi

# An environment whose Python is gone or half made is of no use.
if ! { [[ -x $venv/bin/pip ]] && usable "$venv/bin/python"; }; then
    say "making .venv with $("$python" --version) ($python) ..."
    "$python" -m venv --clear "$venv" >"$output" 2>&1 || {
        tail -n 5 "$output" >&2
        die "$python could not make $venv; the lines above say why."
    }
fi

pip_setting() { "$venv/bin/pip" config get "global.$1" 2>/dev/null || true; }
not_installed() {
    local advice=("Correct that and run this again; \`rm -rf .venv\` starts afresh.")
    tail -n 12 "$output" >&2
    if grep -qiE 'hash mismatch|do not match the hashes' "$output"; then
        advice=("The package index serves other files than those we locked. Do not work around that: find out which is right.")
    elif grep -qi 'no space left' "$output"; then
        advice=("The disk is full. Free some space and run this again.")
    elif grep -qiE 'connect|resolve|timed? ?out|certificate|tls|proxy|failed to fetch|from versions: none' "$output"; then
        advice=("The Python package index cannot be reached. Check the network and the proxy (https_proxy), or point pip at"
            "a mirror (\`pip config set global.index-url <address>\`, \`global.cert <file>\` for its certificates);"
            "then run this again.")
    fi
    die "the packages of $1 could not be installed; the lines above say why." "${advice[@]}"
}

SECONDS=0
say "installing $lock into .venv (a minute or two the first time) ..."
# uv is several times quicker than pip, but knows nothing of pip's settings.
installer=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python")
if "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$bootstrap" \
    >"$output" 2>&1 && "$venv/bin/uv" --version >/dev/null 2>&1; then
    index=${PIP_INDEX_URL:-$(pip_setting index-url)}
    extra=${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url)}
    certificates=${PIP_CERT:-$(pip_setting cert)}
    [[ -z $index ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
    [[ -z $extra ]] || export UV_INDEX=${UV_INDEX:-$extra}
    [[ -z $certificates ]] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$certificates}
    export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-120}
elif grep -qiE 'no matching distribution|not a supported wheel' "$output"; then
    say "uv cannot be installed here; using pip, which is slower ..."
    installer=("$venv/bin/pip" install --quiet --disable-pip-version-check)
else
    not_installed "$bootstrap"
fi
"${installer[@]}" --require-hashes --requirement "$lock" >"$output" 2>&1 || not_installed "$lock"

# What else was completed before stays true: nothing is removed, and both lists agree on versions.
others=$(grep -vF "  $lock" "$stamp" 2>/dev/null || true)
{
    [[ -z $others ]] || printf '%s\n' "$others"
    sha256sum "$lock"
} >"$stamp.new"
mv "$stamp.new" "$stamp"
say ".venv is complete ($SECONDS s)"
