#!/bin/sh
# Runs inside the new root directory, as root, by build.sh or the Dockerfile: turns a minimal Debian into the host image.
# Its own directory holds what build.sh staged: debian.sources, apt.conf, keyrings/, certificates/ (any may be missing).
set -eu

staged=$(dirname "$0")

# --- apt: the machine's mirror, and nothing of a container's habit of hiding package lists or refusing to start services
if [ -s "$staged/debian.sources" ]; then
    rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
    install -m 0644 "$staged/debian.sources" /etc/apt/sources.list.d/debian.sources
fi
if [ -s "$staged/apt.conf" ]; then
    install -m 0644 "$staged/apt.conf" /etc/apt/apt.conf.d/90allin-machine
fi
for keyring in "$staged"/keyrings/*; do
    [ -f "$keyring" ] && install -m 0644 "$keyring" "/usr/share/keyrings/$(basename "$keyring")"
done
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-*
cat >/etc/apt/apt.conf.d/91allin-image <<'CONF'
// A throw-away host: no translations, no recommended packages that only a desktop needs.
Acquire::Languages "none";
APT::Install-Recommends "false";
CONF
# A host that lives for an hour need not survive a power cut; this makes installing packages several times quicker.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/allin-unsafe-io

# --- the certificates that this machine trusts beyond Debian's own (a proxy that inspects TLS, for example)
for certificate in "$staged"/certificates/*.crt; do
    [ -f "$certificate" ] && install -m 0644 "$certificate" "/usr/local/share/ca-certificates/$(basename "$certificate")"
done
update-ca-certificates >/dev/null

# --- the account that Ansible connects as: unprivileged, root only through sudo, as on a real host
if ! id allin >/dev/null 2>&1; then
    useradd --uid 1000 --create-home --shell /bin/bash allin
fi
echo 'allin ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/allin
chmod 0440 /etc/sudoers.d/allin
visudo --check --quiet --file=/etc/sudoers.d/allin

# --- systemd without what a container has not: hardware, consoles, its own network, kernel settings.
# Also without timers that take apt's lock or disk time in the middle of a test.
for unit in \
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-udev-trigger.service systemd-udev-settle.service systemd-hwdb-update.service \
    getty.target getty-static.service console-getty.service autovt@.service getty@.service serial-getty@.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-vconsole-setup.service \
    systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service \
    systemd-resolved.service systemd-timesyncd.service \
    systemd-modules-load.service systemd-sysctl.service systemd-binfmt.service \
    systemd-remount-fs.service systemd-firstboot.service systemd-machine-id-commit.service \
    systemd-pstore.service systemd-random-seed.service \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount \
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount \
    apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target

install -d -m 0755 /etc/systemd/journald.conf.d /etc/systemd/system.conf.d
cat >/etc/systemd/journald.conf.d/allin.conf <<'CONF'
# The journal lives in memory and stays small; the container's disk is for what is tested.
[Journal]
Storage=volatile
RuntimeMaxUse=64M
ForwardToSyslog=no
CONF
cat >/etc/systemd/system.conf.d/allin.conf <<'CONF'
# A unit that hangs should fail a test in seconds, not after systemd's minute and a half.
[Manager]
DefaultTimeoutStopSec=20s
ShowStatus=no
CONF

# --- a host makes its own identity when it starts
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id
# `docker build` has mounted a file of its own there, which is in nobody's way.
rm -f /etc/hostname 2>/dev/null || true
echo 'LANG=C.UTF-8' >/etc/default/locale
