"""AllIN Third-party APIs: how the social platforms treat us."""

from __future__ import annotations

from typing import Final

from dashboards.board import Board, Row, environment, platform
from dashboards.names import Folder, Uid
from dashboards.panels import (
    BLUE,
    GREEN,
    HALF,
    QUARTER,
    RED,
    THIRD,
    Column,
    Unit,
    bad_below,
    bad_from,
    bars,
    column,
    graph,
    listing,
    more,
    now,
    query,
    timeline,
)
from dashboards.queries import highest, increase, of_platform, quantile, rate, ratio, total
from dashboards.targets import LIMITS

_FAILURES: Final = LIMITS["social_api_failures"]
_SLOW: Final = LIMITS["social_api_slow"]
_OAUTH: Final = LIMITS["oauth_failures"]
_WINDOW: Final = "10m"

_STATE: Final = Row(
    "Platforms",
    [
        listing(
            "Platforms at a glance",
            "One line for each platform, over the last 10 minutes. Bad: red. A platform that fails alone is its own"
            " trouble or our allowance with it; all of them at once is our way to the internet.",
            column(of_platform("job_platform:allin_social_api_calls:rate10m"), "A"),
            column(of_platform("job_platform:allin_social_api_faults:ratio_rate10m"), "B"),
            column(of_platform("job_platform:allin_social_api_duration_seconds:p95_rate10m"), "C"),
            column(total(of_platform("allin_social_circuit_open"), "platform"), "D"),
            column(highest(of_platform("allin_social_quota_used_ratio"), "platform"), "E"),
            column(
                f"min by (platform) ({of_platform('allin_social_rate_limit_remaining')}"
                f" / {of_platform('allin_social_rate_limit_requests')})",
                "F",
            ),
            column(f"min by (platform) ({of_platform('allin_oauth_token_expiry_timestamp_seconds')}) * 1000", "G"),
            columns=[
                Column("platform", "Platform"),
                Column("A", "Requests", Unit.REQUESTS_PER_SECOND, of_query=True, decimals=2, width=110),
                Column(
                    "B",
                    "Failed",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(_FAILURES["warning_ratio"], _FAILURES["critical_ratio"]),
                    decimals=1,
                    width=85,
                ),
                Column("C", "P95", Unit.SECONDS, of_query=True, steps=bad_from(_SLOW["seconds"]), width=90),
                Column(
                    "D",
                    "Held back by",
                    Unit.COUNT,
                    of_query=True,
                    steps=bad_from(1),
                    texts={0: ("nobody", GREEN)},
                    width=115,
                ),
                Column(
                    "E",
                    "Allowance used",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_from(0.7, LIMITS["social_quota_used"]["ratio"]),
                    decimals=0,
                    width=130,
                ),
                Column(
                    "F",
                    "Requests left",
                    Unit.RATIO,
                    of_query=True,
                    steps=bad_below(LIMITS["social_rate_limit_running_out"]["ratio"]),
                    decimals=0,
                    width=120,
                ),
                Column("G", "First token ends", Unit.MOMENT, of_query=True, width=140),
            ],
            sort="Platform",
            descending=False,
            height=8,
            empty="The backend is not scraped",
        ),
        timeline(
            "Circuits",
            "When requests to a platform were held back, because many in a row had failed. Meanwhile only a probe is"
            " sent now and then. Bad: red that stays: the platform is down for us. Posts wait and are published"
            " afterwards.",
            query(highest(of_platform("allin_social_circuit_open"), "platform"), "{{platform}}"),
            texts={0: ("requests are sent", GREEN), 1: ("held back", RED)},
            height=6,
            empty="The backend is not scraped",
            alerts=["SocialCircuitOpen"],
        ),
    ],
)

