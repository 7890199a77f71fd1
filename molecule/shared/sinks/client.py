"""Ask the message sinks what arrived: a small client for tests.

    sinks = SinkClient("http://127.0.0.1:8025")
    sinks.clear()
    ... stop the backend ...
    message = sinks.wait_for(lambda m: "BackendDown" in m.text, timeout=60, kind="slack")
    assert message["channel"] == "#alerts"

Only the standard library, so that it runs wherever the tests run.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Kind = Literal["slack", "mail", "webhook"]

POLL_SECONDS = 0.2
REQUEST_SECONDS = 10.0
SEEN_IN_ERRORS = 10


class SinkError(Exception):
    """The sinks cannot be asked, or refused a request; the text says which and why."""


class SinkTimeoutError(AssertionError):
    """No message was as expected before the deadline; the text lists the last ones seen.

    Args:
        text: what was waited for and what came instead.
        seen: all messages that were looked at, oldest first.
    """

    def __init__(self, text: str, seen: list[Message]) -> None:
        super().__init__(text)
        self.seen = seen


@dataclass(frozen=True)
class Message:
    """One received message.

    Attributes:
        id: increasing number, never used twice.
        kind: which sink got it.
        received: when, in UTC.
        data: everything the sinks kept of it, as the HTTP interface gives it.
    """

    id: int
    kind: str
    received: datetime
    data: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        """Return one kept part, for example ``message["channel"]``."""
        return self.data[key]

    @property
    def title(self) -> str:
        """The line a person reads first: a mail's subject, a Slack attachment's title or else its text."""
        if self.kind == "mail":
            return str(self.data["subject"])
        titles = [str(item["title"]) for item in self.data.get("attachments") or [] if item.get("title")]
        return titles[0] if titles else str(self.data.get("text", ""))

    @property
    def text(self) -> str:
        """Every text in it, one per line: for "is this word anywhere in the message?"."""
        return "\n".join(_texts({key: value for key, value in self.data.items() if key not in ("kind", "received")}))

    def __str__(self) -> str:
        """Return one line for error messages."""
        target = self.data.get("channel") or ", ".join(self.data.get("rcpt_to") or []) or self.data.get("path", "")
        return f"{self.kind} {self.id} at {self.received:%H:%M:%S.%f} to {target!r}: {self.title[:160]!r}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class SinkClient:
    """Talks to running sinks.

    Args:
        base_url: address of their HTTP port, for example ``http://127.0.0.1:8025``.
    """

    def __init__(self, base_url: str) -> None:
        if not base_url.startswith("http://"):
            raise ValueError(f"base_url must begin with http://, not {base_url!r}")
        self._base_url = base_url.rstrip("/")
        # A proxy from the environment cannot reach this machine's loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def messages(self, kind: Kind | None = None, after: int = 0) -> list[Message]:
        """Return the messages with an id above ``after``, oldest first.

        Raises:
            SinkError: the sinks do not answer as they should.
        """
        query: dict[str, str | int] = {"after": after}
        if kind is not None:
            query["kind"] = kind
        found = self._call("GET", f"/api/messages?{urllib.parse.urlencode(query)}")
        return [Message(item["id"], item["kind"], datetime.fromisoformat(item["received"]), item) for item in found]

    def last_id(self) -> int:
        """Return the newest id given out: a mark to pass as ``after`` later.

        Raises:
            SinkError: the sinks do not answer as they should.
        """
        return int(self._call("GET", "/health")["last_id"])

    def wait_for(
        self,
        predicate: Callable[[Message], bool],
        timeout: float,
        kind: Kind | None = None,
        after: int = 0,
    ) -> Message:
        """Return the first message that ``predicate`` accepts, waiting for it if need be.

        Args:
            predicate: says whether a message is the one.
            timeout: longest wait in seconds.
            kind: look only at these.
            after: look only at messages with a higher id.

        Raises:
            SinkTimeoutError: none came in time. While the sinks do not answer it goes on trying.
        """
        deadline = time.monotonic() + timeout
        seen: list[Message] = []
        problem = ""
        newest = after
        while True:
            try:
                new = self.messages(kind, newest)
                problem = ""
            except SinkError as error:
                new = []
                problem = f"\nThe last attempt failed: {error}"
            for message in new:
                if predicate(message):
                    return message
            seen += new
            newest = seen[-1].id if seen else after
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(POLL_SECONDS, left))
        what = f"{kind or 'any'} message"
        lines = "".join(f"\n  {message}" for message in seen[-SEEN_IN_ERRORS:]) or "\n  none"
        raise SinkTimeoutError(
            f"no {what} as expected within {timeout:g} s at {self._base_url}; "
            f"{len(seen)} seen, the last ones were:{lines}{problem}",
            seen,
        )

    def clear(self) -> None:
        """Forget all messages; ids go on increasing.

        Raises:
            SinkError: the sinks do not answer as they should.
        """
        self._call("DELETE", "/api/messages")

    def fault(
        self,
        *,
        slack: dict[str, Any] | None = None,
        smtp: dict[str, Any] | None = None,
        webhook: dict[str, Any] | None = None,
    ) -> None:
        """Make sinks misbehave until ``clear_faults`` or the next ``fault``; a sink not named works normally.

        Args:
            slack: ``{"status": 500, "body": "...", "delay_seconds": 0, "times": 2}``, each optional.
            smtp: ``{"code": 451, "text": "...", "stage": "data", "delay_seconds": 0, "times": 2}``, each optional.
            webhook: as ``slack``.

        Raises:
            SinkError: a setting is wrong (the text names it), or the sinks do not answer.
        """
        sinks = {"slack": slack, "smtp": smtp, "webhook": webhook}
        self._call("PUT", "/api/faults", {name: value for name, value in sinks.items() if value is not None})

    def fault_hits(self) -> dict[str, int]:
        """Return how many requests met each fault in force.

        Raises:
            SinkError: the sinks do not answer as they should.
        """
        return {name: int(value["hits"]) for name, value in self._call("GET", "/api/faults").items()}

    def clear_faults(self) -> None:
        """Let all sinks work normally.

        Raises:
            SinkError: the sinks do not answer as they should.
        """
        self._call("DELETE", "/api/faults")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the constructor takes only http
            self._base_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(1000).decode("utf-8", "replace").strip()
            raise SinkError(f"{method} {path} at {self._base_url} was refused with {error.code}: {text}") from None
        except (OSError, ValueError) as error:
            raise SinkError(
                f"{method} {path} at {self._base_url} failed: {error}. Are the message sinks running there?"
            ) from error
