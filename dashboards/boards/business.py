"""AllIN Business and Users: what the platform does for people."""

from __future__ import annotations

from typing import Final

from dashboards.board import Board, Row, environment, platform
from dashboards.names import Folder, Uid
from dashboards.panels import (
    BLUE,
    GREEN,
    HALF,
    NOT_SCRAPED,
    ORANGE,
    QUARTER,
    RED,
    THIRD,
    YELLOW,
    Column,
    Unit,
    bad_from,
    bars,
    column,
    graph,
    listing,
    more,
    now,
    number,
    query,
)
from dashboards.queries import highest, increase, of_job, of_platform, quantile, rate, ratio, total
from dashboards.targets import LIMITS

# Housekeeping runs so seldom that its line would always be far above the others'.
_OFTEN: Final = 'task!="housekeeping"'
_DAY: Final = "24h"
_FAILING: Final = LIMITS["posts_failing"]
_OLDEST: Final = LIMITS["oldest_due_post"]
_TASKS: Final = LIMITS["background_task_failing"]


def _active(window: str) -> str:
    return highest(of_job("allin_active_users", f'window="{window}"'))


_PEOPLE: Final = Row(
    "People",
    [
        number(
            "Active now",
            "People who did something in the last five minutes. Bad: zero at an hour when there are always some.",
            query(_active("5m")),
            unit=Unit.COUNT,
            empty=NOT_SCRAPED,
        ),
        number(
            "Active, 24 h",
            "People who did something in the last 24 hours. For whoever asks how it goes.",
            query(_active("24h")),
            unit=Unit.COUNT,
            empty=NOT_SCRAPED,
        ),
        number(
            "Registered",
            "Accounts of people that there are. Bad: a step down that nobody planned.",
            query(highest(of_job("allin_registered_users"))),
            unit=Unit.COUNT,
            empty=NOT_SCRAPED,
        ),
        number(
            "Sign-ups, 24 h",
            "People who registered in the last 24 hours. Bad: zero where there are always some: then try it yourself.",
            query(total(increase(of_job("allin_user_actions_total", 'action="sign_up"'), _DAY))),
            unit=Unit.COUNT,
            decimals=0,
            empty=NOT_SCRAPED,
        ),
        number(
            "Published, 24 h",
            "Posts that a platform accepted in the last 24 hours; a post for three platforms counts three times.",
            query(total(increase(of_platform("allin_posts_published_total"), _DAY))),
            unit=Unit.COUNT,
            decimals=0,
            empty=NOT_SCRAPED,
        ),
        number(
            "Given up, 24 h",
            "Posts that were given up in the last 24 hours. Each is somebody's post that did not appear. Bad: any that"
            " were not the writer's fault: see 'Posts given up' for the reasons.",
            query(total(increase(of_platform("allin_posts_failed_total"), _DAY))),
            unit=Unit.COUNT,
            decimals=0,
            steps=[(None, GREEN), (1, ORANGE)],
            empty=NOT_SCRAPED,
            alerts=["PostsFailing"],
        ),
        graph(
            "Active users",
            "People who did something in the window before each moment. Bad: the shortest window at zero while the"
            " longer ones are not: people cannot get in, or the counting stopped (see 'Background tasks').",
            *(
                query(_active(window), window, ref)
                for ref, window in zip("ABCDE", ("5m", "1h", "24h", "7d", "30d"), strict=True)
            ),
            unit=Unit.COUNT,
            width=THIRD,
            empty="The backend is not scraped",
        ),
        graph(
            "Sign-ins",
            "Attempts to sign in, a minute. wrong_credentials: refused; rate_limited: refused unseen after too many."
            " Bad: more refused than let in: somebody tries passwords, or people cannot get in.",
            query(f"60 * {total(rate(of_job('allin_sign_ins_total')), 'status')}", "{{status}}"),
            unit=Unit.PER_MINUTE,
            width=THIRD,
            stacked=True,
            colors={"success": GREEN, "wrong_credentials": ORANGE, "rate_limited": RED},
            empty="The backend is not scraped",
            alerts=["SignInFailures"],
        ),
        graph(
            "What people do",
            "Actions that succeeded, a minute. Bad: one kind that stops while the others go on: that function is"
            " broken, or cannot be reached.",
            query(f"60 * {total(rate(of_job('allin_user_actions_total')), 'action')} > 0", "{{action}}"),
            unit=Unit.PER_MINUTE,
            width=THIRD,
            stacked=True,
            empty="Nobody did anything",
        ),
    ],
)

