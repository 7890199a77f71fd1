#!/usr/bin/python
"""Ansible module `systemd_unit`: put one systemd unit in place, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_unit
author: AllIN operations
short_description: Put one systemd unit in place, verified, in one call
description:
  - Writes a unit file, reloads systemd, enables the unit, masks units that must not run beside it and starts it.
  - A new text is given to C(systemd-analyze verify) before it replaces the old one, in check mode too. Its exit status
    says nothing about misspelled directives, so every line it prints about this unit is a failure.
  - Where nothing has to change, the module runs one command, C(systemctl show).
  - A unit that this task changed is neither started nor restarted here. The handler of the caller does that, so that
    it restarts once, after its configuration is in place. Started is only a unit whose file was already right.
  - After a run that died half-way the next run repairs the rest. It reloads systemd when systemd has not read the file
    yet, and it reports C(changed), so that the handler restarts, when the running unit is older than its file.
  - Drop-ins in C(<name>.d) belong to somebody else. They stay, and are named in the result.
  - A template with O(instances) is treated like that for all of them. Whatever else runs of it is stopped.
options:
  name:
    description: Full name of the unit, for example V(prometheus.service). A template is written as V(name@.service).
    type: str
    required: true
  content:
    description: The whole text of the unit file. Secrets do not belong in it, every local user may read it.
    type: str
    required: true
  enabled:
    description:
      - Whether the unit is started at boot.
      - Needs an C([Install]) section.
      - Set it to V(false) for a unit that a timer or a socket starts, and for a template, whose instances a target
        wants.
    type: bool
    default: true
  instances:
    description:
      - Of a template, the instances that O(state) is about. Every other instance that runs is stopped.
      - Without any, a template is only written.
    type: list
    elements: str
    default: []
  absent:
    description:
      - Units that there must not be beside this one, for example V(worker.service) where it became V(worker@.service).
        They are stopped with their instances and disabled, and their files are removed. Only names that nobody else
        writes belong here.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(started) starts the unit when its file was already right and it is inactive or failed.
      - V(stopped) stops it.
      - V(present) leaves it as it is; right for templates and for units that a timer starts.
    type: str
    choices: [started, stopped, present]
    default: started
  mask:
    description:
      - Units that must not run beside this one, for example V(prometheus-alertmanager.service) of the distribution.
      - They are stopped, disabled and masked. Units that systemd does not know are left out, see O(mask_missing).
    type: list
    elements: str
    default: []
  mask_missing:
    description: Mask units that systemd does not know too, so that a package installed later cannot start them.
    type: bool
    default: false
  reads:
    description:
      - Files, and directories with files, that the unit reads when it starts or is reloaded, and not otherwise.
      - Where one of them is newer than both, an earlier run wrote it and never came to its handlers; then
        RV(restart_due) asks for them again. A path that does not exist is passed over.
      - Leave out what this run itself has changed; its own task notifies.
    type: list
    elements: path
    default: []
  verify:
    description: Whether a new text must pass C(systemd-analyze verify).
    type: bool
    default: true
  unit_dir:
    description: Directory of the unit file.
    type: path
    default: /etc/systemd/system
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Install the Alertmanager unit
  systemd_unit:
    name: alertmanager.service
    content: "{{ lookup('template', 'service.j2') }}"
    mask: [prometheus-alertmanager.service]
  notify: Restart alertmanager

- name: Install three workers where there was one
  systemd_unit:
    name: worker@.service
    content: "{{ lookup('template', 'worker.j2') }}"
    enabled: false
    instances: ['1', '2', '3']
    absent: [worker.service]
  notify: Restart worker

- name: Install a service that its timer starts
  systemd_unit:
    name: backup.service
    content: "{{ lookup('template', 'backup.service.j2') }}"
    enabled: false
    state: present
"""

