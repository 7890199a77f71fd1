"""Small clients of the services' public HTTP APIs, for the scenarios' tests."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 10.0


def get(url: str) -> str:
    """Return the body of `url`. Raises OSError (urllib.error.HTTPError for a status other than 2xx)."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the tests' own addresses
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        # It holds the connection, which would be reported against whatever test runs when it is collected.
        error.close()
        raise


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


@dataclass(frozen=True)
class Grafana:
    """The HTTP API of a Grafana, as somebody who signs in; url without a trailing slash.

    login: nobody where it is empty; password: of the login, or a service account's token where the login is `token`.
    """

    url: str
    login: str = ""
    password: str = ""

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and parsed answer. Raises OSError when nobody answers."""
        headers = {"Content-Type": "application/json"}
        if self.login == "token":
            headers["Authorization"] = f"Bearer {self.password}"
        elif self.login:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self.login}:{self.password}".encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the tests' own addresses
            self.url + path, method=method, data=data, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the same
                status, text = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, None

    def status(self, method: str, path: str, body: object = None) -> int:
        """Return the status of an answer."""
        return self.ask(method, path, body)[0]

    def get(self, path: str) -> Any:
        """Return the parsed answer. Raises ValueError unless it is a success."""
        status, answer = self.ask("GET", path)
        if status != 200:
            raise ValueError(f"{path}: {status} {answer}")
        return answer

    def api(self, path: str, **parameters: str) -> Any:
        """Return the `data` of /api/v1/<path> of Prometheus, which Grafana asks. Raises ValueError and OSError."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return self.get(f"/api/datasources/proxy/uid/prometheus/api/v1/{path}{query}")["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that Grafana's query API has for a PromQL expression. Raises ValueError with its error."""
        target = {
            "refId": "A",
            "datasource": {"uid": "prometheus", "type": "prometheus"},
            "expr": expression,
            "instant": True,
            "range": False,
            "intervalMs": 15000,
            "maxDataPoints": 500,
        }
        status, answer = self.ask("POST", "/api/ds/query", {"queries": [target], "from": "now-5m", "to": "now"})
        result = (answer or {}).get("results", {}).get("A", {})
        if status != 200 or result.get("error"):
            raise ValueError(f"{status}: {result.get('error') or answer}")
        return [frame for frame in result.get("frames", []) if any(frame["data"]["values"])]
