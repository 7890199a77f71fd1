"""Small clients of the services' public HTTP APIs, for the scenarios' tests."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 10.0


def get(url: str) -> str:
    """Return the body of `url`. Raises OSError (urllib.error.HTTPError for a status other than 2xx)."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the tests' own addresses
        return str(response.read().decode())


@dataclass(frozen=True)
class Prometheus:
    """The HTTP API of a Prometheus; url without a trailing slash."""

    url: str

    def api(self, path: str, **parameters: str) -> Any:
        """Return the `data` of /api/v1/<path>. Raises OSError, and ValueError when the answer is no success."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        answer = json.loads(get(f"{self.url}/api/v1/{path}{query}"))
        if answer["status"] != "success":
            raise ValueError(answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of a PromQL expression, each with its `metric` (labels) and `value`."""
        return list(self.api("query", query=expression)["result"])

    def scalar(self, expression: str) -> float:
        """Return the one value of an expression. Raises ValueError unless it has exactly one."""
        result = self.query(expression)
        if len(result) != 1:
            raise ValueError(f"{expression} has {len(result)} values")
        return float(result[0]["value"][1])

    def targets(self) -> dict[tuple[str, str], str]:
        """Return the health of every active target by (job, instance)."""
        found = self.api("targets", state="active")["activeTargets"]
        return {(one["labels"]["job"], one["labels"]["instance"]): one["health"] for one in found}

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule of every group."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        return {one["labels"]["alertname"] for one in self.api("alerts")["alerts"] if one["state"] == "firing"}


@dataclass(frozen=True)
class Alertmanager:
    """The HTTP API of an Alertmanager; url without a trailing slash."""

    url: str

    def api(self, path: str) -> Any:
        """Return the JSON of /api/v2/<path>. Raises OSError."""
        return json.loads(get(f"{self.url}/api/v2/{path}"))
