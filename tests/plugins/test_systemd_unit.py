"""The module `systemd_unit`, against a small systemd made of files and against the real `systemd-analyze`.

The fake `systemctl` remembers what systemd has read, enabled and started, so a run can be repeated, or cut off between
two steps, as on a real host. `systemd-analyze` is the real one wherever a test is about what systemd accepts.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from plugins.modules import systemd_unit

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "prometheus.service"
OTHER = "prometheus-alertmanager.service"
UNIT = """\
[Unit]
Description=Test
[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""

FAKE_SYSTEMCTL = r"""
import fnmatch, json, os, sys, time
from pathlib import Path

root = Path(os.environ["FAKE_SYSTEMD"])
state = json.loads((root / "state.json").read_text())
units = root / "units"
arguments = [word for word in sys.argv[1:] if word not in ("--no-pager", "--")]
with (root / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\n")
verb, options = arguments[0], [word for word in arguments if word.startswith("--")]
names = [word for word in arguments[1:] if not word.startswith("--")]


def on_disk(name):
    path = units / name
    if path.is_symlink() and os.readlink(path) == "/dev/null":
        return "masked"
    if path.exists():
        return path.read_text()
    return state["vendor"].get(name)


def lines(text, key):
    return [line.split("=", 1)[1] for line in (text or "").splitlines() if line.startswith(key + "=")]


def show(name):
    template = name.split("@")[0] + "@.service" if "@" in name else name
    text = on_disk(name) if on_disk(name) is not None else on_disk(template)
    read = state["loaded"].setdefault(name, text)
    load = "not-found" if read is None else "masked" if read == "masked" else "loaded"
    file_state = ""
    if text == "masked":
        file_state = "masked"
    elif text is not None:
        file_state = "enabled" if name in state["enabled"] else "disabled" if lines(text, "WantedBy") else "static"
    vendor = name in state["vendor"] and not (units / name).exists()
    fragment = str(root / "vendor" / name) if vendor else str(units / name) if load == "loaded" else ""
    drop_ins = units / (name + ".d")
    known = {
        "Id": name, "LoadState": load, "ActiveState": state["active"].get(name, "inactive"),
        "UnitFileState": file_state, "NeedDaemonReload": "no" if text == read else "yes", "FragmentPath": fragment,
        "DropInPaths": " ".join(sorted(map(str, drop_ins.glob("*.conf")))),
        "ActiveEnterTimestampMonotonic": str(state["since"].get(name, 0)),
        "StateChangeTimestampMonotonic": str(state["reloaded"].get(name, state["since"].get(name, 0))),
    }
    if "--value" in options:
        return known[options[0].split("=")[1]]
    return "\n".join(f"{key}={known[key]}" for key in options[0].split("=", 1)[1].split(","))


if verb in state["fail"]:
    sys.exit(state["fail"][verb])
if verb == "show":
    for name in names:
        if name.split(".")[0].endswith("@"):
            sys.exit(f"Unit name {name} is neither a valid invocation ID nor unit name.")
    patterns = [name for name in names if "*" in name]
    names = [name for name in names if "*" not in name]
    names += [name for pattern in patterns for name in state["active"] if fnmatch.fnmatch(name, pattern)]
    print("\n\n".join(show(name) for name in names))
elif verb == "daemon-reload":
    state["loaded"] = {}
    for name in [path.name for path in units.iterdir() if not path.is_dir()]:
        state["loaded"][name] = on_disk(name)
elif verb in ("enable", "reenable"):
    for name in names:
        text = on_disk(name)
        if not lines(text, "WantedBy"):
            sys.exit(f"{name} has no installation config")
        if verb == "reenable" or name not in state["enabled"]:
            state["enabled"][name] = lines(text, "WantedBy")
elif verb == "disable":
    for name in names:
        state["enabled"].pop(name, None)
elif verb == "stop":
    for name in names:
        state["active"][name] = "inactive"
elif verb == "reset-failed":
    for name in names:
        state["active"][name] = "inactive"
elif verb in ("start", "restart"):
    for name in names:
        if verb == "start" and state["active"].get(name) == "failed":
            sys.exit("Start request repeated too quickly.")
        state["active"][name] = "active"
        state["since"][name] = int(time.monotonic() * 1e6)
else:
    sys.exit(f"unknown verb {verb}")
(root / "state.json").write_text(json.dumps(state))
"""

FAKE_ANALYZE = r"""
import os, sys
from pathlib import Path

root = Path(os.environ["FAKE_SYSTEMD"])
with (root / "calls").open("a") as calls:
    calls.write("verify " + Path(sys.argv[-1]).name + "\n")
said = root / "analyze"
if said.exists():
    rc, _, text = said.read_text().partition("\n")
    sys.stderr.write(text.replace("STAGED", sys.argv[-1]))
    sys.exit(int(rc))
"""


@dataclass
class Host:
    """A host with a systemd made of files."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def units(self) -> Path:
        """The directory of the unit files."""
        return self.root / "units"

    @property
    def unit(self) -> Path:
        """The file of the unit that most tests write."""
        return self.units / NAME

    @property
    def state(self) -> dict[str, Any]:
        """What the fake systemd knows."""
        state: dict[str, Any] = json.loads((self.root / "state.json").read_text())
        return state

    def set(self, **changes: Any) -> None:
        """Overwrite parts of what the fake systemd knows."""
        (self.root / "state.json").write_text(json.dumps(self.state | changes))

    def calls(self) -> list[str]:
        """Return the commands since the last time, `show` without its long list of properties."""
        path = self.root / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [" ".join(word for word in line.split() if not word.startswith("--property")) for line in found]

    def analyze_says(self, text: str, rc: int = 0) -> None:
        """Let the fake systemd-analyze print this; STAGED stands for the path of the file that it reads."""
        (self.root / "analyze").write_text(f"{rc}\n{text}\n")

    def run(self, *, check: bool = False, **parameters: Any) -> dict[str, Any]:
        """Run the module once and return its result."""
        parameters = {"name": NAME, "content": UNIT, "unit_dir": str(self.units)} | parameters
        internal = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_tmpdir": str(self.root / "tmp")}
        warned: list[str] = []  # Ansible keeps warnings per process, which here is all tests
        with (
            patch_module_args(parameters | internal),
            mock.patch.object(AnsibleModule, "warn", lambda _module, text: warned.append(text)),
            pytest.raises(SystemExit),
        ):
            systemd_unit.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result | {"warnings": warned}

    def fail(self, **parameters: Any) -> str:
        """Run the module, which must fail, and return its message."""
        result = self.run(**parameters)
        assert result.get("failed") is True, result
        return str(result["msg"])

    def handler(self, name: str = NAME) -> None:
        """Do what the caller's handler does after a change."""
        state = self.state
        now = int(time.monotonic() * 1e6) + 1_000_000  # surely after the file was written
        state["active"][name] = "active"
        state["since"][name] = now
        (self.root / "state.json").write_text(json.dumps(state))

    def installed(self, **parameters: Any) -> None:
        """Bring the unit to the state after a whole run, handlers included."""
        result = self.run(**parameters)
        assert result["changed"] is True
        self.handler()
        self.calls()

    def snapshot(self) -> dict[str, tuple[int, str]]:
        """Return mode and content of everything in the unit directory."""
        return {
            str(path.relative_to(self.units)): (
                path.lstat().st_mode,
                str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else "",
            )
            for path in sorted(self.units.rglob("*"))
        }


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    """A clean host with a fake systemctl and a fake systemd-analyze first on PATH."""
    for name in ("bin", "units", "tmp", "vendor"):
        (tmp_path / name).mkdir()
    for name, source in (("systemctl", FAKE_SYSTEMCTL), ("systemd-analyze", FAKE_ANALYZE)):
        program = tmp_path / "bin" / name
        program.write_text(f"#!{sys.executable} -IS\n{source}")
        program.chmod(0o755)
    state: dict[str, Any] = {"vendor": {}, "loaded": {}, "enabled": {}, "active": {}, "fail": {}}
    state |= {"since": {}, "reloaded": {}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SYSTEMD", str(tmp_path))
    return Host(tmp_path, capsys)


@pytest.fixture
def real_analyze(host: Host) -> Host:
    """The same host with the machine's own systemd-analyze."""
    (host.root / "bin" / "systemd-analyze").unlink()
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing; install the package systemd"
    return host


# Files, boot links, starting


def test_a_new_unit_is_verified_written_enabled_and_left_to_the_handler(host: Host) -> None:
    result = host.run()
    assert host.calls() == [f"show {NAME}", f"verify {NAME}", f"enable --no-reload {NAME}", "daemon-reload"]
    assert host.unit.read_text() == UNIT
    assert stat.S_IMODE(host.unit.stat().st_mode) == 0o644
    assert (result["changed"], result["unit_changed"], result["enabled_changed"]) == (True, True, True)
    assert (result["started"], result["active_state"]) == (False, "inactive")
    assert result["unit_file"] == str(host.unit)
    assert sorted(path.name for path in host.units.iterdir()) == [NAME], "a staged file was left behind"


def test_a_run_without_change_is_one_command(host: Host) -> None:
    host.installed(mask=[OTHER])
    result = host.run(mask=[OTHER])
    assert result["changed"] is False
    assert result["diff"] == []
    assert host.calls() == [f"show {NAME} {OTHER}"]


def test_a_missing_last_newline_is_no_change(host: Host) -> None:
    host.installed()
    assert host.run(content=UNIT.rstrip("\n"))["changed"] is False


def test_a_changed_unit_that_does_not_run_is_left_to_the_handler(host: Host) -> None:
    host.installed()
    host.set(active={NAME: "failed"})
    result = host.run(content=UNIT.replace("true", "false"))
    assert (result["unit_changed"], result["started"], result["active_state"]) == (True, False, "failed")
    assert not any(call.startswith(("start", "restart")) for call in host.calls())


@pytest.mark.parametrize(
    ("active", "steps"),
    [("inactive", [f"start {NAME}"]), ("failed", [f"reset-failed {NAME}", f"start {NAME}"])],
)
def test_an_unchanged_unit_that_is_down_is_started(host: Host, active: str, steps: list[str]) -> None:
    host.installed()
    host.set(active={NAME: active})
    result = host.run()
    assert host.calls() == [f"show {NAME}", *steps, f"show --value {NAME}"]
    assert (result["changed"], result["unit_changed"], result["started"]) == (True, False, True)
    assert result["active_state"] == "active"


@pytest.mark.parametrize("active", ["activating", "deactivating", "reloading"])
def test_a_unit_on_its_way_is_left_alone(host: Host, active: str) -> None:
    host.installed()
    host.set(active={NAME: active})
    assert host.run()["changed"] is False


def test_a_unit_that_does_not_start_says_where_to_read(host: Host) -> None:
    host.installed()
    host.set(active={NAME: "inactive"}, fail={"start": "Job for prometheus.service failed."})
    message = host.fail()
    assert "start prometheus.service failed: Job for prometheus.service failed." in message
    assert f"journalctl -u {NAME}" in message


def test_present_neither_starts_nor_stops(host: Host) -> None:
    host.installed()
    host.set(active={NAME: "inactive"})
    assert host.run(state="present")["changed"] is False


def test_stopped_stops_what_runs(host: Host) -> None:
    host.installed()
    result = host.run(state="stopped")
    assert (result["changed"], result["stopped"], result["active_state"]) == (True, True, "inactive")
    assert host.run(state="stopped")["changed"] is False


def test_disabling_takes_the_boot_links_away_once(host: Host) -> None:
    host.installed()
    result = host.run(enabled=False)
    assert (result["changed"], result["enabled_changed"], result["unit_changed"]) == (True, True, False)
    assert host.state["enabled"] == {}
    assert host.run(enabled=False)["changed"] is False


def test_another_target_moves_the_boot_links(host: Host) -> None:
    """systemd calls a unit enabled as long as any link is left, so `enable` alone would keep the old one only."""
    host.installed()
    moved = UNIT.replace("multi-user", "graphical")
    assert host.run(content=moved)["enabled_changed"] is True
    assert host.state["enabled"] == {NAME: ["graphical.target"]}


def test_boot_links_of_the_distributions_unit_are_compared_with_its_text(host: Host) -> None:
    vendor = UNIT.replace("multi-user", "graphical")
    (host.root / "vendor" / NAME).write_text(vendor)
    host.set(vendor={NAME: vendor}, enabled={NAME: ["graphical.target"]}, active={NAME: "active"})
    assert host.run()["enabled_changed"] is True
    assert host.state["enabled"] == {NAME: ["multi-user.target"]}


def test_boot_links_of_the_distributions_unit_are_kept_where_they_fit(host: Host) -> None:
    (host.root / "vendor" / NAME).write_text(UNIT)
    host.set(vendor={NAME: UNIT}, enabled={NAME: ["multi-user.target"]}, active={NAME: "active"})
    assert host.run(content=UNIT.replace("true", "false"))["enabled_changed"] is False


def test_a_wrong_mode_is_mended_without_a_restart(host: Host) -> None:
    host.installed()
    host.unit.chmod(0o666)
    result = host.run()
    assert (result["changed"], result["unit_changed"]) == (True, False)
    assert stat.S_IMODE(host.unit.stat().st_mode) == 0o644
    assert host.calls() == [f"show {NAME}"]


def test_a_wrong_owner_is_mended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.installed()
    given: list[tuple[int, int]] = []
    if os.geteuid() == 0:
        os.chown(host.unit, 65534, 65534)
    else:  # the file already belongs to somebody other than root
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "chown", lambda _path, uid, gid: given.append((uid, gid)))
    result = host.run()
    assert (result["changed"], result["unit_changed"]) == (True, False)
    assert given == [(0, 0)] or (host.unit.stat().st_uid, host.unit.stat().st_gid) == (0, 0)


def test_a_mask_of_our_own_unit_gives_way(host: Host) -> None:
    host.unit.symlink_to("/dev/null")
    result = host.run()
    assert result["unit_changed"] is True
    assert not host.unit.is_symlink()
    assert host.unit.read_text() == UNIT


def test_the_replaced_text_is_returned_so_that_it_can_be_put_back(host: Host) -> None:
    assert host.run()["previous"] == {}
    changed = host.run(content=UNIT.replace("true", "false"))
    assert changed["previous"] == {"name": NAME, "content": UNIT, "instances": []}
    host.handler()
    assert host.run(content=UNIT.replace("true", "false"))["previous"] == {}


def test_drop_ins_are_named_and_stay(host: Host) -> None:
    drop_in = host.units / f"{NAME}.d" / "override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nNice=5\n")
    assert host.run()["drop_ins"] == [str(drop_in)]
    assert drop_in.read_text() == "[Service]\nNice=5\n"


