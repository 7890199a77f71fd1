#!/usr/bin/env python3
"""Shows what a fault looks like on the local stack: make demo-fault FAULT=slow-db

Injects the fault into the local host's backend (or its simulator of the social platforms) for a bounded time, prints
every few seconds what Prometheus sees of it and which alerts there are, and takes the fault away again, also after
Ctrl-C. Should this program be killed, a fault of the backend ends by itself when its time is up.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.faults import FAULTS

CONTAINER = "allin-local"
PROMETHEUS = "http://127.0.0.1:9090"
FAULTS_FILE = "/run/allin-backend/faults.json"
SIMULATOR = "http://127.0.0.1:7080"
LOOK_EVERY_SECONDS = 15.0
TIMEOUT_SECONDS = 5.0


def plain(value: float) -> str:
    """A number without a unit."""
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A ratio from 0 to 1 in per cent."""
    return f"{value:.1%}"


def seconds(value: float) -> str:
    """Seconds, in the unit that people read best."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def mebibytes(value: float) -> str:
    """Bytes in MiB."""
    return f"{value / 2**20:.0f} MiB"


@dataclass(frozen=True)
class Look:
    """One figure to follow: its name, its query, how its value is written."""

    name: str
    query: str
    write: Callable[[float], str] = plain


ERROR_RATIO = Look(
    "5xx",
    'sum(rate(allin_http_requests_total{status_code=~"5..",route!~"/health|/ready"}[1m]))'
    ' / sum(rate(allin_http_requests_total{route!~"/health|/ready"}[1m]))',
    percent,
)
P95 = Look(
    "P95 response",
    "histogram_quantile(0.95, sum by (le) (rate(allin_http_request_duration_seconds_bucket"
    '{route!~"/health|/ready"}[1m])))',
    seconds,
)
# What can be shown: which figures, of which fault of the table.
LOOKS: Mapping[str, tuple[Look, ...]] = {
    "slow-db": (
        Look(
            "P99 query",
            "histogram_quantile(0.99, sum by (le) (rate(allin_db_query_duration_seconds_bucket[1m])))",
            seconds,
        ),
        P95,
        Look("requests now", "sum(allin_active_connections)"),
    ),
    "errors": (ERROR_RATIO, P95),
    "cache-off": (
        Look(
            "hit rate",
            "sum(rate(allin_cache_hits_total[1m]))"
            " / (sum(rate(allin_cache_hits_total[1m])) + sum(rate(allin_cache_misses_total[1m])))",
            percent,
        ),
        Look("queries/s", "sum(rate(allin_db_queries_total[1m]))"),
        P95,
    ),
    "platform-down": (
        Look("calls failing", "sum(rate(allin_social_api_errors_total[1m]))"),
        Look("circuits open", "sum(allin_social_circuit_open)"),
        Look("posts due", 'sum(max by (platform) (allin_publish_queue_posts{state="due"}))'),
        Look("oldest due", "max(allin_publish_oldest_due_age_seconds)", seconds),
    ),
    "leak": (Look("resident", "max(allin_process_resident_memory_bytes)", mebibytes),),
    "loop-block": (
        Look("lag P95", "max(allin_nodejs_eventloop_lag_p95_seconds)", seconds),
        Look("lag max", "max(allin_nodejs_eventloop_lag_max_seconds)", seconds),
        P95,
    ),
}
# The simulator of the platforms has it, not the backend.
PLATFORMS_DOWN = "platform-down"


class CannotGoOnError(Exception):
    """What is missing, and what to do about it."""


def in_container(*command: str, text: str | None = None) -> str:
    """Run a command on the local host and return its output.

    Raises:
        CannotGoOnError: it failed.
    """
    result = subprocess.run(
        ["docker", "exec", "--interactive", CONTAINER, *command],
        input=text or "",
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise CannotGoOnError(
            f"{command[0]} failed on {CONTAINER}: {(result.stderr or result.stdout).strip()}\nDoes it run? make up"
        )
    return result.stdout


def inject(name: str, duration: float) -> None:
    """Put the fault in place for ``duration`` seconds."""
    if name == PLATFORMS_DOWN:
        turn_platforms(down=True)
    else:
        write_faults({name: {**FAULTS[name].parameters, "until": math.floor(time.time() + duration)}})


def take_away(name: str) -> None:
    """Undo ``inject``."""
    if name == PLATFORMS_DOWN:
        turn_platforms(down=False)
    else:
        write_faults({})


def turn_platforms(*, down: bool) -> None:
    """Have the simulator answer for no platform, or for all of them again."""
    for platform in json.loads(in_container("curl", "-fsS", f"{SIMULATOR}/control/platforms")):
        address = f"{SIMULATOR}/control/platforms/{platform}"
        header = "Content-Type: application/json"
        knobs = json.dumps({"down": down})
        in_container("curl", "-fsS", "-X", "PUT", "-H", header, "--data", "@-", address, text=knobs)


def write_faults(faults: dict[str, dict[str, float]]) -> None:
    """Replace the faults file in one step: the backend must not read half of it."""
    script = f'cat >"{FAULTS_FILE}.new" && chmod 0644 "{FAULTS_FILE}.new" && mv "{FAULTS_FILE}.new" "{FAULTS_FILE}"'
    in_container("sh", "-c", script, text=json.dumps(faults))


def ask(path: str, **parameters: str) -> Any:
    """The data of an answer of Prometheus.

    Raises:
        CannotGoOnError: it does not answer.
    """
    address = f"{PROMETHEUS}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - our own constant
            return json.load(answer)["data"]
    except (OSError, ValueError) as error:
        raise CannotGoOnError(
            f"Prometheus does not answer at {PROMETHEUS}: {error}\nDoes it run? make status"
        ) from None


def figure(look: Look) -> str:
    """The present value of a figure, in words."""
    result = ask("/api/v1/query", query=look.query)["result"]
    value = float(result[0]["value"][1]) if result else math.nan
    return f"{look.name} {'-' if math.isnan(value) else look.write(value)}"


def alerts() -> str:
    """The alerts of the moment in words, without the one that always fires."""
    found = ask("/api/v1/alerts")["alerts"]
    names = sorted({(one["labels"]["alertname"], one["state"]) for one in found} - {("Watchdog", "firing")})
    return ", ".join(f"{name} {state}" for name, state in names) or "none"


def line(started: float, name: str) -> str:
    """What is to be seen now."""
    passed = time.monotonic() - started
    return f"{passed:5.0f} s   {'   '.join(figure(look) for look in LOOKS[name])}   alerts: {alerts()}"


def show(name: str, duration: float) -> None:
    """Inject a fault, print what is to be seen until its time is up, and take it away."""
    fault = FAULTS[name]
    print(f"{name}: {fault.meaning}, for {duration:.0f} s. Ctrl-C ends it.")
    print(
        f"Alerts to expect: {fault.announcement()}. Messages: http://127.0.0.1:8025/, graphs: {PROMETHEUS}/graph",
        flush=True,
    )
    started = time.monotonic()
    print(f"{line(started, name)}   <- before", flush=True)
    inject(name, duration)
    try:
        while (left := started + duration - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_SECONDS, left))
            print(line(started, name), flush=True)
    except KeyboardInterrupt:
        print()
    finally:
        take_away(name)
        print(f"{name}: over. What fired resolves by itself when its window has passed.", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 1 when it cannot go on."""
    parser = argparse.ArgumentParser(
        description="Injects a fault into the local stack and prints what is to be seen of it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<14} {FAULTS[name].meaning}" for name in LOOKS),
    )
    parser.add_argument("fault", choices=LOOKS, metavar="FAULT", help="one of the list below")
    parser.add_argument("--seconds", type=int, default=300, help="how long, 30 to 3600 (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not 30 <= options.seconds <= 3600:
        parser.error("--seconds must be from 30 to 3600")
    try:
        show(options.fault, float(options.seconds))
    except CannotGoOnError as error:
        print(f"demo-fault: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