RETURN = r"""
unit_changed:
  description: systemd now knows another unit than before. The caller's handler has to restart it.
  type: bool
  returned: success
restart_due:
  description:
    - The unit runs since before its file was written, or has not read what is newer of O(reads), because an earlier run
      never came to its handlers.
  type: bool
  returned: success
started:
  description: The unit was started by this task.
  type: bool
  returned: success
stopped:
  description: The unit was stopped by this task.
  type: bool
  returned: success
enabled_changed:
  description: The unit was enabled, enabled again for another target, or disabled.
  type: bool
  returned: success
masked:
  description: Units that this task masked or stopped because they must not run beside this one.
  type: list
  elements: str
  returned: success
reloaded:
  description: systemd was told to read its unit files again.
  type: bool
  returned: success
removed:
  description: Units of O(absent) that were there, and instances that ran and are none of O(instances).
  type: list
  elements: str
  returned: success
active_state:
  description:
    - What systemd says of the unit at the end, for example V(active), V(inactive) or V(failed).
    - Of a template with instances, V(active) when all of them are.
  type: str
  returned: success
drop_ins:
  description: Drop-in files that change this unit and are not ours.
  type: list
  elements: str
  returned: success
unit_file:
  description: Path of the unit file.
  type: str
  returned: success
previous:
  description:
    - What this task replaced, to put it back. Its C(name) and C(content) are parameters of this module, and
      C(instances) are those that ran. That is this unit, or what was there in its place, the first unit of O(absent)
      with the same name before C(@) or the dot.
    - Empty where nothing was replaced.
  type: dict
  returned: success
"""

import contextlib
import fnmatch
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ansible.module_utils.basic import AnsibleModule

UNIT_MODE = 0o644
NULL = "/dev/null"
UNIT_TYPES = ("service", "socket", "timer", "path", "target", "mount", "automount", "swap", "slice")
UNIT_NAME = re.compile(rf"[A-Za-z0-9:_.\\@-]+\.({'|'.join(UNIT_TYPES)})")
ANY_UNIT = re.compile(rf"[A-Za-z0-9:_.\\@-]+\.({'|'.join(UNIT_TYPES)})\b")
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "FragmentPath",
    "DropInPaths",
    "ActiveEnterTimestampMonotonic",
    "StateChangeTimestampMonotonic",
)
# English and plain output, whatever the user's environment says.
ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_LOG_LEVEL": "info",
    "SYSTEMD_LOG_TARGET": "console",
    "SYSTEMD_LOG_LOCATION": "0",
    "SYSTEMD_LOG_TIME": "0",
}
INSTALL_LINKS = {"WantedBy", "RequiredBy", "UpheldBy", "Alias"}
MISSING_COMMAND = re.compile(r"Command .* is not executable: No such file or directory")
MISSING_UNIT = re.compile(r"Unit \S+ not found|service \S+ not loaded")
# Slack, in seconds, between the clock of the file system and the one that systemd reads.
CLOCK_SLACK = 0.1


def is_template(name: str) -> bool:
    """Say whether `name` is a template such as `worker@.service`, which itself never runs."""
    return "@." in name


def instance_of(template: str, instance: str) -> str:
    """Return the name of an instance: `worker@.service` and `1` give `worker@1.service`."""
    return template.replace("@.", f"@{instance}.")


def stem(name: str) -> str:
    """Return the name of the service that a unit belongs to: `worker` of `worker@.service` and of `worker.target`."""
    return re.split("[@.]", name, maxsplit=1)[0]


def is_down(unit: dict[str, str]) -> bool:
    """Say whether a unit, by what systemd says of it, neither runs nor is about to."""
    return unit.get("ActiveState", "inactive") in ("inactive", "failed")


def install_section(text: str) -> dict[str, list[str]]:
    """Return the settings of the [Install] section of a unit file, in the order written."""
    settings: dict[str, list[str]] = {}
    section = ""
    # systemd lets a value go on in the next line after a backslash.
    for raw in re.sub(r"\\\n", " ", text).splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == "Install" and line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            settings.setdefault(key.strip(), []).extend(value.split())
    return settings