# Runs that died


def test_a_run_that_died_before_daemon_reload_is_repaired(host: Host) -> None:
    host.installed()
    host.unit.write_text(UNIT.replace("true", "false"))
    result = host.run(content=UNIT.replace("true", "false"))
    assert (result["changed"], result["unit_changed"], result["reloaded"]) == (True, True, True)
    assert host.calls() == [f"show {NAME}", "daemon-reload"]
    host.handler()
    assert host.run(content=UNIT.replace("true", "false"))["changed"] is False


def test_a_unit_that_systemd_had_not_read_is_left_to_the_handler(host: Host) -> None:
    host.installed()
    host.set(loaded={NAME: "old"}, active={NAME: "inactive"})
    result = host.run()
    assert (result["unit_changed"], result["started"]) == (True, False)


def test_a_run_that_died_before_its_handler_asks_for_the_restart_again(host: Host) -> None:
    host.installed()
    changed = UNIT.replace("true", "false")
    host.set(since={NAME: 1})
    assert host.run(content=changed)["unit_changed"] is True
    # Here the run dies: the unit is read by systemd, and still runs as it was.
    again = host.run(content=changed)
    assert (again["changed"], again["restart_due"], again["unit_changed"]) == (True, True, False)
    host.handler()
    assert host.run(content=changed)["changed"] is False


