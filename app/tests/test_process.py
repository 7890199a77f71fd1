"""The service as a process: what systemd and Prometheus see."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
from pathlib import Path
from time import monotonic

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import URL

from services import PostgreSQL
from support import DEADLINE, make_database, running, running_backend

UNFINISHED = b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"


def test_serves_scrapes_and_stops_on_sigterm(tmp_path: Path) -> None:
    with (
        running_backend(tmp_path, ALLIN_RELEASE="r1", ALLIN_LOG_LEVEL="debug") as (process, port),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE, trust_env=False) as client,
    ):
        assert client.get("/ready").json() == {"status": "ready", "release": "r1"}
        assert client.get("/health").headers.get("server") is None
        samples = _samples(client.get("/metrics").text)
        # The connection is idle but open: it must not hold up the stop.
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0

    assert samples["allin_http_requests_total", "/health", "200", "GET"] == 1
    assert samples["allin_build_info", "0.1.0", "r1"] == 1
    assert samples["allin_nodejs_eventloop_lag_p50_seconds",] > 0.009
    lines = [json.loads(line) for line in process.lines]
    assert [line["message"] for line in lines if line["logger"] == "allin_backend.server"] == [
        "serving",
        "stopping",
        "stopped",
    ]
    assert {line["route"] for line in lines if line["message"] == "request"} == {"/ready", "/health", "/metrics"}


def test_running_request_is_finished_after_sigterm(tmp_path: Path) -> None:
    body = b'{"email": "a@example.com", "name": "A", "password": "correct horse battery staple"}'
    head = (
        b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with (
        running_backend(tmp_path) as (process, port),
        socket.create_connection(("127.0.0.1", port), DEADLINE) as client,
    ):
        client.sendall(head + body[:10])
        _wait_until_active(port, 1)
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for_line('"message":"stopping"')
        client.sendall(body[10:])
        answer = client.recv(4096)
        assert process.wait() == 0

    assert answer.startswith(b"HTTP/1.1 201")


def test_workers_share_the_port_and_count_for_themselves(tmp_path: Path) -> None:
    port, *metrics_ports = _free_ports(3)
    with contextlib.ExitStack() as stack:
        for metrics_port in metrics_ports:
            variables = {"ALLIN_PORT": str(port), "ALLIN_METRICS_PORT": str(metrics_port)}
            stack.enter_context(running_backend(tmp_path, **variables))
        # A new connection each, which the kernel gives to one of the two. All 64 to the same: once in 2**63.
        for _ in range(64):
            assert httpx2.get(f"http://127.0.0.1:{port}/health", timeout=DEADLINE, trust_env=False).status_code == 200
        for metrics_port in metrics_ports:
            for path in ("/health", "/ready"):
                answer = httpx2.get(f"http://127.0.0.1:{metrics_port}{path}", timeout=DEADLINE, trust_env=False)
                assert answer.status_code == 200
            elsewhere = httpx2.get(f"http://127.0.0.1:{metrics_port}/api/v1/users", timeout=DEADLINE, trust_env=False)
            assert elsewhere.status_code == 404
        samples = [_samples(_metrics(metrics_port)) for metrics_port in metrics_ports]

    counts = [one["allin_http_requests_total", "/health", "200", "GET"] for one in samples]
    assert sum(counts) == 64  # what was asked on the metrics ports is no traffic
    assert min(counts) > 0
    assert {one["allin_http_requests_total", "/ready", "200", "GET"] for one in samples} == {0}


def test_metrics_answer_until_the_last_request_is_done(tmp_path: Path) -> None:
    port, metrics_port = _free_ports(2)
    variables = {"ALLIN_PORT": str(port), "ALLIN_METRICS_PORT": str(metrics_port)}
    with running_backend(tmp_path, **variables) as (process, _):
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(UNFINISHED)
            _wait_until_active(metrics_port, 1)
            process.popen.send_signal(signal.SIGTERM)
            _wait_until_refused(port)
            assert "\nallin_active_connections 1.0\n" in _metrics(metrics_port)
        assert process.wait() == 0
    _wait_until_refused(metrics_port)


def test_the_same_worker_twice_is_refused_before_it_takes_requests(tmp_path: Path) -> None:
    port, metrics_port = _free_ports(2)
    variables = {"ALLIN_PORT": str(port), "ALLIN_METRICS_PORT": str(metrics_port)}
    with running_backend(tmp_path, **variables):
        env = {"ALLIN_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/test.db", **variables}
        with running("allin_backend", "serve", env=env) as second:
            assert second.wait() == 1
        assert httpx2.get(f"http://127.0.0.1:{port}/health", timeout=DEADLINE, trust_env=False).status_code == 200

    line = json.loads(second.lines[0])
    assert line["message"] == "cannot start"
    assert f"port {metrics_port}" in line["reason"]


def test_request_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    with (
        running_backend(tmp_path, ALLIN_SHUTDOWN_GRACE_SECONDS="1") as (process, port),
        socket.create_connection(("127.0.0.1", port), DEADLINE) as client,
    ):
        client.sendall(UNFINISHED)
        _wait_until_active(port, 1)
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0

    assert any('"status":499' in line for line in process.lines)


def test_client_that_leaves_is_499_on_the_real_server(tmp_path: Path) -> None:
    with running_backend(tmp_path) as (_process, port):
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(UNFINISHED)
            _wait_until_active(port, 1)
        _wait_until_active(port, 0)
        text = _metrics(port)

    labels = 'method="POST",route="/api/v1/users",status_code='
    assert f'allin_http_requests_total{{{labels}"499"}} 1.0' in text
    assert f'allin_http_requests_total{{{labels}"500"}} 0.0' in text


@pytest.mark.parametrize("announced", [True, False])
def test_body_limit_on_the_real_server(tmp_path: Path, announced: bool) -> None:
    with running_backend(tmp_path, ALLIN_REQUEST_BODY_LIMIT_BYTES="2048") as (_process, port):
        body = b" " * 200_000
        response = httpx2.post(
            f"http://127.0.0.1:{port}/api/v1/users",
            content=body if announced else iter([body]),
            headers={"Content-Type": "application/json"},
            trust_env=False,
        )

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["one header", "many headers", "path"])
def test_head_without_an_end_is_cut_off(tmp_path: Path, kind: str) -> None:
    part = {"one header": b"y" * 65_536, "many headers": b"x: y\r\n" * 10_000, "path": b"y" * 65_536}[kind]
    with (
        running_backend(tmp_path) as (_process, port),
        socket.create_connection(("127.0.0.1", port), DEADLINE) as client,
    ):
        client.sendall(b"GET /" if kind == "path" else b"GET /health HTTP/1.1\r\nHost: x\r\nx: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100_000_000:
                client.sendall(part)
                sent += len(part)
        text = _metrics(port)

    assert sent < 50_000_000  # what fits into the buffers of two sockets, and no more
    assert 'allin_http_requests_total{method="GET",route="unmatched",status_code="431"} 1.0' in text


def test_large_body_in_many_parts_is_no_head(tmp_path: Path) -> None:
    with running_backend(tmp_path) as (_process, port):
        response = httpx2.post(
            f"http://127.0.0.1:{port}/api/v1/users",
            content=(b" " * 10_000 for _ in range(50)),
            headers={"Content-Type": "application/json"},
            trust_env=False,
        )

    assert response.status_code == 400  # no JSON


def test_start_fails_with_the_reason(tmp_path: Path) -> None:
    env = {"ALLIN_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/missing/test.db", "ALLIN_PORT": "0"}
    with running("allin_backend", "serve", env=env) as process:
        assert process.wait() not in (0, 2)

    lines = [json.loads(line) for line in process.lines]
    assert lines[0]["message"] == "cannot start"
    assert "missing/test.db" in lines[0]["reason"]
    assert "ALLIN_DATABASE_URL" in lines[0]["reason"]
    assert max(len(line) for line in process.lines) < 3000  # no endless traceback around it


def test_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {
            "ALLIN_DATABASE_URL": make_database(tmp_path),
            "ALLIN_PORT": str(taken.getsockname()[1]),
        }
        with running("allin_backend", "serve", env=env) as process:
            assert process.wait() not in (0, 2)

    assert any("address already in use" in line.lower() for line in process.lines)


def test_bad_configuration_ends_with_exit_code_2(tmp_path: Path) -> None:
    with running("allin_backend", "serve", env={"ALLIN_PORT": "x", "ALLIN_HOTS": "y"}) as process:
        assert process.wait() == 2

    output = "\n".join(process.lines)
    assert "ALLIN_PORT" in output
    assert "ALLIN_HOST" in output


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def _samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _wait_until_refused(port: int) -> None:
    end = monotonic() + DEADLINE
    while monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), DEADLINE).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # it came while the port was being closed
    pytest.fail(f"port {port} still takes connections")


def _metrics(port: int) -> str:
    return httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE, trust_env=False).text


def _wait_until_active(port: int, count: int) -> None:
    end = monotonic() + DEADLINE
    while f"\nallin_active_connections {count}.0\n" not in (text := _metrics(port)):
        line = next(line for line in text.splitlines() if line.startswith("allin_active_connections"))
        assert monotonic() < end, f"waited for {count} active connections, last seen: {line}"


def test_lost_database_is_waited_for(tmp_path: Path, postgresql: PostgreSQL, postgresql_url: URL) -> None:
    address = postgresql_url.render_as_string(hide_password=False)
    postgresql.stop()
    try:
        with (
            running_backend(tmp_path, ALLIN_DATABASE_URL=address) as (process, port),
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE, trust_env=False) as client,
        ):
            assert client.get("/ready").status_code == 503
            postgresql.start()
            assert client.get("/ready").status_code == 200
            postgresql.stop()
            assert client.get("/ready").status_code == 503
            assert client.get("/health").status_code == 200
            postgresql.start()
            assert client.get("/ready").status_code == 200
            process.popen.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        assert postgresql.password not in "\n".join(process.lines)
    finally:
        postgresql.stop()
        postgresql.start()


def test_schema_of_another_release_stops_the_start(tmp_path: Path) -> None:
    env = {"ALLIN_DATABASE_URL": make_database(tmp_path), "ALLIN_PORT": "0"}
    with sqlite3.connect(tmp_path / "test.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    with running("allin_backend", "serve", env=env) as process:
        assert process.wait() not in (0, 2)

    first = json.loads(process.lines[0])
    assert first["message"] == "cannot start"
    assert "run allin-backend migrate" in first["reason"]
