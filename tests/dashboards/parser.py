"""A real PromQL parser: Prometheus 3 tells the syntax tree of an expression.

The tree tells which labels a result has, so that a legend, a column or a grouping that names another one is found.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.rules.promql import Matcher
from tests.rules.rule_files import promtool

Node = dict[str, Any]
#: Aggregations that choose series and leave them as they are.
CHOOSING = {"topk", "bottomk", "limitk", "limit_ratio"}
START_SECONDS = 120


class Parser:
    """A Prometheus that knows nothing and is asked for syntax trees only.

    Raises:
        AssertionError: it does not start.
    """

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._url = f"http://{address}/api/v1/parse_query"
        (directory / "prometheus.yml").write_text("{}\n")
        self._process = subprocess.Popen(
            [
                str(promtool("3.5").with_name("prometheus")),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._trees: dict[str, Node] = {}
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self("1")
            except OSError:
                assert self._process.poll() is None, "Prometheus has stopped"
                assert time.monotonic() < deadline, "Prometheus does not start"
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=START_SECONDS)

    def __call__(self, expression: str) -> Node:
        """Return the syntax tree.

        Raises:
            ValueError: it is no PromQL; the message says where.
        """
        if expression not in self._trees:
            body = urllib.parse.urlencode({"query": expression}).encode()
            try:
                with urllib.request.urlopen(self._url, body, timeout=START_SECONDS) as response:
                    self._trees[expression] = json.load(response)["data"]
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.BAD_REQUEST:
                    raise  # it is still starting
                raise ValueError(f"{json.load(error)['error']}\n{expression}") from None
        return self._trees[expression]


def children(node: Node) -> list[Node]:
    """The expressions inside of an expression."""
    inner = [node.get(key) for key in ("expr", "lhs", "rhs", "param")]
    return [child for child in [*inner, *node.get("args", [])] if child]


def selectors(node: Node) -> Iterator[tuple[str, list[Matcher]]]:
    """Yield each metric that an expression selects, with its matchers."""
    if node["type"] in ("vectorSelector", "matrixSelector"):
        matchers = [Matcher(one["name"], one["type"], one["value"]) for one in node["matchers"]]
        (name,) = [one.value for one in matchers if one.label == "__name__"]
        yield name, [one for one in matchers if one.label != "__name__"]
    for child in children(node):
        yield from selectors(child)


def labels(node: Node, of_metric: Callable[[str], frozenset[str]]) -> frozenset[str] | None:
    """The labels that the result of an expression can have; None where it is a plain number.

    Args:
        node: the syntax tree.
        of_metric: the labels of a metric or record.

    Raises:
        AssertionError: it groups or joins by a label that is not there.
    """
    kind = node["type"]
    if kind in ("vectorSelector", "matrixSelector"):
        ((name, _),) = selectors(node)
        return of_metric(name)
    if kind in ("parenExpr", "subquery", "unaryExpr"):
        return labels(node["expr"], of_metric)
    if kind == "aggregation":
        return _of_aggregation(node, labels(node["expr"], of_metric) or frozenset())
    if kind == "binaryExpr":
        return _of_binary(node, labels(node["lhs"], of_metric), labels(node["rhs"], of_metric))
    if kind == "call":
        return _of_call(node, of_metric)
    return None


def _of_aggregation(node: Node, inner: frozenset[str]) -> frozenset[str]:
    grouping = frozenset(node["grouping"])
    if node["op"] in CHOOSING:
        return inner
    if node["without"]:
        return inner - grouping
    assert grouping <= inner, f"{node['op']} by {sorted(grouping - inner)}, which is not there"
    return grouping


def _of_binary(node: Node, left: frozenset[str] | None, right: frozenset[str] | None) -> frozenset[str] | None:
    if left is None or right is None:
        return right if left is None else left
    if node["op"] == "or":
        return left | right
    matching = node["matching"] or {"labels": [], "on": False, "card": "one-to-one", "include": []}
    named = frozenset(matching["labels"])
    if matching["on"]:
        assert named <= left, f"on {sorted(named - left)}, which the left side has not"
        assert named <= right, f"on {sorted(named - right)}, which the right side has not"
    if node["op"] in ("and", "unless"):
        return left
    if matching["card"] == "many-to-one":
        assert set(matching["include"]) <= right, f"group_left {matching['include']}, which the right side has not"
        return left | frozenset(matching["include"])
    if matching["card"] == "one-to-many":
        return right | frozenset(matching["include"])
    return named if matching["on"] else left - named


def _of_call(node: Node, of_metric: Callable[[str], frozenset[str]]) -> frozenset[str] | None:
    name, arguments = node["func"]["name"], node["args"]
    if name in ("time", "scalar", "pi"):
        return None
    if name == "vector":
        return frozenset()
    if name in ("absent", "absent_over_time"):
        return frozenset(one.label for _, matchers in selectors(node) for one in matchers if one.operator == "=")
    inner = next((found for one in arguments if (found := labels(one, of_metric)) is not None), frozenset())
    if name == "histogram_quantile":
        assert "le" in inner, "histogram_quantile of something without le"
        return inner - {"le"}
    if name in ("label_replace", "label_join"):
        return inner | {arguments[1]["val"]}
    return inner