def test_a_run_that_died_before_its_handler_has_the_configuration_read(host: Host) -> None:
    """Prevents: a service that goes on with what it read a month ago, since no run after that one finds a change."""
    directory, secret = host.root / "config", host.root / "secret"
    (directory / "rules").mkdir(parents=True)
    (directory / "rules" / "one.yml").write_text("one")
    reads = [str(directory), str(secret)]
    host.installed(reads=reads)
    assert host.run(reads=reads)["changed"] is False

    def written(*paths: Path) -> None:
        """After the start, and before now."""
        later = host.state["since"][NAME] / 1e6 + time.time() - time.monotonic() + 0.5
        for path in paths:
            os.utime(path, (later, later))

    # The start was half a minute ago.
    host.set(since={NAME: int((time.monotonic() - 30) * 1e6)})
    past = time.time() - 60
    for path in (host.unit, directory / "rules" / "one.yml", directory / "rules", directory):
        os.utime(path, (past, past))
    assert host.run(reads=reads)["changed"] is False
    written(directory / "rules" / "one.yml")
    again = host.run(reads=reads)
    assert (again["changed"], again["restart_due"], again["unit_changed"]) == (True, True, False)
    # Not what is none of its files.
    assert host.run()["changed"] is False
    # A reload is enough.
    host.set(reloaded={NAME: int((time.monotonic() - 5) * 1e6)})
    assert host.run(reads=reads)["changed"] is False
    # A file that is there no longer leaves its trace in the directory.
    host.set(reloaded={})
    written(directory / "rules")
    assert host.run(reads=reads)["restart_due"] is True
    os.utime(directory / "rules" / "one.yml", (past, past))
    os.utime(directory / "rules", (past, past))
    secret.write_text("new")
    written(secret)
    assert host.run(reads=reads)["restart_due"] is True


