"""The path template of every route: the route table serves them, the metric contract uses them as label values."""

from typing import Final

INDEX: Final = "/"
HEALTH: Final = "/health"
READY: Final = "/ready"
METRICS: Final = "/metrics"
OPENAPI: Final = "/openapi.json"
USERS: Final = "/api/v1/users"
ME: Final = "/api/v1/users/me"
SESSIONS: Final = "/api/v1/sessions"
CURRENT_SESSION: Final = "/api/v1/sessions/current"
PLATFORMS: Final = "/api/v1/platforms"
AUTHORIZATIONS: Final = "/api/v1/platforms/{platform}/authorizations"
CALLBACK: Final = "/api/v1/platforms/{platform}/callback"
ACCOUNTS: Final = "/api/v1/accounts"
ACCOUNT: Final = "/api/v1/accounts/{account_id}"
POSTS: Final = "/api/v1/posts"
POST: Final = "/api/v1/posts/{post_id}"
SCHEDULE: Final = "/api/v1/posts/{post_id}/schedule"
FIGURES: Final = "/api/v1/posts/{post_id}/figures"

# /metrics is not measured: at low traffic the scrapes themselves would be most of what the percentiles show.
MEASURED: Final = (
    INDEX,
    HEALTH,
    READY,
    OPENAPI,
    USERS,
    ME,
    SESSIONS,
    CURRENT_SESSION,
    PLATFORMS,
    AUTHORIZATIONS,
    CALLBACK,
    ACCOUNTS,
    ACCOUNT,
    POSTS,
    POST,
    SCHEDULE,
    FIGURES,
)
