"""What the platform does for its users, and what it asks of others: caches, posts, people, social platforms, jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric as Family

from allin_backend.metrics import contract
from allin_backend.metrics.instruments import Counter, Gauge, Histogram


class WorkMetrics:
    """The instruments by subject. Whoever does the work counts it here, after it has been done."""

    def __init__(self) -> None:
        self.cache_hits: Final = Counter(contract.CACHE_HITS)
        self.cache_misses: Final = Counter(contract.CACHE_MISSES)
        self.cache_errors: Final = Counter(contract.CACHE_ERRORS)
        self.cache_available: Final = Gauge(contract.CACHE_AVAILABLE)

        self.oauth_operations: Final = Counter(contract.OAUTH_OPERATIONS_TOTAL)
        self.oauth_token_expiry: Final = Gauge(contract.OAUTH_TOKEN_EXPIRY)
        self.social_calls: Final = Counter(contract.SOCIAL_CALLS)
        self.social_duration: Final = Histogram(contract.SOCIAL_DURATION)
        self.social_errors: Final = Counter(contract.SOCIAL_ERRORS_TOTAL)
        self.social_retries: Final = Counter(contract.SOCIAL_RETRIES)
        self.social_circuit_open: Final = Gauge(contract.SOCIAL_CIRCUIT_OPEN)
        self.social_rate_limit: Final = Gauge(contract.SOCIAL_RATE_LIMIT)
        self.social_rate_remaining: Final = Gauge(contract.SOCIAL_RATE_REMAINING)
        self.social_rate_reset: Final = Gauge(contract.SOCIAL_RATE_RESET)
        self.social_quota_used: Final = Gauge(contract.SOCIAL_QUOTA_USED)
        self.social_accounts: Final = Gauge(contract.SOCIAL_ACCOUNTS)

        self.posts_created: Final = Counter(contract.POSTS_CREATED)
        self.posts_scheduled: Final = Counter(contract.POSTS_SCHEDULED)
        self.posts_published: Final = Counter(contract.POSTS_PUBLISHED)
        self.posts_failed: Final = Counter(contract.POSTS_FAILED)
        self.queue_posts: Final = Gauge(contract.QUEUE_POSTS)
        self.publish_delay: Final = Histogram(contract.PUBLISH_DELAY)

        self.active_users: Final = Gauge(contract.ACTIVE_USERS)
        self.registered_users: Final = Gauge(contract.REGISTERED_USERS)
        self.sign_ins: Final = Counter(contract.SIGN_INS)
        self.user_actions: Final = Counter(contract.USER_ACTIONS_TOTAL)

        self.background_runs: Final = Counter(contract.BACKGROUND_RUNS)
        self.background_last_success: Final = Gauge(contract.BACKGROUND_LAST_SUCCESS)
        self.fault_active: Final = Gauge(contract.FAULT_ACTIVE)

        self._oldest_due: dict[str, float | None] = dict.fromkeys(contract.PLATFORMS)
        self._instruments: Final = tuple(
            instrument for instrument in vars(self).values() if isinstance(instrument, Counter | Gauge | Histogram)
        )
        self.cache_available.set(1)
        for job in contract.JOBS:
            self.background_last_success.set(time.time(), job)

    def set_oldest_due(self, platform: str, due: float | None) -> None:
        """The due time (Unix seconds) of the platform's oldest due post, ``None`` where none is due.

        A point in time rather than an age: the age goes on growing at each scrape while the database is gone.
        """
        if platform not in self._oldest_due:
            raise KeyError(platform)
        self._oldest_due[platform] = due

    def collect(self) -> Iterator[Family]:
        """The families with their present values."""
        for instrument in self._instruments:
            yield instrument.family()
        age = Gauge(contract.OLDEST_DUE_AGE)
        now = time.time()
        for platform, due in self._oldest_due.items():
            age.set(0.0 if due is None else max(0.0, now - due), platform)
        yield age.family()