def test_a_clock_that_was_set_back_asks_for_no_restart(host: Host) -> None:
    host.installed()
    future = host.unit.stat().st_mtime + 86_400
    os.utime(host.unit, (future, future))
    assert host.run()["changed"] is False


def test_a_failed_switch_leaves_the_old_unit_and_the_next_run_cleans_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.installed()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in host.fail(content=UNIT.replace("true", "false"))
    assert host.unit.read_text() == UNIT
    host.run(content=UNIT.replace("true", "false"))
    assert sorted(path.name for path in host.units.iterdir()) == [NAME]


# Masking


def test_a_unit_of_the_distribution_is_stopped_disabled_and_masked_before_ours_is_written(host: Host) -> None:
    host.set(vendor={OTHER: UNIT}, enabled={OTHER: ["multi-user.target"]}, active={OTHER: "active"})
    result = host.run(mask=[OTHER])
    assert result["masked"] == [OTHER]
    assert str((host.units / OTHER).readlink()) == "/dev/null"
    assert host.state["enabled"].keys() == {NAME}
    assert host.calls() == [
        f"show {NAME} {OTHER}",
        f"verify {NAME}",
        f"stop {OTHER}",
        f"disable --no-reload {OTHER}",
        f"enable --no-reload {NAME}",
        "daemon-reload",
    ]
    host.handler()
    assert host.run(mask=[OTHER])["changed"] is False