_PUBLISHED: Final = total(increase(of_platform("allin_posts_published_total"), "1h"), "platform")
_GIVEN_UP: Final = total(increase(of_platform("allin_posts_failed_total"), "1h"), "platform")
_DELAYS: Final = rate(of_platform("allin_publish_delay_seconds_bucket"), "30m")

_POSTS: Final = Row(
    "Posts",
    [
        graph(
            "Published",
            "Posts that each platform accepted in the hour before. Bad: a platform that falls to zero while posts"
            " for it are due.",
            query(_PUBLISHED, "{{platform}}"),
            unit=Unit.COUNT,
            stacked=True,
            decimals=0,
            empty="The backend is not scraped",
        ),
        graph(
            "Posts given up",
            "Posts that were given up in the hour before, by reason. rejected: the platform refused the content;"
            " unauthorized: the account must be connected again; too_late: not in time; unknown_outcome: the"
            " platform may have it. Bad: too_late and unknown_outcome, which are ours.",
            query(f"{total(increase(of_platform('allin_posts_failed_total'), '1h'), 'reason')}", "{{reason}}"),
            unit=Unit.COUNT,
            stacked=True,
            decimals=0,
            colors={"rejected": YELLOW, "unauthorized": BLUE, "too_late": ORANGE, "unknown_outcome": RED},
            empty="The backend is not scraped",
            alerts=["PostsFailing"],
        ),
        graph(
            "Share of posts given up",
            f"Of the posts that ended in the hour before, by platform. Above {_FAILING['warning_ratio']:.0%} it"
            f" warns, above {_FAILING['critical_ratio']:.0%} it pages. Bad: one platform alone: see the dashboard of"
            " third-party APIs. All of them: it is us.",
            query(of_platform("job_platform:allin_posts_failed:ratio_rate1h"), "{{platform}}"),
            unit=Unit.RATIO,
            high=1,
            steps=bad_from(_FAILING["warning_ratio"], _FAILING["critical_ratio"]),
            decimals=0,
            empty="No post ended in the last hour",
            alerts=["PostsFailing"],
            links=[more(Uid.THIRD_PARTY, "Third-party APIs")],
        ),
        graph(
            "Written and scheduled",
            "Posts written and posts given a time, in the hour before, once for each platform. Bad: written but none"
            " scheduled: people cannot finish what they began.",
            query(total(increase(of_job("allin_posts_created_total"), "1h")), "written", "A"),
            query(total(increase(of_platform("allin_posts_scheduled_total"), "1h")), "scheduled", "B"),
            unit=Unit.COUNT,
            decimals=0,
            empty="The backend is not scraped",
        ),
    ],
)

