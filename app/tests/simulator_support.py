"""A simulator in the test's own process, and what a client of it has to do."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2

from allin_simulator.app import create_simulator
from allin_simulator.settings import Settings

NOW: Final = 1_790_000_000.0
VERIFIER: Final = "a-verifier-that-has-the-forty-three-characters-it-needs"
CHALLENGE: Final = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT: Final = "https://app.example.com/callback"
SCOPE: Final = "read offline.access"
BASIC: Final = ("linkedin", "twitter")


class Clock:
    def __init__(self) -> None:
        self.now = NOW
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass
class Simulation:
    """A client of the simulator, which knows how each platform wants to be asked."""

    http: httpx2.AsyncClient
    clock: Clock
    client: str = "the-client"
    secret: str = "the-secret"

    async def put(self, platform: str, **knobs: object) -> None:
        response = await self.http.put(f"/control/platforms/{platform}", json=knobs)
        assert response.status_code == 200, response.text

    async def authorize(self, platform: str, **changes: str) -> dict[str, str]:
        """What the person's browser brings back."""
        name = "client_key" if platform == "tiktok" else "client_id"
        query = {
            "response_type": "code",
            name: self.client,
            "redirect_uri": REDIRECT,
            "scope": SCOPE,
            "state": "the-state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        response = await self.http.get(f"/{platform}/oauth/authorize", params=query | changes)
        assert response.status_code == 302, response.text
        location = urlsplit(response.headers["location"])
        assert location._replace(query="").geturl() == REDIRECT
        return {name: values[0] for name, values in parse_qs(location.query).items()}

    async def post_oauth(self, platform: str, address: str, **form: str) -> httpx2.Response:
        """A request of the client, which names itself as the platform wants it."""
        path = f"/{platform}/oauth/{address}"
        if platform in BASIC:
            return await self.http.post(path, data=form, auth=httpx2.BasicAuth(self.client, self.secret))
        name = "client_key" if platform == "tiktok" else "client_id"
        return await self.http.post(path, data={name: self.client, "client_secret": self.secret, **form})

    async def redeem(self, platform: str, code: str, **changes: str) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
        }
        return await self.post_oauth(platform, "token", **(form | changes))

    async def refresh(self, platform: str, token: str) -> httpx2.Response:
        return await self.post_oauth(platform, "token", grant_type="refresh_token", refresh_token=token)

    async def connect(self, platform: str, person: str = "alex") -> dict[str, Any]:
        """The members of the answer with the tokens."""
        response = await self.redeem(platform, (await self.authorize(platform, login_hint=person))["code"])
        assert response.status_code == 200, response.text
        members: dict[str, Any] = response.json()
        return members

    async def identity(self, platform: str, token: str) -> httpx2.Response:
        path = {
            "facebook": "/me?fields=id,name",
            "instagram": "/me?fields=id,username",
            "linkedin": "/v2/userinfo",
            "tiktok": "/v2/user/info/?fields=open_id,display_name",
            "twitter": "/2/users/me",
        }[platform]
        return await self.http.get(f"/{platform}{path}", headers=_bearer(token))

    async def publish(self, platform: str, token: str, text: str, key: str | None = None) -> httpx2.Response:
        headers = _bearer(token) | ({"Idempotency-Key": key} if key else {})
        match platform:
            case "facebook":
                return await self.http.post("/facebook/me/feed", data={"message": text}, headers=headers)
            case "instagram":
                made = await self.http.post("/instagram/me/media", data={"caption": text}, headers=headers)
                if made.status_code != 200:
                    return made
                form = {"creation_id": made.json()["id"]}
                return await self.http.post("/instagram/me/media_publish", data=form, headers=headers)
            case "linkedin":
                sub = (await self.http.get("/linkedin/v2/userinfo", headers=headers)).json().get("sub")
                post = {
                    "author": f"urn:li:person:{sub}",
                    "commentary": text,
                    "visibility": "PUBLIC",
                    "lifecycleState": "PUBLISHED",
                }
                headers |= {"LinkedIn-Version": "202606"}
                return await self.http.post("/linkedin/rest/posts", json=post, headers=headers)
            case "tiktok":
                content = {"post_info": {"description": text}, "media_type": "PHOTO", "post_mode": "DIRECT_POST"}
                return await self.http.post("/tiktok/v2/post/publish/content/init/", json=content, headers=headers)
            case _:
                return await self.http.post("/twitter/2/tweets", json={"text": text}, headers=headers)

    async def figures(self, platform: str, token: str, post_id: str) -> httpx2.Response:
        headers = _bearer(token)
        match platform:
            case "facebook":
                metrics = "post_impressions,post_activity_by_action_type"
                return await self.http.get(f"/facebook/{post_id}/insights?metric={metrics}", headers=headers)
            case "instagram":
                metrics = "views,likes,comments,shares"
                return await self.http.get(f"/instagram/{post_id}/insights?metric={metrics}", headers=headers)
            case "linkedin":
                headers |= {"LinkedIn-Version": "202606"}
                urn = post_id.replace(":", "%3A")
                return await self.http.get(f"/linkedin/rest/socialMetadata/{urn}", headers=headers)
            case "tiktok":
                path = "/tiktok/v2/video/query/?fields=id,view_count,like_count,comment_count,share_count"
                return await self.http.post(path, json={"filters": {"video_ids": [post_id]}}, headers=headers)
            case _:
                return await self.http.get(f"/twitter/2/tweets/{post_id}?tweet.fields=public_metrics", headers=headers)

    async def posts(self) -> list[dict[str, Any]]:
        posts: list[dict[str, Any]] = (await self.http.get("/control/posts")).json()["posts"]
        return posts

    async def stats(self, platform: str) -> dict[str, Any]:
        stats: dict[str, Any] = (await self.http.get("/control/stats")).json()[platform]
        return stats