def test_an_unknown_unit_is_masked_only_when_asked(host: Host) -> None:
    host.installed()
    assert host.run(mask=[OTHER])["changed"] is False
    assert not (host.units / OTHER).is_symlink()
    assert host.run(mask=[OTHER], mask_missing=True)["masked"] == [OTHER]
    assert str((host.units / OTHER).readlink()) == "/dev/null"
    assert host.run(mask=[OTHER], mask_missing=True)["changed"] is False


def test_a_masked_unit_that_still_runs_is_stopped(host: Host) -> None:
    host.installed()
    (host.units / OTHER).symlink_to("/dev/null")
    host.set(active=host.state["active"] | {OTHER: "active"})
    assert host.run(mask=[OTHER])["masked"] == [OTHER]
    assert f"stop {OTHER}" in host.calls()
    assert host.run(mask=[OTHER])["changed"] is False


def test_a_mask_that_systemd_has_not_read_is_repaired(host: Host) -> None:
    host.set(vendor={OTHER: UNIT})
    host.installed()
    host.set(loaded=host.state["loaded"] | {OTHER: UNIT})
    (host.units / OTHER).symlink_to("/dev/null")
    result = host.run(mask=[OTHER])
    assert (result["changed"], result["reloaded"], result["unit_changed"]) == (True, True, False)
    assert host.run(mask=[OTHER])["changed"] is False


def test_a_unit_file_of_an_administrator_is_not_masked_away(host: Host) -> None:
    (host.units / OTHER).write_text(UNIT)
    host.set(active={OTHER: "active"})
    message = host.fail(mask=[OTHER])
    assert f"{OTHER} cannot be masked" in message
    assert not host.unit.exists(), "something was changed before the failure"
    assert host.calls() == [f"show {NAME} {OTHER}"]


# Verifying


def test_a_complaint_about_the_unit_stops_the_change(host: Host) -> None:
    host.analyze_says("STAGED:4: Unknown key 'Nope' in section [Service], ignoring.")
    message = host.fail()
    assert f"{host.unit}:4: Unknown key 'Nope'" in message, "the message names a temporary path"
    assert not host.unit.exists()
    assert host.calls() == [f"show {NAME}", f"verify {NAME}"]


def test_a_complaint_about_another_unit_is_a_warning(host: Host) -> None:
    line = "/usr/lib/systemd/system/tangled.service:9: Unknown key 'X' in section [Service], ignoring."
    host.analyze_says(line)
    result = host.run()
    assert result["changed"] is True
    assert any(line in warning for warning in result["warnings"])


@pytest.mark.parametrize(
    ("line", "is_ours"),
    [
        ("/etc/systemd/system/prometheus.service:3: Unknown key 'X'.", True),
        ("Unit prometheus.service has a bad unit file setting.", True),
        ("Failed to start prometheus.service.", True),
        ("my-prometheus.service: Command /x is not executable", False),
        ("prometheus.service-old: odd", False),
        ("/etc/systemd/system/prometheus.service.d/x.conf:2: Unknown key 'Y'.", False),
        ("prometheusxservice: odd", False),
    ],
)
def test_only_lines_about_the_unit_are_errors(line: str, is_ours: bool) -> None:
    findings = systemd_unit.sort_findings([line], NAME, check_mode=False)
    assert (findings.errors, findings.warnings) == (([line], []) if is_ours else ([], [line]))


def test_lines_about_an_instance_of_a_template_are_errors() -> None:
    line = "worker@i.service: Command /opt/x is not executable: Permission denied"
    assert systemd_unit.sort_findings([line], "worker@.service", check_mode=True).errors == [line]


def test_a_check_that_could_not_run_is_a_failure(host: Host) -> None:
    host.analyze_says("Failed to initialize manager: No such file or directory", rc=1)
    assert "could not check prometheus.service" in host.fail()
    assert not host.unit.exists()


def test_verify_may_be_left_out(host: Host) -> None:
    host.analyze_says("STAGED:4: Unknown key")
    assert host.run(verify=False)["changed"] is True
    assert f"verify {NAME}" not in host.calls()


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("ExecStart=/bin/true", "ExecStart=/bin/true\nNoNewPrivilegs=yes", "Unknown key 'NoNewPrivilegs'"),
        ("ExecStart=/bin/true", "ExecStart=/bin/true\nProtectSystem=strickt", "Failed to parse protect system value"),
        ("ExecStart=/bin/true", "ExecStart=bin/true", "path"),
        ("ExecStart=/bin/true", "Restart=always", "ExecStart="),
        ("[Service]", "[Servise]", "Unknown section 'Servise'"),
    ],
)
def test_systemd_itself_refuses(real_analyze: Host, check: bool, old: str, new: str, complaint: str) -> None:
    message = real_analyze.fail(content=UNIT.replace(old, new), check=check)
    assert complaint in message
    assert real_analyze.snapshot() == {}