_CALLS: Final = Row(
    "Requests",
    [
        graph(
            "Requests to platforms",
            "Requests a second, each retry counted. Bad: a platform at zero while posts for it are due (held back,"
            " or nothing asks), or many times what is usual: retries.",
            query(of_platform("job_platform:allin_social_api_calls:rate10m"), "{{platform}}"),
            unit=Unit.REQUESTS_PER_SECOND,
            stacked=True,
            decimals=2,
            empty="The backend is not scraped",
        ),
        graph(
            "Failed requests",
            "Share of requests with no answer, or an error of the platform's own; refused posts, ended tokens and"
            f" used-up allowances are not in it. Above {_FAILURES['warning_ratio']:.0%} it warns, above"
            f" {_FAILURES['critical_ratio']:.0%} it pages. Bad: one that stays up; the platform's status page may"
            " know.",
            query(of_platform("job_platform:allin_social_api_faults:ratio_rate10m"), "{{platform}}"),
            unit=Unit.RATIO,
            high=1,
            steps=bad_from(_FAILURES["warning_ratio"], _FAILURES["critical_ratio"]),
            decimals=1,
            empty="No requests in 10 minutes",
            alerts=["SocialApiFailures"],
        ),
        graph(
            "Response time P95",
            f"What 95 of 100 requests of the last 10 minutes stay below. Alert at {_SLOW['seconds']:g} s. Bad: a rise"
            " on one platform: publishing to it gets slow, then times out.",
            query(of_platform("job_platform:allin_social_api_duration_seconds:p95_rate10m"), "{{platform}}"),
            unit=Unit.SECONDS,
            steps=bad_from(_SLOW["seconds"]),
            empty="No requests in 10 minutes",
            alerts=["SocialApiSlow"],
        ),
        graph(
            "Failures by kind",
            "Failed requests in the 10 minutes before. timeout, connection, server_error, invalid_response: the"
            " platform or the network; rate_limited: our allowance; unauthorized: tokens; rejected: content;"
            " circuit_open: not sent. Bad: what was not there yesterday.",
            query(
                f"{total(increase(of_platform('allin_social_api_errors_total'), _WINDOW), 'error')} > 0", "{{error}}"
            ),
            unit=Unit.COUNT,
            stacked=True,
            decimals=0,
            empty="No failed requests",
            alerts=["SocialApiFailures"],
        ),
        listing(
            "By endpoint",
            "Requests of the last 10 minutes by platform and endpoint, the slowest first. Bad: red. One endpoint of one"
            " platform is often a change of theirs: see their change log.",
            column(
                f"{total(rate(of_platform('allin_social_api_calls_total'), _WINDOW), 'platform', 'endpoint')} > 0", "A"
            ),
            column(
                ratio(
                    total(
                        rate(of_platform("allin_social_api_calls_total", 'status="error"'), _WINDOW),
                        "platform",
                        "endpoint",
                    ),
                    total(rate(of_platform("allin_social_api_calls_total"), _WINDOW), "platform", "endpoint"),
                ),
                "B",
            ),
            column(
                quantile(
                    0.95,
                    rate(of_platform("allin_social_api_duration_seconds_bucket"), _WINDOW),
                    "platform",
                    "endpoint",
                ),
                "C",
            ),
            columns=[
                Column("platform", "Platform"),
                Column("endpoint", "Endpoint"),
                Column("A", "Requests", Unit.REQUESTS_PER_SECOND, of_query=True, decimals=3, width=100),
                Column("B", "Failed", Unit.RATIO, of_query=True, steps=bad_from(0.01, 0.1), decimals=1, width=75),
                Column("C", "P95", Unit.SECONDS, of_query=True, steps=bad_from(1, _SLOW["seconds"]), width=75),
            ],
            sort="P95",
            width=HALF,
            height=9,
            empty="No requests in 10 minutes",
        ),
        graph(
            "Response time",
            "What half of the requests of the last 10 minutes stay below: how the platform usually is, without the"
            " outliers of P95.",
            query(of_platform("job_platform:allin_social_api_duration_seconds:p50_rate10m"), "{{platform}}"),
            unit=Unit.SECONDS,
            height=9,
            empty="No requests in 10 minutes",
        ),
        graph(
            "Retries",
            "Requests that were sent again, in the 10 minutes before. A few are normal. Bad: as many as there are"
            " requests: nothing gets through at the first try.",
            query(total(increase(of_platform("allin_social_api_retries_total"), _WINDOW), "platform"), "{{platform}}"),
            unit=Unit.COUNT,
            height=9,
            stacked=True,
            decimals=0,
            empty="The backend is not scraped",
        ),
    ],
)

_LEFT: Final = (
    f"min by (platform) ({of_platform('allin_social_rate_limit_remaining')}"
    f" / {of_platform('allin_social_rate_limit_requests')})"
)

