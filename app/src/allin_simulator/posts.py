"""What has been published, and how it does."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

from allin_simulator.recent import Recent

_EPOCH: Final = 1_577_836_800
"""Ids count from here: the start of 2020, in Unix seconds."""
_SEQUENCE_BITS: Final = 10
_CHECK_BITS: Final = 12
_GROWTH_SECONDS: Final = 7200.0
_KEPT_CHARACTERS: Final = 500


class Figures(NamedTuple):
    impressions: int
    likes: int
    comments: int
    shares: int


@dataclass(slots=True)
class Post:
    """One post. ``requests`` counts how often it was asked for, with the same idempotency key."""

    platform: str
    number: int
    person: str
    text: str
    idempotency_key: str | None
    created_at: float
    requests: int = 1


class PostIds:
    """Ids that hold the time and a check, so that a post which was forgotten can be told from one that never was."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(f"allin-simulator posts {secret}".encode()).digest()
        self._milliseconds = 0
        self._sequence = 0

    def new(self, platform: str, now: float) -> int:
        milliseconds = max(int((now - _EPOCH) * 1000), self._milliseconds)
        self._sequence = self._sequence + 1 if milliseconds == self._milliseconds else 0
        if self._sequence >> _SEQUENCE_BITS:
            milliseconds, self._sequence = milliseconds + 1, 0
        self._milliseconds = milliseconds
        moment = milliseconds << _SEQUENCE_BITS | self._sequence
        return moment << _CHECK_BITS | self._check(platform, moment)

    def made_at(self, platform: str, number: int) -> float | None:
        """When the id was made, in Unix seconds; ``None`` if it was not made for this platform."""
        moment = number >> _CHECK_BITS
        if number <= 0 or number >> 63 or number & (1 << _CHECK_BITS) - 1 != self._check(platform, moment):
            return None
        return _EPOCH + (moment >> _SEQUENCE_BITS) / 1000

    def _check(self, platform: str, moment: int) -> int:
        digest = hmac.digest(self._key, f"{platform} {moment}".encode(), "sha256")
        return int.from_bytes(digest[:2]) >> 16 - _CHECK_BITS


class Posts:
    """The last posts of all platforms."""

    def __init__(self, secret: str, limit: int) -> None:
        self._secret = secret
        self._ids = PostIds(secret)
        self._posts: Recent[tuple[str, int], Post] = Recent(limit)
        self._keys: Recent[tuple[str, str, str], Post] = Recent(limit)
        self.published: Counter[str] = Counter()
        """Posts by platform, the forgotten ones too."""
        self.repeated: Counter[str] = Counter()
        """Requests for a post that was there already, by platform."""

    def publish(self, platform: str, person: str, text: str, key: str | None, now: float) -> Post:
        """A new post, or the one that was made for this idempotency key before."""
        if key is not None and (known := self._keys.get((platform, person, key))) is not None:
            known.requests += 1
            self.repeated[platform] += 1
            return known
        post = Post(platform, self._ids.new(platform, now), person, text[:_KEPT_CHARACTERS], key, now)
        self.published[platform] += 1
        self._posts.put((platform, post.number), post)
        if key is not None:
            self._keys.put((platform, person, key), post)
        return post

    def get(self, platform: str, number: int) -> Post | None:
        return self._posts.get((platform, number))

    def newest(self, platform: str | None, limit: int) -> list[Post]:
        posts = (post for post in self._posts.newest_first() if platform in (None, post.platform))
        return [post for post, _ in zip(posts, range(limit), strict=False)]

    def figures(self, platform: str, number: int, now: float) -> Figures | None:
        """The figures of a post, forgotten or not; ``None`` for an id that no post can have."""
        created_at = self._ids.made_at(platform, number)
        if created_at is None or created_at > now + 60:
            return None
        return figures(number, now - created_at)

    def clear(self) -> None:
        self._posts.clear()
        self._keys.clear()
        self._ids = PostIds(self._secret)
        self.published.clear()
        self.repeated.clear()


def figures(number: int, age: float) -> Figures:
    """What a post has after ``age`` seconds. Depends on nothing else, and only grows."""
    digest = hashlib.sha256(str(number).encode()).digest()
    share = [int.from_bytes(digest[start : start + 4]) / 2**32 for start in range(0, 16, 4)]
    grown = 1 - math.exp(-max(age, 0.0) / _GROWTH_SECONDS)
    audience = (200 + 20_000 * share[0]) * grown
    return Figures(
        impressions=int(audience),
        likes=int(audience * (0.01 + 0.07 * share[1])),
        comments=int(audience * (0.001 + 0.009 * share[2])),
        shares=int(audience * (0.001 + 0.009 * share[3])),
    )