def test_systemd_itself_accepts(real_analyze: Host) -> None:
    result = real_analyze.run()
    assert result["changed"] is True
    assert result["warnings"] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (NAME, UNIT.replace("/bin/true", "/opt/prometheus/current/prometheus --web.x")),
        ("worker@.service", UNIT.replace("/bin/true", "/opt/%i/run")),
    ],
)
def test_a_program_that_is_not_installed_yet_matters_only_outside_check_mode(
    real_analyze: Host, name: str, content: str
) -> None:
    parameters: dict[str, Any] = {"name": name, "content": content, "enabled": False, "state": "present"}
    assert real_analyze.run(check=True, **parameters)["changed"] is True
    assert "is not executable" in real_analyze.fail(**parameters)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (NAME, UNIT.replace("[Service]", "Requires=not-here-yet.service\n[Service]")),
        ("lonely.socket", "[Socket]\nListenStream=1\n[Install]\nWantedBy=sockets.target\n"),
    ],
)
def test_a_unit_that_is_not_installed_yet_is_a_warning_in_check_mode(
    real_analyze: Host, name: str, content: str
) -> None:
    result = real_analyze.run(check=True, name=name, content=content)
    assert result["changed"] is True
    assert any("not-here-yet" in warning or "lonely.service" in warning for warning in result["warnings"])
    assert "systemd does not accept" in real_analyze.fail(name=name, content=content)


def test_a_bad_drop_in_of_somebody_else_is_a_warning(real_analyze: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_in = real_analyze.units / f"{NAME}.d" / "override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nNoSuchKey=1\n")
    monkeypatch.setenv("SYSTEMD_UNIT_PATH", f"{real_analyze.units}:")
    result = real_analyze.run()
    assert result["changed"] is True
    assert any("NoSuchKey" in warning for warning in result["warnings"])


# Check mode says exactly what the run does


def nothing(host: Host) -> None:
    """A clean host."""


def whole(host: Host) -> None:
    host.installed(mask=[OTHER])


def down(host: Host) -> None:
    host.installed(mask=[OTHER])
    host.set(active={NAME: "failed"})


def disabled(host: Host) -> None:
    host.installed(mask=[OTHER])
    host.set(enabled={})


def unread(host: Host) -> None:
    host.installed(mask=[OTHER])
    host.set(loaded={NAME: "old"})


def not_restarted(host: Host) -> None:
    host.installed(mask=[OTHER])
    host.set(since={NAME: 1})


def wrong_mode(host: Host) -> None:
    host.installed(mask=[OTHER])
    host.unit.chmod(0o600)


def with_distribution(host: Host) -> None:
    (host.root / "vendor" / NAME).write_text(UNIT)
    host.set(
        vendor={NAME: UNIT, OTHER: UNIT},
        enabled={NAME: ["multi-user.target"], OTHER: ["multi-user.target"]},
        active={NAME: "active", OTHER: "active"},
    )


SITUATIONS = [nothing, whole, down, disabled, unread, not_restarted, wrong_mode, with_distribution]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"content": UNIT.replace("true", "false")},
    {"content": UNIT.replace("multi-user", "graphical"), "mask_missing": True},
    {"enabled": False, "state": "stopped"},
    {"state": "present"},
]


@pytest.mark.parametrize(
    ("situation", "request_"),
    [
        pytest.param(situation, request_, id=f"{situation.__name__}-{number}")
        for situation, (number, request_) in itertools.product(SITUATIONS, enumerate(REQUESTS))
    ],
)
def test_check_mode_foretells_the_run_and_touches_nothing(
    host: Host, situation: Callable[[Host], None], request_: dict[str, Any]
) -> None:
    situation(host)
    host.calls()
    request_ = {"mask": [OTHER]} | request_
    before = host.snapshot(), host.state["enabled"], host.state["active"]
    foretold = host.run(check=True, **request_)
    assert {call.split()[0] for call in host.calls()} <= {"show", "verify"}
    assert (host.snapshot(), host.state["enabled"], host.state["active"]) == before
    done = host.run(**request_)
    for result in (foretold, done):
        for key in ("active_state", "invocation", "warnings"):
            result.pop(key, None)
    assert foretold == done
    # After the caller's handler, which runs where something changed, nothing is left to do.
    if done["changed"] and request_.get("state", "started") == "started":
        host.handler()
    assert host.run(**request_)["changed"] is False


# Templates, parameters, documents


