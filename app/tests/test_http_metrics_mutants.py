"""Every row of the table can fail, and no known mistake of a middleware gets past it.

A mutant is the middleware's own source with one mistake in it, mostly one that a library in use makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from allin_backend.metrics import http
from http_table import ROWS, Row, run

SOURCE = Path(http.__file__).read_text()


@dataclass(frozen=True)
class Mutant:
    """A mistake, as texts of the source and what stands there instead. Each text occurs once."""

    name: str
    edits: dict[str, str]

    def module(self) -> ModuleType:
        source = SOURCE
        for old, new in self.edits.items():
            assert source.count(old) == 1, f"{self.name}: the middleware has changed, there is not one {old!r} any more"
            source = source.replace(old, new)
        module = ModuleType("mutant")
        exec(compile(source, f"<{self.name}>", "exec"), module.__dict__)  # noqa: S102  # our own source
        return module


TEMPLATE = 'template = self._templates.get(id(scope.get("route")), contract.UNMATCHED_ROUTE)'
ROUTE_SET = "route = route if route in _ROUTES else contract.UNMATCHED_ROUTE"
METHOD_SET = "method = method if method in _METHODS else contract.OTHER_METHOD"
STATUS_SET = "if label not in _STATUS_CODES:"
SKIPPED = 'if scope["type"] != "http" or scope["path"] == paths.METRICS:'
RECORD = 'self.metrics.record(scope["method"], template, status, seconds)'
AT_LAST_BODY = 'elif kind == "http.response.body" and not finished and not message.get("more_body", False):'
CLIENT_GONE = "except (ClientDisconnect, asyncio.CancelledError):"
ANY_OTHER = "except BaseException as error:"
WRAPPED = "client_left = isinstance(error.__cause__, ClientDisconnect)"
BROKEN = """            if not finished:
                self._finish(scope, contract.CLIENT_CLOSED_REQUEST if client_left else 500, started)
            raise"""
UNFINISHED = "self._finish(scope, contract.CLIENT_CLOSED_REQUEST if status else 500, started)"

MUTANTS = [
    Mutant("the path as route", {TEMPLATE: 'template = scope["path"]', ROUTE_SET: ""}),
    Mutant(
        "the path as route where there is none",
        {TEMPLATE: TEMPLATE.replace("contract.UNMATCHED_ROUTE", 'scope["path"]'), ROUTE_SET: ""},
    ),
    Mutant("any route", {ROUTE_SET: ""}),
    Mutant(
        "the last part of the route",
        {TEMPLATE: 'template = getattr(scope.get("route"), "path", contract.UNMATCHED_ROUTE)'},
    ),
    Mutant("only the topmost routes", {'getattr(route, "routes", None) or ()': "()"}),
    Mutant(
        "the Host header in the route",
        {TEMPLATE: f'{TEMPLATE} + dict(scope["headers"]).get(b"host", b"").decode()', ROUTE_SET: ""},
    ),
    Mutant("any method", {METHOD_SET: ""}),
    Mutant("HEAD as GET", {RECORD: RECORD.replace('scope["method"]', 'scope["method"].replace("HEAD", "GET")')}),
    Mutant("any status", {STATUS_SET: "if False:"}),
    Mutant("only matched requests", {RECORD: f"if template in _ROUTES - {{contract.UNMATCHED_ROUTE}}: {RECORD}"}),
    Mutant("no preflights", {SKIPPED: SKIPPED.replace(":", ' or scope["method"] == "OPTIONS":')}),
    Mutant("only successes", {RECORD: f"if status < 400: {RECORD}"}),
    Mutant(
        "the clock stops when the application returns",
        {AT_LAST_BODY: "elif False:", UNFINISHED: "self._finish(scope, status or 500, started)"},
    ),
    Mutant(
        "the clock stops at the first part of the body",
        {AT_LAST_BODY: AT_LAST_BODY.replace(' and not message.get("more_body", False)', "")},
    ),
    Mutant(
        "the clock starts at the response",
        {
            'status = message["status"]': 'status, started = message["status"], perf_counter()',
            "nonlocal finished, status": "nonlocal finished, status, started",
        },
    ),
    Mutant(
        "the status that was sent",
        {
            ANY_OTHER: f"{ANY_OTHER}\n"
            "            if status and not finished:\n"
            "                finished = True\n"
            "                self._finish(scope, status, started)"
        },
    ),
    Mutant(
        "cancellation is not seen", {CLIENT_GONE: "except ClientDisconnect:", ANY_OTHER: "except Exception as error:"}
    ),
    Mutant("cancellation is an error", {CLIENT_GONE: "except ClientDisconnect:"}),
    Mutant("a client that leaves is an error where it has a handler", {WRAPPED: "client_left = False"}),
    Mutant("a client that leaves is an error", {CLIENT_GONE: "except asyncio.CancelledError:"}),
    Mutant(
        "every lost connection is the client's",
        {CLIENT_GONE: "except (ClientDisconnect, asyncio.CancelledError, OSError):"},
    ),
    Mutant("errors are not counted", {BROKEN: "            metrics.in_flight -= not finished\n            raise"}),
    Mutant("errors are swallowed", {BROKEN: BROKEN.replace("raise", "return")}),
    Mutant(
        "errors after the response are counted again",
        {BROKEN: "            self._finish(scope, 500, started)\n            raise"},
    ),
    Mutant("an unfinished response is a success", {UNFINISHED: "self._finish(scope, status or 500, started)"}),
    Mutant(
        "no response is the client's doing",
        {UNFINISHED: "self._finish(scope, contract.CLIENT_CLOSED_REQUEST, started)"},
    ),
    Mutant("the number in flight never falls", {"self.metrics.in_flight -= 1": ""}),
    Mutant(
        "the number in flight is 0 or 1",
        {
            "metrics.in_flight += 1": "metrics.in_flight = 1",
            "self.metrics.in_flight -= 1": "self.metrics.in_flight = 0",
        },
    ),
    Mutant("scrapes are counted", {SKIPPED: 'if scope["type"] != "http":'}),
    Mutant(
        "websockets are counted",
        {
            SKIPPED: 'if scope["type"] == "lifespan" or scope["path"] == paths.METRICS:',
            RECORD: RECORD.replace('scope["method"]', 'scope.get("method", "GET")'),
        },
    ),
    Mutant("everything is taken for a request", {SKIPPED: 'if scope.get("path") == paths.METRICS:'}),
]


def fails(row: Row, module: ModuleType) -> bool:
    try:
        run(row, module, lambda clock: setattr(module, "perf_counter", clock))
    except Exception:
        return True
    return False


@pytest.fixture(scope="module")
def failures() -> dict[str, set[str]]:
    """The rows that fail for each mutant."""
    return {mutant.name: {row.name for row in ROWS if fails(row, mutant.module())} for mutant in MUTANTS}


def test_unchanged_copy_passes_every_row() -> None:
    assert [row.name for row in ROWS if fails(row, Mutant("none", {}).module())] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mistake_is_found(mutant: Mutant, failures: dict[str, set[str]]) -> None:
    assert failures[mutant.name]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_can_fail(row: Row, failures: dict[str, set[str]]) -> None:
    assert any(row.name in names for names in failures.values())


def test_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