def parse_show(output: str, names: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[dict[str, str]]]:
    """Split the output of `systemctl show` into properties by asked name, and the units that a pattern found besides.

    systemd answers in the order asked, and under its own name where an alias was asked for, so the order counts.
    Raises ValueError when there are fewer answers than names.
    """
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in re.split(r"\n\s*\n", output.strip())
        if block.strip()
    ]
    if len(blocks) < len(names):
        raise ValueError(f"{len(names)} units asked for, {len(blocks)} answers")
    return dict(zip(names, blocks, strict=False)), blocks[len(names) :]


@dataclass
class Findings:
    """What `systemd-analyze verify` said, sorted."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def sort_findings(lines: Iterable[str], name: str, *, check_mode: bool) -> Findings:
    """Sort the lines of `systemd-analyze verify` into those about unit `name` and the rest.

    In check mode the program or another unit may be missing because an earlier task only pretended to install it.
    """
    stem, suffix = name.rsplit(".", 1)
    instance = r"[^\s/]*" if stem.endswith("@") else ""
    # Not `my-<name>`, and not `<name>.d/x.conf`: a drop-in is not ours to mend.
    ours = re.compile(rf"(?<![\w@.:\\-]){re.escape(stem)}{instance}\.{suffix}(?![\w@-]|\.\w)")
    findings = Findings()
    for line in lines:
        if not ours.search(line):
            findings.warnings.append(line)
        elif check_mode and MISSING_COMMAND.search(line):
            continue
        elif check_mode and MISSING_UNIT.search(line):
            findings.warnings.append(line)
        else:
            findings.errors.append(line)
    return findings


@dataclass
class Plan:
    """Everything that has to be done, found before anything is touched."""

    write: bool = False
    permissions: bool = False
    enabling: str = ""  # the systemctl verb: enable, reenable or disable
    reload: bool = False
    start: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)  # instances that nobody wants any more
    replaced: list[str] = field(default_factory=list)  # units whose place this one takes
    replaced_running: list[str] = field(default_factory=list)
    replaced_enabled: list[str] = field(default_factory=list)
    restart_due: bool = False
    stop_others: list[str] = field(default_factory=list)
    disable_others: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)

    @property
    def masked(self) -> list[str]:
        """Other units that are touched."""
        return list(dict.fromkeys([*self.stop_others, *self.disable_others, *self.mask]))

    @property
    def removed(self) -> list[str]:
        """Units that are no more."""
        return [*self.replaced, *self.surplus]

    @property
    def changed(self) -> bool:
        """Whether there is anything to do or to tell the handlers."""
        work = (self.write, self.permissions, self.enabling, self.reload, self.start, self.stop, self.restart_due)
        return any(work) or bool(self.masked or self.removed)


def newest(paths: Iterable[Path]) -> float:
    """Return when anything in these files and directories was last written or removed, in Unix seconds; 0 for never."""
    times = [0.0]
    for path in paths:
        for one in (path, *path.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                times.append(one.lstat().st_mtime)
    return max(times)


def is_before(unit: dict[str, str], name: str, written: float) -> bool:
    """Say whether a moment that systemd knows of a unit lies before one of the file system, in Unix seconds."""
    since_boot = unit.get(name, "0")
    if not since_boot.isdigit() or since_boot == "0":
        return False
    now = time.time()
    moment = now - time.clock_gettime(time.CLOCK_MONOTONIC) + int(since_boot) / 1e6
    # A file from the future means that the clock was set back; then the times say nothing.
    return bool(moment + CLOCK_SLACK < written <= now)


class SystemdUnit:
    """One run of the module: read, plan, verify, then apply."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name: str = module.params["name"]
        self.content: str = module.params["content"].rstrip("\n") + "\n"
        self.enabled: bool = module.params["enabled"]
        self.state: str = module.params["state"]
        self.masks: list[str] = list(dict.fromkeys(module.params["mask"]))
        self.instances: list[str] = list(dict.fromkeys(module.params["instances"]))
        self.absent: list[str] = list(dict.fromkeys(module.params["absent"]))
        self.reads = [Path(path) for path in module.params["reads"]]
        self.unit_dir = Path(module.params["unit_dir"])
        self.path = self.unit_dir / self.name
        self.systemctl: str = module.get_bin_path("systemctl", required=True)
        self.before = ""
        self.exists = False
        self.permissions_wrong = False
        self.unit: dict[str, str] = {}
        self.others: dict[str, dict[str, str]] = {}
        self.loaded: dict[str, dict[str, str]] = {}  # instances of this template that systemd knows
        self.replaced: dict[str, dict[str, dict[str, str]]] = {}  # absent unit that is there -> it and its instances

    def fail(self, message: str, **more: object) -> NoReturn:
        """End the module with a message for a person."""
        self.module.fail_json(msg=message, **more)
        raise AssertionError("unreachable")  # fail_json exits

    # Reading

    def check_parameters(self) -> None:
        """Refuse what cannot work, before anything is read or changed."""
        for name in [self.name, *self.masks, *self.absent, *(instance_of(self.name, one) for one in self.instances)]:
            if not UNIT_NAME.fullmatch(name):
                self.fail(f"name: {name!r} is not the full name of a unit. Write for example: prometheus.service")
        if self.name in self.masks:
            self.fail(f"mask: {self.name} is the unit itself; take it off the list.")
        if self.name in self.absent:
            self.fail(f"absent: {self.name} is the unit itself; take it off the list.")
        if self.instances and not is_template(self.name):
            self.fail(f"instances: {self.name} is no template; that would be {self.name.replace('.', '@.', 1)}.")
        if not self.content.strip():
            self.fail(f"content: the text of {self.name} is empty. Write the whole unit file.")
        if is_template(self.name) and (self.enabled or (self.state != "present" and not self.instances)):
            self.fail(
                f"{self.name} is a template, which itself is neither enabled nor started. "
                "Set enabled: false, and either name its instances or set state: present."
            )
        if self.enabled and not install_section(self.content).keys() & {*INSTALL_LINKS, "Also"}:
            self.fail(
                f"{self.name} cannot be enabled: its text has no [Install] section that says where, such as "
                "WantedBy=multi-user.target. Add one, or set enabled: false."
            )
        if not self.unit_dir.is_dir():
            self.fail(f"unit_dir: {self.unit_dir} is not a directory. Is systemd installed on this host?")

    def read_file(self) -> None:
        """Read the unit file that is there now, with its mode and owner."""
        try:
            info = self.path.lstat()
            if stat.S_ISLNK(info.st_mode):
                # Masked, or linked from elsewhere; either way our file takes its place.
                self.before = f"# a link to {self.path.readlink()}\n"
                return
            if not stat.S_ISREG(info.st_mode):
                self.fail(f"{self.path} is not a file. Move it away.")
            self.before = self.path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return
        except OSError as error:
            self.fail(f"cannot read {self.path}: {error.strerror}. Run the task with become: true.")
        self.exists = True
        wrong_owner = os.geteuid() == 0 and (info.st_uid, info.st_gid) != (0, 0)
        self.permissions_wrong = wrong_owner or stat.S_IMODE(info.st_mode) != UNIT_MODE

    def read_systemd(self) -> None:
        """Ask systemd for everything at once."""
        there = [
            name for name in self.absent if (self.unit_dir / name).is_file() and not (self.unit_dir / name).is_symlink()
        ]
        names = [*self.masks, *(name for name in there if not is_template(name))]
        # A template cannot be asked for, its loaded instances can.
        patterns = {name: instance_of(name, "*") for name in [self.name, *there] if is_template(name)}
        if not is_template(self.name):
            names.insert(0, self.name)
        output = self.run("show", f"--property={','.join(PROPERTIES)}", "--", *names, *patterns.values())
        try:
            found, extra = parse_show(output, names)
        except ValueError as error:
            self.fail(f"systemctl show gave an answer that does not fit the question: {error}.", stdout=output)
        instances = {
            template: {unit["Id"]: unit for unit in extra if fnmatch.fnmatchcase(unit.get("Id", ""), pattern)}
            for template, pattern in patterns.items()
        }
        self.unit = found.pop(self.name, {})
        self.loaded = instances.get(self.name, {})
        self.replaced = {name: instances[name] if is_template(name) else {name: found.pop(name)} for name in there}
        self.others = found

    @property
    def targets(self) -> dict[str, dict[str, str]]:
        """What `state` is about: the unit itself, or the instances of a template, with what systemd says of each."""
        if not is_template(self.name):
            return {self.name: self.unit}
        names = [instance_of(self.name, one) for one in self.instances]
        return {name: self.loaded.get(name, {}) for name in names}

    def run(self, *arguments: str) -> str:
        """Run systemctl and return what it printed; end the module when it fails."""
        rc, out, err = self.module.run_command([self.systemctl, "--no-pager", *arguments], environ_update=ENVIRONMENT)
        if rc != 0:
            said = (err or out).strip() or f"exit status {rc}"
            hint = f" Read: journalctl -u {self.name} -n 50" if arguments[0] in ("start", "stop") else ""
            words = " ".join(word for word in arguments if not word.startswith("--"))
            self.fail(f"systemctl {words} failed: {said}{hint}", rc=rc, stdout=out, stderr=err)
        return str(out)

    # Planning

    def plan(self) -> Plan:
        """Compare what is there with what is wanted."""
        plan = Plan()
        plan.write = not self.exists or self.before != self.content
        plan.permissions = self.permissions_wrong and not plan.write
        plan.enabling = self.plan_enabling()
        stale = self.is_stale()
        self.plan_masks(plan)
        self.plan_replaced(plan)
        plan.reload = plan.write or stale or bool(plan.enabling or plan.mask or plan.disable_others or plan.replaced)
        plan.reload = plan.reload or any(self.is_unread_mask(name) for name in self.masks)
        handler_starts_it = plan.write or stale
        if self.state == "started" and not handler_starts_it:
            plan.start = [name for name, unit in self.targets.items() if is_down(unit)]
            plan.restart_due = any(self.is_behind(unit) for unit in self.targets.values())
        if self.state == "stopped":
            plan.stop = [name for name, unit in self.targets.items() if not is_down(unit)]
        if self.instances:
            plan.surplus = [
                name for name, unit in self.loaded.items() if name not in self.targets and not is_down(unit)
            ]
        return plan

    def plan_replaced(self, plan: Plan) -> None:
        """Plan the end of the units whose place this one takes."""
        for name, units in self.replaced.items():
            plan.replaced.append(name)
            plan.replaced_running.extend(one for one, unit in units.items() if not is_down(unit))
            plan.replaced_enabled.extend(
                one for one, unit in units.items() if unit.get("UnitFileState") in ("enabled", "enabled-runtime")
            )

    def is_stale(self) -> bool:
        """Say whether systemd still knows the unit as it was before its file changed."""
        return any(unit.get("NeedDaemonReload") == "yes" for unit in [self.unit, *self.loaded.values()])

    def plan_enabling(self) -> str:
        """Return the systemctl verb that makes the boot links right, or nothing."""
        state = self.unit.get("UnitFileState", "")
        if not self.enabled:
            return "disable" if state in ("enabled", "enabled-runtime") else ""
        wanted = install_section(self.content)
        # With nothing but Also= a unit is never called "enabled".
        right = {"enabled", "alias"} if wanted.keys() & INSTALL_LINKS else {"enabled", "alias", "indirect"}
        if state not in right:
            return "enable"
        fragment = self.unit.get("FragmentPath", "")
        known = self.before
        if not self.exists and fragment and fragment != str(self.path):
            # Enabled through the distribution's file, which ours now covers.
            with contextlib.suppress(OSError):
                known = Path(fragment).read_text(encoding="utf-8", errors="surrogateescape")
        return "reenable" if install_section(known) != wanted else ""

    def plan_masks(self, plan: Plan) -> None:
        """Plan what happens to the units that must not run beside ours."""
        for name, unit in self.others.items():
            on_disk = self.is_masked(name)
            if unit.get("LoadState") == "not-found" and not on_disk and not self.module.params["mask_missing"]:
                continue
            if unit.get("ActiveState", "inactive") not in ("inactive", "failed"):
                plan.stop_others.append(name)
            if on_disk:
                continue
            link = self.unit_dir / name
            if link.is_file() and not link.is_symlink():
                self.fail(
                    f"{name} cannot be masked: somebody wrote {link}. "
                    "Remove that file, or take the unit off the list `mask`."
                )
            if unit.get("UnitFileState") in ("enabled", "enabled-runtime"):
                plan.disable_others.append(name)
            plan.mask.append(name)

    def is_masked(self, name: str) -> bool:
        """Say whether the link that masks unit `name` is there."""
        link = self.unit_dir / name
        return link.is_symlink() and str(link.readlink()) == NULL

    def is_unread_mask(self, name: str) -> bool:
        """Say whether unit `name` is masked on disk and systemd has not read that yet."""
        return self.is_masked(name) and self.others[name].get("LoadState") == "loaded"

    def is_behind(self, unit: dict[str, str]) -> bool:
        """Say whether a unit runs an older file, or has not read what is newer. A target runs nothing, so never."""
        if unit.get("ActiveState") != "active" or self.name.endswith(".target"):
            return False
        written = self.path.lstat().st_mtime
        # A reload changes the state for a moment, so that its time counts; it is no start for the unit's own file.
        return is_before(unit, "ActiveEnterTimestampMonotonic", written) or (
            bool(self.reads) and is_before(unit, "StateChangeTimestampMonotonic", newest(self.reads))
        )

    # Verifying

    def verify(self) -> None:
        """Let systemd-analyze read the new text under its right name; end the module when it complains."""
        analyze = self.module.get_bin_path("systemd-analyze", required=True)
        # Not module.tmpdir: with pipelining that makes a directory in root's home, in check mode too, and warns.
        with tempfile.TemporaryDirectory(prefix="unit-") as directory:
            staged = Path(directory) / self.name
            staged.write_bytes(self.content.encode("utf-8", "surrogateescape"))
            rc, out, err = self.module.run_command(
                [analyze, "verify", "--man=no", str(staged)], environ_update=ENVIRONMENT
            )
        said = f"{out}\n{err}".replace(directory, str(self.unit_dir))
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        findings = sort_findings(lines, self.name, check_mode=self.module.check_mode)
        if findings.errors:
            shown = "\n".join(f"  {line}" for line in findings.errors)
            self.fail(
                f"systemd does not accept {self.name}, nothing was changed:\n{shown}\n"
                "Mend the template of the unit or the variables that go into it.",
                findings=findings.errors,
            )
        if rc != 0 and not any(ANY_UNIT.search(line) for line in lines):
            # It complained about no unit at all, so it never came to read ours.
            self.fail(
                f"systemd-analyze could not check {self.name} (exit status {rc}): {' '.join(lines) or 'no output'}. "
                "Nothing was changed. Set verify: false if it cannot work on this host.",
                rc=rc,
            )
        for line in findings.warnings:
            self.module.warn(f"systemd-analyze, while it checked {self.name}: {line}")

    # Applying

    def write(self) -> None:
        """Replace the unit file in one step that survives a power cut."""
        staged = self.unit_dir / f".{self.name}.new"  # systemd does not read names that start with a dot
        try:
            staged.unlink(missing_ok=True)
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(self.content.encode("utf-8", "surrogateescape"))
                stream.flush()
                self.set_permissions(stream.fileno())
                os.fsync(stream.fileno())
            staged.replace(self.path)
            directory = os.open(self.unit_dir, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            self.fail(f"cannot write {self.path}: {error.strerror}. Run the task with become: true.")

    def set_permissions(self, target: int | Path) -> None:
        """Give the file its mode, and to root when this runs as root."""
        os.chmod(target, UNIT_MODE)  # noqa: PTH101  # Path.chmod takes no file descriptor
        if os.geteuid() == 0:
            os.chown(target, 0, 0)

    def apply(self, plan: Plan) -> None:
        """Do what was planned. Every step may be repeated, so that a run that died is mended by the next."""
        if plan.replaced_running or plan.surplus:
            self.run("stop", "--", *plan.replaced_running, *plan.surplus)
        if plan.replaced_enabled:
            self.run("disable", "--no-reload", "--", *plan.replaced_enabled)
        for name in plan.replaced:
            # Last: as long as the file is there, the next run knows that something is left to do.
            (self.unit_dir / name).unlink(missing_ok=True)
        if plan.stop_others:
            self.run("stop", "--", *plan.stop_others)
        if plan.disable_others:
            self.run("disable", "--no-reload", "--", *plan.disable_others)
        for name in plan.mask:
            link = self.unit_dir / name
            try:
                link.symlink_to(NULL)
            except OSError as error:
                self.fail(f"cannot mask {name}: {link}: {error.strerror}. Remove that file or link.")
        if plan.write:
            self.write()
        if plan.permissions:
            self.set_permissions(self.path)
        if plan.enabling:
            self.run(plan.enabling, "--no-reload", "--", self.name)
        if plan.reload:
            self.run("daemon-reload")
        if plan.start:
            failed = [name for name in plan.start if self.targets[name].get("ActiveState") == "failed"]
            if failed:
                # Else a unit that failed too often is refused with "start request repeated too quickly".
                self.run("reset-failed", "--", *failed)
            self.run("start", "--", *plan.start)
        if plan.stop:
            self.run("stop", "--", *plan.stop)

    def active_state(self, plan: Plan) -> str:
        """Return what systemd says of the unit, asking again only where this task may have changed it."""
        states = [unit.get("ActiveState", "inactive") for unit in self.targets.values()]
        if not self.module.check_mode and (plan.start or plan.stop):
            states = self.run("show", "--property=ActiveState", "--value", "--", *self.targets).split()
        return next((state for state in states if state != "active"), "active") if states else "inactive"

    def previous(self, plan: Plan) -> dict[str, object]:
        """Return what a rollback has to put back: parameters of this module, or nothing."""
        for name, units in self.replaced.items():
            if stem(name) != stem(self.name):
                continue
            running = [one for one, unit in units.items() if not is_down(unit)]
            content = (self.unit_dir / name).read_bytes().decode("utf-8", "surrogateescape")
            return self.as_parameters(name, content, running)
        running = [name for name, unit in self.loaded.items() if not is_down(unit)]
        if self.exists and (plan.write or plan.surplus or (is_template(self.name) and plan.start)):
            return self.as_parameters(self.name, self.before, running)
        return {}

    @staticmethod
    def as_parameters(name: str, content: str, running: list[str]) -> dict[str, object]:
        """Return a unit and the instances of it that run as parameters of this module."""
        start, _, end = name.partition("@")
        instances = [one.removeprefix(f"{start}@").removesuffix(end) for one in running] if is_template(name) else []
        return {"name": name, "content": content, "instances": sorted(instances)}

    def drop_ins(self) -> list[str]:
        """Return the drop-in files of the unit, those systemd has read and those it has not."""
        found = {path for unit in [self.unit, *self.loaded.values()] for path in unit.get("DropInPaths", "").split()}
        found.update(str(path) for path in self.unit_dir.glob(f"{self.name}.d/*.conf"))
        return sorted(found)

    def diff(self, plan: Plan) -> list[dict[str, str]]:
        """Return before and after of the file, and of the states where they change."""
        diffs = []
        if plan.write:
            header = str(self.path)
            after = {"before_header": header, "after_header": header, "after": self.content}
            diffs.append({"before": self.before.encode("utf-8", "replace").decode(), **after})
        now, then = self.unit.get("UnitFileState") or "unknown", "disabled" if plan.enabling == "disable" else "enabled"
        states = [
            (plan.permissions, "mode and owner", "wrong", "0644 root root"),
            (bool(plan.enabling), "at boot", now, "enabled for other units" if plan.enabling == "reenable" else then),
            (plan.reload and not plan.write, "read by systemd", "no", "yes"),
            *((True, self.running(name), self.state_of(name), "active") for name in plan.start),
            *((True, self.running(name), self.state_of(name), "inactive") for name in plan.stop),
            (plan.restart_due, "running", "with an older unit file or configuration", "to be restarted by a handler"),
            *(
                (True, name, self.others[name].get("ActiveState", "inactive"), "stopped and masked")
                for name in plan.masked
            ),
            *((True, name, "present", "stopped and removed") for name in plan.removed),
        ]
        changes = [(label, before, after) for due, label, before, after in states if due]
        if changes:
            header = f"{self.name} (state)"
            diffs.append(
                {
                    "before_header": header,
                    "after_header": header,
                    "before": "".join(f"{label}: {before}\n" for label, before, _ in changes),
                    "after": "".join(f"{label}: {after}\n" for label, _, after in changes),
                }
            )
        return diffs

    def running(self, name: str) -> str:
        """Return how the diff calls the state of a unit."""
        return "running" if name == self.name else f"{name} running"

    def state_of(self, name: str) -> str:
        """Return what systemd said of one of the targets."""
        return self.targets[name].get("ActiveState", "inactive")

    def main(self) -> NoReturn:
        """Run the whole and print the result."""
        self.check_parameters()
        self.read_file()
        self.read_systemd()
        plan = self.plan()
        if plan.write and self.module.params["verify"]:
            self.verify()
        previous = self.previous(plan)  # before its file goes
        if not self.module.check_mode:
            self.apply(plan)
        result: dict[str, object] = {
            "changed": plan.changed,
            "unit_changed": plan.write or self.is_stale(),
            "restart_due": plan.restart_due,
            "started": bool(plan.start),
            "stopped": bool(plan.stop),
            "enabled_changed": bool(plan.enabling),
            "masked": plan.masked,
            "removed": plan.removed,
            "reloaded": plan.reload,
            "active_state": self.active_state(plan),
            "drop_ins": self.drop_ins(),
            "unit_file": str(self.path),
            "previous": previous,
        }
        if self.module._diff:
            result["diff"] = self.diff(plan)
        self.module.exit_json(**result)
        raise AssertionError("unreachable")  # exit_json exits


def main() -> None:
    """Entry point for Ansible."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "enabled": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["started", "stopped", "present"], "default": "started"},
            "instances": {"type": "list", "elements": "str", "default": []},
            "absent": {"type": "list", "elements": "str", "default": []},
            "mask": {"type": "list", "elements": "str", "default": []},
            "mask_missing": {"type": "bool", "default": False},
            "reads": {"type": "list", "elements": "path", "default": []},
            "verify": {"type": "bool", "default": True},
            "unit_dir": {"type": "path", "default": "/etc/systemd/system"},
        },
        supports_check_mode=True,
    )
    SystemdUnit(module).main()


if __name__ == "__main__":
    main()
