"""The command: options, and the real server with real connections."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import pytest

from allin_simulator import cli
from allin_simulator.settings import PLATFORMS, Settings
from support import DEADLINE, Process, running


@contextmanager
def _running(*options: str) -> Iterator[tuple[Process, httpx2.Client]]:
    with running("allin_simulator", "--port", "0", *options) as process:
        url = process.wait_for_line("allin-simulator: serving on ").rpartition(" ")[2]
        with httpx2.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client:
            yield process, client


def _wait_for_requests(client: httpx2.Client, count: int) -> None:
    end = monotonic() + DEADLINE
    while (seen := client.get("/control/stats").json()["facebook"]["requests"].get("identity", 0)) < count:
        assert monotonic() < end, f"waited for {count} requests, last seen: {seen}"


def test_faults_on_real_connections(tmp_path: Path) -> None:
    config = tmp_path / "knobs.json"
    config.write_text('{"twitter": {"rate_limit": 3}}')
    with _running("--latency", "0.01", "--config", str(config)) as (process, client):
        knobs = client.get("/control/platforms").json()
        assert {name: (one["latency_seconds"], one["rate_limit"]) for name, one in knobs.items()} == {
            name: (0.01, 3 if name == "twitter" else 10_000) for name in PLATFORMS
        }
        assert client.get("/facebook/me").status_code == 401

        client.put("/control/platforms/facebook", json={"down": True}).raise_for_status()
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            client.get("/facebook/me")
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            client.post("/facebook/oauth/token", content=b"x" * 200_000)

        client.put("/control/platforms/facebook", json={"timeout_ratio": 1}).raise_for_status()
        with pytest.raises(httpx2.ReadTimeout):
            client.get("/facebook/me", timeout=httpx2.Timeout(DEADLINE, read=0.2))

        client.put("/control/platforms/facebook", json={}).raise_for_status()
        assert client.get("/facebook/me").status_code == 401
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    # Nothing but the one line: faults are no errors of the simulator.
    assert len(process.lines) == 1, process.lines


def test_sigterm_ends_it_at_once_whatever_hangs() -> None:
    failures: list[type[Exception]] = []
    with _running() as (process, client):
        client.put("/control/platforms/facebook", json={"timeout_ratio": 1}).raise_for_status()

        def hang() -> None:
            try:
                httpx2.get(f"{client.base_url}/facebook/me", timeout=DEADLINE, trust_env=False)
            except httpx2.TransportError as error:
                failures.append(type(error))

        hanging = threading.Thread(target=hang)
        hanging.start()
        _wait_for_requests(client, 1)
        process.popen.send_signal(signal.SIGTERM)
        # Far less than the 60 seconds for which the request could hang.
        assert process.wait() == 0
        hanging.join(DEADLINE)
    assert len(failures) == 1
    assert failures[0] in (httpx2.RemoteProtocolError, httpx2.ReadError)
    assert len(process.lines) == 1, process.lines


def test_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("allin_simulator", "--port", str(port)) as process:
            assert process.wait() == 1

    (line,) = process.lines
    assert line.startswith(f"allin-simulator: 127.0.0.1 port {port}: Address already in use")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, str, int]]:
    """What the server was started with, without starting it."""
    calls: list[tuple[Settings, str, int]] = []

    def serve(settings: Settings, host: str, port: int) -> int:
        calls.append((settings, host, port))
        return 0

    monkeypatch.setattr("allin_simulator.server.serve", serve)
    return calls


def test_options_and_variables(tmp_path: Path, served: list[tuple[Settings, str, int]]) -> None:
    clients = tmp_path / "platforms.json"
    clients.write_text(json.dumps({"facebook": {"client_id": "a", "client_secret": "b"}}))
    environ = {
        "ALLIN_SIMULATOR_SEED": "7",
        "ALLIN_SIMULATOR_PORT": "7999",
        "ALLIN_SIMULATOR_CLIENTS": str(clients),
        "ALLIN_SIMULATOR_TOKEN_SECONDS": "60",
        "ALLIN_PORT": "the backend's",
    }
    assert cli.main(["--port", "0", "--error-ratio", "0.5"], environ) == 0
    ((settings, host, port),) = served
    assert (settings.seed, settings.token_seconds, host, port) == (7, 60, "127.0.0.1", 0)
    assert settings.clients is not None
    assert settings.clients["facebook"].client_secret == "b"
    assert {knobs.error_ratio for knobs in settings.knobs.values()} == {0.5}
    assert "allin-simulator" not in repr(settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost"])
def test_loopback_needs_no_leave(host: str, served: list[Any]) -> None:
    assert cli.main(["--host", host], {}) == 0


def test_others_are_let_in_on_purpose_only(served: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--host", "0.0.0.0"], {})  # noqa: S104
    assert stopped.value.code == cli.EXIT_BAD_CONFIGURATION
    assert "--allow-remote" in capsys.readouterr().err
    assert cli.main(["--host", "0.0.0.0", "--allow-remote"], {}) == 0  # noqa: S104
    assert len(served) == 1


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "knobs.json"),
        ('{"myspace": {}}', "'myspace' is not one of"),
        ('{"facebook": {"latency_seconds": 99}}', "facebook: "),
        ('{"facebook": 1}', "knobs.json"),
        (None, "No such file"),
    ],
)
@pytest.mark.parametrize("option", ["--config", "--clients"])
def test_bad_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], served: list[Any], option: str, content: str | None, part: str
) -> None:
    path = tmp_path / "knobs.json"
    if content is not None:
        path.write_text(content)
    if option == "--clients" and part == "facebook: ":
        part = "client_id"
    with pytest.raises(SystemExit) as stopped:
        cli.main([option, str(path)], {})
    assert stopped.value.code == cli.EXIT_BAD_CONFIGURATION
    assert part in capsys.readouterr().err
    assert served == []


@pytest.mark.parametrize(
    ("arguments", "environ", "part"),
    [
        (["--port", "70000"], {}, "--port"),
        (["--latency", "nan"], {}, "latency_seconds"),
        (["--error-ratio", "2"], {}, "error_ratio"),
        (["--rate-limit", "-1"], {}, "rate_limit"),
        (["--token-seconds", "0"], {}, "--token-seconds"),
        (["--token-seconds", "soon"], {}, "--token-seconds"),
        ([], {"ALLIN_SIMULATOR_PORT": "x"}, "--port"),
        ([], {"ALLIN_SIMULATOR_PROT": "1"}, "ALLIN_SIMULATOR_PROT"),
    ],
)
def test_bad_option_is_named(
    arguments: list[str],
    environ: dict[str, str],
    part: str,
    served: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments, environ)
    assert stopped.value.code == cli.EXIT_BAD_CONFIGURATION
    assert part in capsys.readouterr().err
    assert served == []
