"""What is kept for a while so that the database, or a social platform, need not be asked again."""

from __future__ import annotations

from allin_backend.cache.facade import Cache
from allin_backend.cache.memory import MemoryStore
from allin_backend.cache.redis import RedisStore
from allin_backend.metrics.work import WorkMetrics
from allin_backend.secret_files import read_line
from allin_backend.settings import Settings

__all__ = ["Cache", "make_cache"]


def make_cache(settings: Settings, metrics: WorkMetrics) -> Cache:
    """The cache that ``ALLIN_CACHE_URL`` names. Connects to nothing until ``start``.

    Raises:
        ConfigurationError: the file with the password cannot be used.
    """
    if settings.cache_url == "memory:":
        # A file of its own, and no other process at the same port: nobody else changes what is kept here.
        alone = settings.database_url.get_backend_name() == "sqlite" and not settings.metrics_port
        return Cache(MemoryStore(settings.cache_size), metrics, coherent=alone)
    password = read_line("ALLIN_CACHE_PASSWORD_FILE", settings.cache_password_file)
    return Cache(
        RedisStore(settings.cache_url, password=password, timeout=settings.cache_timeout_seconds),
        metrics,
        coherent=True,
    )