_ALLOWANCE: Final = Row(
    "Allowances",
    [
        bars(
            "Allowance used",
            "Share of its allowance that each platform says is used: of the requests of its present window, or of a"
            f" quota. Alert at {LIMITS['social_quota_used']['ratio']:.0%}; beyond 100 % it refuses requests. Bad:"
            " near it: fewer look-ups of figures leave more for posts. Platforms that tell nothing are not here.",
            now(
                f"{highest(of_platform('allin_social_quota_used_ratio'), 'platform')} or 1 - {_LEFT}",
                "{{platform}}",
            ),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_from(0.7, LIMITS["social_quota_used"]["ratio"]),
            decimals=0,
            empty="No platform has told its allowance yet",
            alerts=["SocialQuotaUsed"],
        ),
        graph(
            "Requests left",
            "Share of its present window's requests that a platform still allows, as its last answer said. It warns"
            " where they will not last until the window ends, below 20 %. Bad: near zero: requests wait for the next"
            " window. Only platforms that tell a number are here.",
            query(_LEFT, "{{platform}}"),
            unit=Unit.RATIO,
            width=THIRD,
            high=1,
            steps=bad_below(LIMITS["social_rate_limit_running_out"]["ratio"]),
            decimals=0,
            empty="No platform has told its limit yet",
            alerts=["SocialRateLimitRunningOut"],
        ),
        graph(
            "Window ends in",
            "How long until a platform's present window ends and its allowance is full again, as its last answer said."
            " Zero: nobody has asked since. Read it together with 'Requests left'.",
            query(
                f"clamp_min({highest(of_platform('allin_social_rate_limit_reset_timestamp_seconds'), 'platform')} -"
                " time(), 0)",
                "{{platform}}",
            ),
            unit=Unit.CLOCK,
            width=THIRD,
            low=None,
            empty="No platform has told its window yet",
        ),
    ],
)

_OF_OAUTH: Final = "allin_oauth_operations_total"

_CONNECTIONS: Final = Row(
    "Connected accounts",
    [
        graph(
            "OAuth operations",
            "In the 30 minutes before, by outcome. denied: the person said no, which is nobody's fault. Bad: errors"
            " (red) more than now and then.",
            query(total(increase(of_platform(_OF_OAUTH), "30m"), "status"), "{{status}}"),
            unit=Unit.COUNT,
            stacked=True,
            decimals=0,
            colors={"success": GREEN, "denied": BLUE, "error": RED},
            empty="The backend is not scraped",
            alerts=["OAuthFailures"],
        ),
        graph(
            "Failed OAuth operations",
            "Share of the operations of the last 30 minutes that failed, by platform and operation. Above"
            f" {_OAUTH['warning_ratio']:.0%} it warns, above {_OAUTH['critical_ratio']:.0%} it pages. Bad: callback,"
            " when nobody can connect an account; refresh, when accounts are about to be lost.",
            query(
                of_platform("job_platform_operation:allin_oauth_operations_errors:ratio_rate30m"),
                "{{platform}} {{operation}}",
            ),
            unit=Unit.RATIO,
            high=1,
            steps=bad_from(_OAUTH["warning_ratio"], _OAUTH["critical_ratio"]),
            decimals=0,
            empty="No OAuth operations in 30 minutes",
            alerts=["OAuthFailures"],
        ),
        graph(
            "First token to end",
            "How long the access token that ends first still holds, by platform. Tokens are refreshed ten minutes"
            f" before they end; it warns below {LIMITS['tokens_not_refreshed']['seconds'] // 60} minutes. Bad: a line"
            " that runs into zero: refreshing fails, and posts will be given up.",
            query(
                f"min by (platform) ({of_platform('allin_oauth_token_expiry_timestamp_seconds')}) - time()",
                "{{platform}}",
            ),
            unit=Unit.CLOCK,
            low=None,
            steps=bad_below(LIMITS["tokens_not_refreshed"]["seconds"]),
            empty="No account has a token that ends",
            alerts=["TokensNotRefreshed"],
        ),
        graph(
            "Accounts to be connected again",
            "Accounts whose platform no longer takes their token, until their owner connects them again. Bad: a"
            " step: the platform, or we, took the permission from many at once.",
            query(highest(of_platform("allin_social_accounts", 'state="needs_reconnect"'), "platform"), "{{platform}}"),
            unit=Unit.COUNT,
            width=QUARTER,
            stacked=True,
            empty="The backend is not scraped",
            alerts=["AccountsNeedReconnection"],
            links=[more(Uid.BUSINESS, "Business and users")],
        ),
    ],
)

BOARD: Final = Board(
    Uid.THIRD_PARTY,
    Folder.PLATFORM,
    "AllIN Third-party APIs",
    "How the social platforms treat us: do they answer, how fast, how much do they still allow, and do our tokens"
    " hold?",
    [_STATE, _CALLS, _ALLOWANCE, _CONNECTIONS],
    [environment(), platform()],
    mine='job="$job", component=~"social|oauth"',
    releases=True,
    span="3h",
)
