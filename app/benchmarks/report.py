"""The results: one row each, as a table to read and as JSON to keep."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.measuring import Spread

_COMPARED: Final = (
    "starlette",
    "fastapi",
    "sqlalchemy",
    "uvloop",
    "prometheus_client",
    "prometheus-fastapi-instrumentator",
    "starlette-exporter",
    "starlette-prometheus",
    "aioprometheus",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-asgi",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-exporter-prometheus",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing. Without a ``bar`` it is there for comparison only; ``met`` is then ``None``."""

    subject: str
    what: str
    measured: str
    bar: str = ""
    met: bool | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """The same numbers for machines; each name ends in its unit."""

    @property
    def verdict(self) -> str:
        """Whether the bar was met, in a word."""
        return {None: "", True: "met", False: "MISSED"}[self.met]


def at_most(subject: str, what: str, measured: float, limit: float, unit: str, note: str = "") -> Row:
    """A row whose value must not exceed ``limit``; both in ``unit``."""
    values = {f"measured_{unit}": measured, f"limit_{unit}": limit}
    return Row(subject, what, f"{measured:.3g} {unit}{note}", f"at most {limit:.3g} {unit}", measured <= limit, values)


def compared(subject: str, what: str, spread: Spread, unit: str, note: str = "") -> Row:
    """A row without a bar."""
    values = {f"{name}_{unit}": value for name, value in asdict(spread).items()}
    return Row(subject, what, spread.text(unit) + note, values=values)


def not_measured(subject: str, what: str, reason: BaseException, bar: str = "") -> Row:
    """A row for what could not be measured, and why. A bar that nobody could hold against anything is missed."""
    text = f"not measured: {type(reason).__name__}: {reason}".replace("\n", " ").replace("|", "/")
    return Row(subject, what, text, bar, False if bar else None)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table that reads well in a terminal and in Markdown."""
    lines = [("subject", "what", "measured", "bar", "verdict")]
    lines += [(row.subject, row.what, row.measured, row.bar, row.verdict) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> dict[str, str]:
    """On what this runs: numbers without it mean nothing."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }


def versions() -> dict[str, str]:
    """The installed packages that are compared."""
    found = {}
    for name in _COMPARED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_json(path: Path, rows: Iterable[Row]) -> None:
    """Keep everything that was measured."""
    results = [{**asdict(row), "verdict": row.verdict} for row in rows]
    document = {"machine": machine(), "versions": versions(), "results": results}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
