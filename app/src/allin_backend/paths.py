"""The path template of every route: the route table serves them, the metric contract uses them as label values."""

from typing import Final

INDEX: Final = "/"
HEALTH: Final = "/health"
READY: Final = "/ready"
METRICS: Final = "/metrics"
USERS: Final = "/api/v1/users"
USER: Final = "/api/v1/users/{user_id}"
POSTS: Final = "/api/v1/posts"
POST: Final = "/api/v1/posts/{post_id}"

# /metrics is not measured: at low traffic the scrapes themselves would be most of what the percentiles show.
MEASURED: Final = (INDEX, HEALTH, READY, USERS, USER, POSTS, POST)