def test_a_template_is_written_and_not_enabled(host: Host) -> None:
    request: dict[str, Any] = {"name": "worker@.service", "enabled": False, "state": "present"}
    result = host.run(**request)
    assert (result["changed"], result["enabled_changed"]) == (True, False)
    assert host.calls() == ["show worker@*.service", "verify worker@.service", "daemon-reload"]
    assert host.run(**request)["changed"] is False


def test_a_running_instance_shows_that_its_template_was_not_read(host: Host) -> None:
    request: dict[str, Any] = {"name": "worker@.service", "enabled": False, "state": "present"}
    host.run(**request)
    host.set(active={"worker@1.service": "active"}, loaded={"worker@1.service": "old"})
    result = host.run(**request)
    assert (result["changed"], result["reloaded"], result["unit_changed"]) == (True, True, True)
    assert host.run(**request)["changed"] is False


WORKERS: dict[str, Any] = {"name": "worker@.service", "enabled": False, "state": "started", "instances": ["1", "2"]}


def running(host: Host) -> set[str]:
    return {name for name, state in host.state["active"].items() if state == "active"}


def workers_run(host: Host) -> None:
    host.run(**WORKERS)
    for number in (1, 2):
        host.handler(f"worker@{number}.service")
    host.calls()


def test_new_instances_are_left_to_the_handler(host: Host) -> None:
    result = host.run(**WORKERS)
    assert (result["changed"], result["started"], result["active_state"]) == (True, False, "inactive")
    assert host.calls() == ["show worker@*.service", "verify worker@.service", "daemon-reload"]


def test_instances_without_change_are_one_command(host: Host) -> None:
    workers_run(host)
    result = host.run(**WORKERS)
    assert (result["changed"], result["active_state"], result["previous"]) == (False, "active", {})
    assert host.calls() == ["show worker@*.service"]


def test_an_instance_that_is_down_is_started(host: Host) -> None:
    workers_run(host)
    host.set(active={"worker@1.service": "active", "worker@2.service": "failed"})
    result = host.run(**WORKERS)
    assert (result["started"], result["active_state"]) == (True, "active")
    assert host.calls() == [
        "show worker@*.service",
        "reset-failed worker@2.service",
        "start worker@2.service",
        "show --value worker@1.service worker@2.service",
    ]


def test_one_instance_more_is_started_and_one_less_is_stopped(host: Host) -> None:
    workers_run(host)
    more = host.run(**WORKERS | {"instances": ["1", "2", "3"]})
    assert running(host) == {f"worker@{number}.service" for number in (1, 2, 3)}
    assert more["previous"] == {"name": "worker@.service", "content": UNIT, "instances": ["1", "2"]}
    less = host.run(**WORKERS | {"instances": ["1"]})
    assert running(host) == {"worker@1.service"}
    assert less["removed"] == ["worker@2.service", "worker@3.service"]
    assert less["previous"]["instances"] == ["1", "2", "3"]
    assert host.run(**WORKERS | {"instances": ["1"]})["changed"] is False


def test_an_instance_that_runs_an_older_file_asks_for_the_restart_again(host: Host) -> None:
    workers_run(host)
    host.set(since=host.state["since"] | {"worker@2.service": 1})
    assert host.run(**WORKERS)["restart_due"] is True


def test_a_target_never_runs_an_older_file(host: Host) -> None:
    """It has no process that a restart would renew, so nobody restarts it."""
    target: dict[str, Any] = {"name": "worker.target", "content": "[Install]\nWantedBy=multi-user.target\n"}
    host.run(**target)
    host.set(active={"worker.target": "active"}, since={"worker.target": 1})
    assert host.run(**target)["changed"] is False


def test_instances_take_the_place_of_one_unit_and_give_it_back(host: Host) -> None:
    host.run(name="worker.service")
    host.handler("worker.service")
    instances = host.run(**WORKERS, absent=["worker.service"])
    assert instances["removed"] == ["worker.service"]
    assert instances["previous"] == {"name": "worker.service", "content": UNIT, "instances": []}
    assert (host.state["enabled"], running(host)) == ({}, set())
    assert not (host.units / "worker.service").exists()
    for number in (1, 2):
        host.handler(f"worker@{number}.service")
    assert host.run(**WORKERS, absent=["worker.service"])["changed"] is False

    (host.units / "worker.target").write_text(UNIT)
    active = host.state["active"] | {"worker.target": "active"}
    host.set(enabled={"worker.target": ["multi-user.target"]}, active=active)
    single = host.run(name="worker.service", absent=["worker@.service", "worker.target"])
    assert single["removed"] == ["worker@.service", "worker.target"]
    assert single["previous"] == {"name": "worker@.service", "content": UNIT, "instances": ["1", "2"]}
    assert (host.state["enabled"].keys(), running(host)) == ({"worker.service"}, set())
    assert sorted(path.name for path in host.units.iterdir()) == ["worker.service"]