_QUEUE: Final = Row(
    "Waiting to be published",
    [
        bars(
            "Due now",
            "Posts whose time has come and which are not published, by platform. Bad: a number that does not go"
            " down. Then see 'Oldest due post'.",
            now(highest(of_platform("allin_publish_queue_posts", 'state="due"'), "platform"), "{{platform}}"),
            unit=Unit.COUNT,
            steps=[(None, GREEN), (1, BLUE), (_OLDEST["critical_minimum_posts"], ORANGE)],
            empty="The backend is not scraped",
            alerts=["OldestDuePost"],
        ),
        graph(
            "Oldest due post",
            f"How long the oldest due post waits, by platform. It warns at {_OLDEST['warning_seconds'] // 60} minutes"
            " and pages at an hour. Bad: a line that rises as fast as time passes: nothing is published there. Then"
            " see the platform's circuit and allowance.",
            query(highest(of_platform("allin_publish_oldest_due_age_seconds"), "platform"), "{{platform}}"),
            unit=Unit.CLOCK,
            steps=bad_from(_OLDEST["warning_seconds"], _OLDEST["critical_seconds"]),
            empty="The backend is not scraped",
            alerts=["OldestDuePost"],
            links=[more(Uid.THIRD_PARTY, "Third-party APIs")],
        ),
        graph(
            "Publishing delay",
            "From a post's time until the platform accepted it: what half and 95 of 100 posts of the last 30 minutes"
            f" stay below. The line is {LIMITS['publish_delay_high']['seconds']:g} s, which one in ten may exceed"
            " before it warns. Bad: P95 above it: too many posts, or a slow platform.",
            query(quantile(0.5, _DELAYS), "P50", "A"),
            query(quantile(0.95, _DELAYS), "P95", "B"),
            unit=Unit.SECONDS,
            steps=bad_from(LIMITS["publish_delay_high"]["seconds"]),
            empty="Nothing was published in 30 minutes",
            alerts=["PublishDelayHigh"],
        ),
        graph(
            "Queue",
            "Posts not yet published: waiting for their time, and due. Bad: due that grows; waiting may be any number.",
            query(total(highest(of_platform("allin_publish_queue_posts"), "platform", "state"), "state"), "{{state}}"),
            unit=Unit.COUNT,
            colors={"waiting": BLUE, "due": ORANGE},
            empty="The backend is not scraped",
        ),
    ],
)

_ACCOUNTS: Final = highest(of_platform("allin_social_accounts"), "platform", "state")


def _accounts(state: str) -> str:
    return highest(of_platform("allin_social_accounts", f'state="{state}"'), "platform")


_INSIDE: Final = Row(
    "Accounts and tasks",
    [
        listing(
            "Connected accounts",
            "Accounts that people have connected, by platform, and those that the platform no longer lets us use until"
            " their owner connects them again. Bad: many of them on one platform at once.",
            column(_accounts("active"), "A"),
            column(_accounts("needs_reconnect"), "B"),
            column(ratio(_accounts("needs_reconnect"), total(_ACCOUNTS, "platform")), "C"),
            columns=[
                Column("platform", "Platform"),
                Column("A", "Active", Unit.COUNT, of_query=True, width=80),
                Column("B", "To be connected again", Unit.COUNT, of_query=True, width=170),
                Column("C", "Share", Unit.RATIO, of_query=True, steps=bad_from(0.1, 0.3), decimals=0, width=80),
            ],
            sort="Share",
            width=HALF,
            empty="The backend is not scraped",
            alerts=["AccountsNeedReconnection"],
        ),
        graph(
            "Background tasks",
            "Seconds since each task last worked in any process. Bad: a line that rises without end: publish, and no"
            " post goes out; refresh_tokens, and accounts are lost; survey, and the numbers here stand still. It"
            f" warns at {_TASKS['seconds']} s (housekeeping: an hour).",
            query(
                "clamp_min(time() -"
                f" {highest(of_job('allin_background_last_success_timestamp_seconds', _OFTEN), 'task')}, 0)",
                "{{task}}",
            ),
            unit=Unit.CLOCK,
            width=QUARTER,
            steps=bad_from(_TASKS["seconds"]),
            empty="The backend is not scraped",
            alerts=["BackgroundTaskFailing"],
        ),
        graph(
            "Failed runs of tasks",
            "Runs that ended in an error, in the ten minutes before. One now and then is tried again. Bad: every run"
            " of a task: the backend's log says why.",
            query(total(increase(of_job("allin_background_runs_total", 'status="error"'), "10m"), "task"), "{{task}}"),
            unit=Unit.COUNT,
            width=QUARTER,
            decimals=0,
            empty="The backend is not scraped",
            alerts=["BackgroundTaskFailing"],
        ),
    ],
)

BOARD: Final = Board(
    Uid.BUSINESS,
    Folder.PLATFORM,
    "AllIN Business and Users",
    "What the platform does for people: who is there, what is published and what is not.",
    [_PEOPLE, _POSTS, _QUEUE, _INSIDE],
    [environment(), platform()],
    mine='job="$job", component=~"publishing|users|tasks"',
    releases=True,
    span="6h",
    refresh="1m",
)
