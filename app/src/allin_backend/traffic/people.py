"""One person: signs up and in, connects accounts, writes, schedules, reads, and makes mistakes."""

from __future__ import annotations

import ipaddress
import random
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx2

from allin_backend import paths

MOST_POSTS: Final = 30
"""Posts that one person keeps: a long run must not fill the disk."""
_MOST_ACCOUNTS: Final = 2
_DENIED_SHARE: Final = 0.05
_WORDS: Final = (
    "today",
    "we",
    "show",
    "what",
    "a",
    "new",
    "week",
    "brings",
    "for",
    "all",
    "who",
    "like",
    "good",
    "news",
)
# When a scheduled post goes out: soon enough to be seen.
_DUE_SECONDS: Final = (2.0, 120.0)

Action = Callable[[], Awaitable[httpx2.Response]]


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Person:
    """What one person knows and does. ``number`` makes the same person again after a restart.

    Every action sends at least one request and returns the answer to the last.
    """

    def __init__(self, client: httpx2.AsyncClient, number: int, chance: random.Random) -> None:
        self.busy = False
        self.posts: deque[int] = deque()
        self.accounts: list[int] = []
        self._client = client
        self._random = chance
        self._email = f"person-{number}@traffic.example.com"
        # Nobody else knows these people; a database with them in it serves no others.
        self._password = f"traffic-password-of-{number}"
        self._name = f"Person {number}"
        self._token: str | None = None
        self._signed_up = False
        self._platforms: list[str] | None = None
        self._may_connect = True
        self._scheduled: deque[int] = deque(maxlen=MOST_POSTS)
        # People read far more than they write.
        self._habits: list[tuple[int, Action]] = [
            (50, self._list_posts),
            (16, self._read_post),
            (10, self._read_figures),
            (2, self._write),
            (4, self._schedule),
            (1, self._cancel),
            (5, self._list_accounts),
            (4, self._connect),
            (4, self._me),
            (1, self._sign_out),
            (1, self._disconnect),
            (4, self._look_around),
        ]

    async def act(self) -> httpx2.Response:
        """Do one of the usual things; who has no session gets one first.

        Raises:
            httpx2.HTTPError: no answer.
            ValueError, KeyError: an answer that is not what it should be.
        """
        if self._token is None:
            response = await self._enter()
            if self._token is None:
                return response
        action = self._random.choices([do for _, do in self._habits], [weight for weight, _ in self._habits])[0]
        response = await action()
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            self._token = None  # the session has ended: sign in with the next step
        elif len(self.posts) > MOST_POSTS:
            post_id = self.posts.popleft()
            response = await self._send("DELETE", paths.POST.format(post_id=post_id))
            self._forget(post_id)
        return response

    async def mistake(self) -> httpx2.Response:
        """Ask for something that must be refused.

        Raises:
            httpx2.HTTPError: no answer.
        """
        kind = self._random.randrange(6)
        if kind == 0:
            return await self._client.get(f"/no-such-page/{uuid4().hex[:8]}")
        if kind == 1:
            return await self._client.post(paths.USERS, json={"email": "not-an-address", "name": "x", "password": "x"})
        if kind == 2:
            body = {"email": self._email, "password": "not the password"}
            return await self._client.post(paths.SESSIONS, json=body)
        if kind == 3:
            return await self._client.get(paths.POSTS)
        if kind == 4 and self._token is not None:
            return await self._send("GET", paths.POST.format(post_id=2**62))
        headers = {"Content-Type": "application/json"}
        return await self._client.post(paths.SESSIONS, content=b'{"email":', headers=headers)

    async def _send(self, method: str, path: str, json: object = None) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        return await self._client.request(method, path, json=json, headers=headers)

    async def _enter(self) -> httpx2.Response:
        if not self._signed_up:
            body = {"email": self._email, "name": self._name, "password": self._password}
            response = await self._client.post(paths.USERS, json=body)
            if response.status_code not in (HTTPStatus.CREATED, HTTPStatus.CONFLICT):
                return response
            self._signed_up = True
        body = {"email": self._email, "password": self._password}
        response = await self._client.post(paths.SESSIONS, json=body)
        if response.status_code == HTTPStatus.CREATED:
            self._token = response.json()["token"]
        elif response.status_code == HTTPStatus.UNAUTHORIZED:
            self._signed_up = False  # the database was made anew
        return response

    async def _look_around(self) -> httpx2.Response:
        return await self._client.get(self._random.choice((paths.INDEX, paths.HEALTH, paths.HEALTH)))

    async def _me(self) -> httpx2.Response:
        return await self._send("GET", paths.ME)

    async def _sign_out(self) -> httpx2.Response:
        response = await self._send("DELETE", paths.CURRENT_SESSION)
        self._token = None
        return response

    async def _list_posts(self) -> httpx2.Response:
        response = await self._send("GET", paths.POSTS)
        if response.status_code != HTTPStatus.OK:
            return response
        page = response.json()
        if not self.posts:
            self.posts.extend(sorted(item["id"] for item in page["items"]))
        if page["next_cursor"] and self._random.random() < 0.3:
            return await self._send("GET", f"{paths.POSTS}?cursor={page['next_cursor']}")
        return response

    async def _read_post(self) -> httpx2.Response:
        if not self.posts:
            return await self._write()
        post_id = self._random.choice(self.posts)
        return self._unless_gone(post_id, await self._send("GET", paths.POST.format(post_id=post_id)))

    async def _read_figures(self) -> httpx2.Response:
        if not self._scheduled:
            return await self._schedule()
        post_id = self._random.choice(list(self._scheduled)[-3:])  # what went out last is what people look at
        return self._unless_gone(post_id, await self._send("GET", paths.FIGURES.format(post_id=post_id)))

    async def _write(self) -> httpx2.Response:
        response = await self._send("POST", paths.POSTS, {"text": self._text()})
        if response.status_code == HTTPStatus.CREATED:
            self.posts.append(response.json()["id"])
        return response

    async def _schedule(self) -> httpx2.Response:
        if not self.accounts:
            return await self._connect()
        due = datetime.now(UTC) + timedelta(seconds=self._random.uniform(*_DUE_SECONDS))
        accounts = self._random.sample(self.accounts, self._random.randint(1, len(self.accounts)))
        plan = {"account_ids": accounts, "publish_at": due.isoformat()}
        response = await self._send("POST", paths.POSTS, {"text": self._text(), **plan})
        if response.status_code == HTTPStatus.CREATED:
            post_id = response.json()["id"]
            self.posts.append(post_id)
            self._scheduled.append(post_id)
        elif response.status_code in (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.CONFLICT):
            self.accounts.clear()  # one of them is gone, or must be connected again
            return await self._list_accounts()
        return response

    async def _cancel(self) -> httpx2.Response:
        if not self._scheduled:
            return await self._me()
        response = await self._send("DELETE", paths.SCHEDULE.format(post_id=self._scheduled[-1]))
        if response.status_code == HTTPStatus.CONFLICT:
            return await self._me()  # already published: too late, and nobody's mistake
        return self._unless_gone(self._scheduled[-1], response)

    async def _list_accounts(self) -> httpx2.Response:
        response = await self._send("GET", paths.ACCOUNTS)
        if response.status_code == HTTPStatus.OK:
            self.accounts = [item["id"] for item in response.json()["items"] if item["state"] == "active"]
        return response

    async def _connect(self) -> httpx2.Response:
        if len(self.accounts) >= _MOST_ACCOUNTS or not self._may_connect:
            return await self._list_accounts()
        if self._platforms is None:
            response = await self._send("GET", paths.PLATFORMS)
            if response.status_code != HTTPStatus.OK:
                return response
            self._platforms = [item["name"] for item in response.json()["items"]]
        if not self._platforms:
            self._may_connect = False
            return await self._list_accounts()
        platform = self._random.choice(self._platforms)
        response = await self._send("POST", paths.AUTHORIZATIONS.format(platform=platform))
        if response.status_code != HTTPStatus.CREATED:
            return response
        page = response.json()["url"]
        if not is_loopback(urlsplit(page).hostname or ""):
            self._may_connect = False  # a real platform: not a place for made-up people
            return await self._list_accounts()
        denied = self._random.random() < _DENIED_SHARE
        answer = await self._client.get(f"{page}&decision={'deny' if denied else 'allow'}", follow_redirects=False)
        if not answer.is_redirect:
            return answer
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        body = {name: query[name][0] for name in ("state", "code", "error") if name in query}
        response = await self._send("POST", paths.CALLBACK.format(platform=platform), body)
        if response.status_code == HTTPStatus.CREATED and response.json()["id"] not in self.accounts:
            self.accounts.append(response.json()["id"])
        if denied:
            return await self._list_accounts()  # the person said no: what came before was meant to be refused
        return response

    async def _disconnect(self) -> httpx2.Response:
        if len(self.accounts) < _MOST_ACCOUNTS:
            return await self._list_accounts()
        account_id = self.accounts.pop()
        response = await self._send("DELETE", paths.ACCOUNT.format(account_id=account_id))
        if response.status_code == HTTPStatus.NOT_FOUND:
            return await self._list_accounts()
        return response

    def _text(self) -> str:
        return " ".join(self._random.choices(_WORDS, k=self._random.randint(3, 30)))

    def _unless_gone(self, post_id: int, response: httpx2.Response) -> httpx2.Response:
        """Forget a post that is no longer there, as after the database was made anew."""
        if response.status_code == HTTPStatus.NOT_FOUND:
            self._forget(post_id)
        return response

    def _forget(self, post_id: int) -> None:
        for known in (self.posts, self._scheduled):
            if post_id in known:
                known.remove(post_id)