def test_another_service_that_goes_is_nothing_to_put_back(host: Host) -> None:
    host.run(name="helper.service")
    host.installed()
    result = host.run(absent=["helper.service"])
    assert (result["removed"], result["previous"]) == (["helper.service"], {})


def test_a_mask_of_somebody_else_is_not_removed(host: Host) -> None:
    host.installed()
    (host.units / "worker.target").symlink_to("/dev/null")
    assert host.run(absent=["worker.target"])["changed"] is False


@pytest.mark.parametrize("situation", [nothing, workers_run])
@pytest.mark.parametrize(
    "request_",
    [
        WORKERS,
        WORKERS | {"instances": ["2", "3"]},
        WORKERS | {"content": UNIT.replace("true", "false")},
        WORKERS | {"state": "stopped"},
        {"name": "worker.service", "absent": ["worker@.service"]},
    ],
)
def test_check_mode_foretells_what_becomes_of_instances(
    host: Host, situation: Callable[[Host], None], request_: dict[str, Any]
) -> None:
    situation(host)
    host.calls()
    before = host.snapshot(), host.state["enabled"], host.state["active"]
    foretold = host.run(check=True, **request_)
    assert {call.split()[0] for call in host.calls()} <= {"show", "verify"}
    assert (host.snapshot(), host.state["enabled"], host.state["active"]) == before
    done = host.run(**request_)
    for result in (foretold, done):
        for key in ("active_state", "invocation", "warnings"):
            result.pop(key, None)
    assert foretold == done


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"instances": ["1"]}, "is no template; that would be prometheus@.service"),
        ({"name": "worker@.service", "instances": ["a/b"], "enabled": False}, "is not the full name of a unit"),
        ({"name": "worker@.service", "instances": ["1"]}, "is a template"),
        ({"absent": [NAME]}, "is the unit itself"),
        ({"absent": ["../x.service"]}, "is not the full name of a unit"),
        ({"name": "prometheus"}, "'prometheus' is not the full name of a unit"),
        ({"name": "../x.service"}, "is not the full name of a unit"),
        ({"mask": ["a/b.service"]}, "is not the full name of a unit"),
        ({"mask": [NAME]}, "is the unit itself"),
        ({"content": " \n"}, "is empty"),
        ({"content": UNIT.split("[Install]")[0]}, "has no [Install] section"),
        ({"content": UNIT.replace("WantedBy", "#WantedBy")}, "has no [Install] section"),
        ({"name": "worker@.service"}, "is a template"),
        ({"unit_dir": "/nonexistent"}, "is not a directory"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    host: Host, parameters: dict[str, Any], message: str
) -> None:
    assert message in host.fail(**parameters)
    assert host.calls() == []


def test_a_host_without_systemd_says_so(host: Host) -> None:
    host.set(fail={"show": "System has not been booted with systemd as init system (PID 1). Can't operate."})
    assert "has not been booted with systemd" in host.fail()


def test_the_diff_shows_file_and_state(host: Host) -> None:
    host.installed()
    host.set(active={NAME: "inactive"})
    assert host.run(check=True)["diff"] == [
        {
            "before_header": f"{NAME} (state)",
            "after_header": f"{NAME} (state)",
            "before": "running: inactive\n",
            "after": "running: active\n",
        }
    ]
    changed = UNIT.replace("true", "false")
    (diff,) = host.run(check=True, content=changed)["diff"]
    assert (diff["before"], diff["after"], diff["before_header"]) == (UNIT, changed, str(host.unit))


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("[Install]\nWantedBy=a b\nWantedBy = c\n", {"WantedBy": ["a", "b", "c"]}),
        ("[Install]\n# WantedBy=a\n;Alias=b\n", {}),
        ("[Install]\nWantedBy=a \\\n  b\n[Unit]\nAfter=x\n", {"WantedBy": ["a", "b"]}),
        ("[Unit]\nWantedBy=a\n", {}),
    ],
)
def test_install_section(text: str, settings: dict[str, list[str]]) -> None:
    assert systemd_unit.install_section(text) == settings


def test_an_answer_that_is_too_short_is_noticed() -> None:
    with pytest.raises(ValueError, match="2 units asked for, 1 answers"):
        systemd_unit.parse_show("Id=a.service\nLoadState=loaded\n", ["a.service", "b.service"])


def test_documentation_fits_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that is documented differently from what it does misleads whoever writes a role."""
    seen: dict[str, Any] = {}

    def record(**arguments: Any) -> None:
        seen.update(arguments)
        raise SystemExit

    monkeypatch.setattr(systemd_unit, "AnsibleModule", record)
    with pytest.raises(SystemExit):
        systemd_unit.main()
    documented = yaml.safe_load(systemd_unit.DOCUMENTATION)["options"]
    stripped = {name: {k: v for k, v in option.items() if k != "description"} for name, option in documented.items()}
    assert stripped == seen["argument_spec"]
    assert seen["supports_check_mode"] is True
