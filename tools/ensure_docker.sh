#!/usr/bin/env bash
# Makes sure that a Docker engine answers. Silent when it does.
#
#   tools/ensure_docker.sh
#
# As root on Debian or Ubuntu it installs the distribution's docker.io when there is no engine, and starts it: by systemd
# where that is PID 1, else as a background process that logs to /var/log/allin-dockerd.log. Everywhere else it says what
# to do. A running engine is never restarted or stopped.
# Exit code 0: an engine answers; 1: none does, and stderr says what to do.
set -euo pipefail

log=/var/log/allin-dockerd.log
start_deadline_seconds=60

say() { printf 'docker: %s\n' "$*" >&2; }
die() {
    printf 'docker: %s\n' "$@" >&2
    exit 1
}

answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

if answers; then
    exit 0
fi

# --- what a person must decide
if [[ -n ${DOCKER_HOST:-} ]]; then
    die "the engine that DOCKER_HOST names ($DOCKER_HOST) does not answer." \
        "Start it, or unset DOCKER_HOST to use this machine's own, then run this again."
fi
if [[ $EUID -ne 0 ]]; then
    if [[ -S /var/run/docker.sock && ! -w /var/run/docker.sock ]]; then
        die "this account may not use the Docker engine of this machine." \
            "Run \`sudo usermod -aG docker $(id -un)\`, log in again, then run this again; or run it as root."
    fi
    die "no Docker engine answers, and only root can install or start one." \
        "Run \`sudo tools/ensure_docker.sh\`, then \`sudo usermod -aG docker $(id -un)\`, log in again and repeat."
fi
case ${OSTYPE:-} in
    linux*) ;;
    *) die "this is not Linux. Start Docker Desktop or another engine yourself, then run this again." ;;
esac

# Two calls at once must not both start an engine. The background engine must not inherit the lock (9>&- below).
exec 9>/var/lock/allin-docker.lock
flock --wait 300 9 || die "another call has been starting Docker for five minutes. Look at $log."
if answers; then
    exit 0
fi

# --- install
if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    command -v apt-get >/dev/null ||
        die "Docker is not installed, and this is neither Debian nor Ubuntu." \
            "Install Docker 20.10 or newer as your distribution says, then run this again."
    apt_log=$(mktemp)
    trap 'rm -f "$apt_log"' EXIT
    say "installing the distribution's Docker (docker.io), about a minute ..."
    export DEBIAN_FRONTEND=noninteractive
    apt_get() { apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$apt_log" 2>&1 9>&-; }
    apt_failed() {
        tail -n 8 "$apt_log" >&2
        die "apt could not install docker.io; the lines above say why." \
            "Make \`apt-get update && apt-get install docker.io\` work on this machine, then run this again."
    }
    apt_get update || apt_failed
    packages=(docker.io)
    # From Debian 13 on the command-line client is a package of its own, which docker.io only recommends.
    if [[ -n $(apt-cache madison docker-cli 2>/dev/null) ]]; then
        packages+=(docker-cli)
    fi
    apt_get install --yes --no-install-recommends "${packages[@]}" ca-certificates iptables || apt_failed
    hash -r
fi

# --- start
runs() { # runs NAME: is there a process of this name?
    local comm
    for comm in /proc/[0-9]*/comm; do
        if [[ $(cat "$comm" 2>/dev/null) == "$1" ]]; then
            return 0
        fi
    done
    return 1
}

is_process() { # is_process PID NAME: is PID alive and of this name?
    [[ -r /proc/$1/comm && $(cat "/proc/$1/comm" 2>/dev/null) == "$2" ]]
}

forget_the_dead() {
    # After a killed session the files stay while the processes are gone. When another program has got the old number,
    # dockerd takes it for itself and refuses to start, or takes it for containerd and waits for that in vain.
    local file name pid
    while read -r file name; do
        [[ -f $file ]] || continue
        pid=$(tr -cd '0-9' <"$file")
        if [[ -z $pid ]] || ! is_process "$pid" "$name"; then
            say "removing $file, left by an engine that is gone"
            rm -f "$file"
        fi
    done <<'FILES'
/var/run/docker.pid dockerd
/var/run/docker/containerd/containerd.pid containerd
/var/run/docker/containerd/docker-containerd.pid containerd
/run/containerd/containerd.pid containerd
FILES
    # dockerd uses a system containerd whenever its socket exists, dead or not.
    if [[ -S /run/containerd/containerd.sock ]] && ! runs containerd; then
        say "removing /run/containerd/containerd.sock, left by a containerd that is gone"
        rm -f /run/containerd/containerd.sock
    fi
}

under_systemd() { [[ -d /run/systemd/system ]]; }

if under_systemd; then
    say "starting the Docker engine (systemctl) ..."
    if ! systemctl start docker.service 9>&-; then
        systemctl status --no-pager --lines=10 docker.service >&2 || true
        die "the Docker engine did not start; the lines above and \`journalctl -u docker\` say why."
    fi
    where='journalctl -u docker'
elif runs dockerd; then
    say "the Docker engine runs but does not answer yet; waiting ..."
    where="$log (or the log of whoever started it)"
else
    forget_the_dead
    # Where no init system did it: the engine needs the kernel's control groups in the file system.
    if ! grep -q ' /sys/fs/cgroup\(/[^ ]*\)\? cgroup' /proc/mounts; then
        say "mounting /sys/fs/cgroup"
        mount -t cgroup2 none /sys/fs/cgroup ||
            die "/sys/fs/cgroup cannot be mounted, so containers cannot run here." \
                "Use a machine (or a container with more rights) where root may mount."
    fi
    say "starting the Docker engine in the background, log in $log ..."
    touch "$log"
    log_before=$(stat --format %s "$log")
    setsid dockerd >>"$log" 2>&1 </dev/null 9>&- &
    engine=$!
    where=$log
fi

being_started() { [[ -n ${engine:-} ]] && kill -0 "$engine" 2>/dev/null; }

deadline=$((SECONDS + start_deadline_seconds))
until answers; do
    # Right after the start the process is not called dockerd yet; and apt may have started one of its own.
    if ! under_systemd && ! being_started && ! runs dockerd; then
        if [[ -n ${log_before:-} ]]; then
            tail -c "+$((log_before + 1))" "$log" | tail -n 4 >&2
        fi
        die "the Docker engine stopped while it started; the lines above and $where say why."
    fi
    if ((SECONDS >= deadline)); then
        die "the Docker engine does not answer after $start_deadline_seconds s. Look at $where." \
            "If it hangs, stop it (\`systemctl stop docker\`, or kill the dockerd process) and run this again."
    fi
    sleep 0.2
done
say "engine $(docker version --format '{{.Server.Version}}') answers"
