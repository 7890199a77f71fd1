"""make demo-fault: the fault goes in, is shown, and comes out again whatever happens."""

from __future__ import annotations

import json
import math
import re
import stat
import time
from pathlib import Path

import pytest
from allin_backend.metrics import contract

from tools import demo_fault
from tools.faults import FAULTS

DOCKER = """#!/bin/sh
# Stands in for docker exec: does on this machine what it is told, with /run/allin-backend elsewhere.
shift 3
case "$1" in
    sh) exec sh -c "$(printf '%s' "$3" | sed "s#/run/allin-backend#$DEMO_ROOT#g")" ;;
    curl)
        case "$*" in
            *PUT*) printf '%s ' "$*" >>"$DEMO_ROOT/calls"; cat >>"$DEMO_ROOT/calls"; echo >>"$DEMO_ROOT/calls" ;;
            *) echo '{"facebook": {}, "twitter": {}}' ;;
        esac ;;
esac
"""


@pytest.fixture
def local_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for the local host's /run/allin-backend, behind a docker of ours."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("DEMO_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def prometheus(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Prometheus's answers by path, to be changed by a test."""
    answers: dict[str, object] = {
        "/api/v1/query": {"result": [{"value": [0, "0.25"]}]},
        "/api/v1/alerts": {"alerts": []},
    }
    monkeypatch.setattr(demo_fault, "ask", lambda path, **_: answers[path])
    return answers


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds slept. Time passes only by sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    return slept


def test_every_fault_of_the_backend_can_be_shown() -> None:
    assert sorted(demo_fault.LOOKS) == sorted((*contract.FAULTS, "platform-down"))
    assert set(demo_fault.LOOKS) <= set(FAULTS)


def test_announced_alerts_are_alerts_of_ours() -> None:
    rules = Path(__file__).parents[2] / "roles/prometheus/templates/rules"
    known = {name for file in rules.glob("*.j2") for name in re.findall(r"- alert: (\w+)", file.read_text("utf-8"))}
    for fault in FAULTS.values():
        assert fault.told
        assert fault.alerts | fault.may <= known
        assert not fault.told & fault.hidden
        assert not fault.alerts & fault.may


def test_figures_name_only_metrics_of_the_contract() -> None:
    known = {name for metric in contract.CONTRACT for name in metric.sample_names}
    for looks in demo_fault.LOOKS.values():
        assert looks
        for look in looks:
            names = set(re.findall(r"allin_\w+", look.query))
            assert names
            assert names <= known, look


def test_fault_is_written_for_a_bounded_time_and_taken_away(
    local_host: Path,
    prometheus: dict[str, object],
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = []

    def sleep(seconds: float) -> None:
        seen.append(json.loads((local_host / "faults.json").read_text(encoding="utf-8")))
        clock.append(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    prometheus["/api/v1/alerts"] = {
        "alerts": [
            {"labels": {"alertname": "Watchdog"}, "state": "firing"},
            {"labels": {"alertname": "HighErrorRate"}, "state": "pending"},
        ]
    }

    assert demo_fault.main(["errors", "--seconds", "40"]) == 0

    assert clock == [15.0, 15.0, 10.0]
    for written in seen:
        (until,) = [fault.pop("until") for fault in written.values()]
        assert written == {"errors": {"ratio": 0.3}}
        assert 0 < until - time.time() <= 40
    assert json.loads((local_host / "faults.json").read_text(encoding="utf-8")) == {}
    assert stat.S_IMODE((local_host / "faults.json").stat().st_mode) == 0o644
    output = capsys.readouterr().out
    assert output.count("5xx 25.0%") == 4
    assert "HighErrorRate pending" in output
    assert "Watchdog" not in output


def test_interrupted_demonstration_takes_the_fault_away(
    local_host: Path, prometheus: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        assert "slow-db" in (local_host / "faults.json").read_text(encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)

    assert demo_fault.main(["slow-db"]) == 0
    assert json.loads((local_host / "faults.json").read_text(encoding="utf-8")) == {}


def test_lost_prometheus_takes_the_fault_away(
    local_host: Path,
    prometheus: dict[str, object],
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise demo_fault.CannotGoOnError("Prometheus does not answer")

    def lose(seconds: float) -> None:
        clock.append(seconds)
        monkeypatch.setattr(demo_fault, "ask", broken)

    monkeypatch.setattr(time, "sleep", lose)

    assert demo_fault.main(["leak"]) == 1
    assert "Prometheus does not answer" in capsys.readouterr().err
    assert json.loads((local_host / "faults.json").read_text(encoding="utf-8")) == {}


def test_platforms_go_down_and_come_back(local_host: Path, prometheus: dict[str, object], clock: list[float]) -> None:
    assert demo_fault.main(["platform-down", "--seconds", "30"]) == 0

    calls = (local_host / "calls").read_text(encoding="utf-8").splitlines()
    assert [call.rsplit(" ", 3)[1:] for call in calls] == [
        [f"http://127.0.0.1:7080/control/platforms/{platform}", '{"down":', f"{state}}}"]
        for state in ("true", "false")
        for platform in ("facebook", "twitter")
    ]


def test_missing_local_host_is_said(
    prometheus: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'No such container: allin-local' >&2\nexit 1\n", encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert demo_fault.main(["errors"]) == 1
    error = capsys.readouterr().err
    assert "No such container: allin-local" in error
    assert "make up" in error


@pytest.mark.parametrize(
    "arguments", [[], ["no-such-fault"], ["errors", "--seconds", "29"], ["errors", "--seconds", "3601"]]
)
def test_unusable_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        demo_fault.main(arguments)

    assert caught.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (demo_fault.plain, 3.0, "3"),
        (demo_fault.percent, 0.305, "30.5%"),
        (demo_fault.seconds, 0.0102, "10 ms"),
        (demo_fault.seconds, 1.5, "1.50 s"),
        (demo_fault.mebibytes, 2.0**30, "1024 MiB"),
    ],
)
def test_figures_are_written_with_their_unit(write: object, value: float, text: str) -> None:
    assert write(value) == text  # type: ignore[operator]


def test_figure_without_a_value_is_a_dash(prometheus: dict[str, object]) -> None:
    look = demo_fault.Look("lag", "up")
    for result in ([], [{"value": [0, "NaN"]}]):
        prometheus["/api/v1/query"] = {"result": result}
        assert demo_fault.figure(look) == "lag -"
    prometheus["/api/v1/query"] = {"result": [{"value": [0, str(math.pi)]}]}
    assert demo_fault.figure(look) == "lag 3.14"