@asynccontextmanager
async def simulation(settings: Settings | None = None, clock: Clock | None = None) -> AsyncIterator[Simulation]:
    clock = clock or Clock()
    transport = httpx2.ASGITransport(create_simulator(settings or Settings(), clock=clock, sleep=clock.sleep))
    async with httpx2.AsyncClient(transport=transport, base_url="http://simulator.example.com") as http:
        yield Simulation(http, clock)


def post_id(platform: str, response: httpx2.Response) -> str:
    """The id of what was just published."""
    match platform:
        case "linkedin":
            return response.headers["x-restli-id"]
        case "tiktok":
            return str(response.json()["data"]["publish_id"])
        case "twitter":
            return str(response.json()["data"]["id"])
        case _:
            return str(response.json()["id"])


def read_figures(platform: str, response: httpx2.Response) -> Mapping[str, int]:
    """The figures that the platform tells, by our names for them."""
    content = response.json()
    match platform:
        case "facebook":
            values = {metric["name"]: metric["values"][0]["value"] for metric in content["data"]}
            actions = values["post_activity_by_action_type"]
            return {
                "impressions": values["post_impressions"],
                "likes": actions["like"],
                "comments": actions["comment"],
                "shares": actions["share"],
            }
        case "instagram":
            values = {metric["name"]: metric["values"][0]["value"] for metric in content["data"]}
            return {"impressions": values.pop("views"), **values}
        case "linkedin":
            return {
                "likes": content["reactionSummaries"]["LIKE"]["count"],
                "comments": content["commentSummary"]["count"],
            }
        case "tiktok":
            (video,) = content["data"]["videos"]
            return {
                "impressions": video["view_count"],
                "likes": video["like_count"],
                "comments": video["comment_count"],
                "shares": video["share_count"],
            }
        case _:
            metrics = content["data"]["public_metrics"]
            return {
                "impressions": metrics["impression_count"],
                "likes": metrics["like_count"],
                "comments": metrics["reply_count"],
                "shares": metrics["retweet_count"],
            }


def usage(platform: str, response: httpx2.Response) -> object:
    """What the platform says of the account's limit."""
    headers = response.headers
    match platform:
        case "facebook":
            return json.loads(headers["x-app-usage"])
        case "instagram":
            ((entry,),) = json.loads(headers["x-business-use-case-usage"]).values()
            return entry
        case "twitter":
            return {name: headers[f"x-rate-limit-{name}"] for name in ("limit", "remaining", "reset")}
        case _:
            return headers.get("retry-after")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
