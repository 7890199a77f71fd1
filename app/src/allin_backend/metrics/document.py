"""The contract as a document: ``python -m allin_backend.metrics.document`` prints ``docs/metrics.md``.

Needs nothing but the standard library, so that no environment has to be built for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from allin_backend.metrics import contract
from allin_backend.metrics.contract import Kind, Label, Metric, Subject

_FROM_THE_START: Final = "from the first scrape"
_OPEN_VALUES: Final = "fixed when the process starts"
# Longer sets stand once, in a section of their own.
_LONGEST_INLINE: Final = 11


@dataclass(frozen=True, slots=True)
class Query:
    """A useful query, and what it answers."""

    answers: str
    expression: str


# An idle service must give no sample instead of NaN: "> 0". Quantiles are taken of the sum over all series. Where every
# series of a metric is there from the start, no "or 0 *" is needed for those that have not appeared yet.
QUERIES: Final[Mapping[str, tuple[Query, ...]]] = {
    contract.HTTP_REQUEST_DURATION.name: (
        Query(
            "95th percentile of the response time, in seconds",
            "histogram_quantile(0.95, sum by (le) (rate(allin_http_request_duration_seconds_bucket[5m])))",
        ),
        Query(
            "share of requests answered within 200 ms, exact because 0.2 is a bound",
            'sum(rate(allin_http_request_duration_seconds_bucket{le="0.2"}[5m]))'
            " / (sum(rate(allin_http_request_duration_seconds_count[5m])) > 0)",
        ),
    ),
    contract.HTTP_REQUESTS.name: (
        Query("requests a second by status code", "sum by (status_code) (rate(allin_http_requests_total[5m]))"),
        Query(
            "success rate in per cent: what is not a 5xx",
            '100 * (1 - (sum(rate(allin_http_requests_total{status_code=~"5.."}[5m])) or vector(0))'
            " / (sum(rate(allin_http_requests_total[5m])) > 0))",
        ),
    ),
    contract.ACTIVE_CONNECTIONS.name: (Query("of the whole service", "sum(allin_active_connections)"),),
    contract.DB_QUERY_DURATION.name: (
        Query(
            "99th percentile by operation and table, in seconds",
            "histogram_quantile(0.99,"
            " sum by (operation, table, le) (rate(allin_db_query_duration_seconds_bucket[5m])))",
        ),
    ),
    contract.DB_QUERIES.name: (
        Query("failed statements a second", 'sum(rate(allin_db_queries_total{status="error"}[5m])) or vector(0)'),
    ),
    contract.DB_POOL_CONNECTIONS.name: (
        Query(
            "share of the pool in use, for each instance",
            'allin_db_pool_connections{state="in_use"} / ignoring (state) allin_db_pool_connections_limit',
        ),
    ),
    contract.CACHE_HITS.name: (
        Query(
            "hit rate by cache",
            "sum by (cache_type) (rate(allin_cache_hits_total[5m])) / (sum by (cache_type)"
            " (rate(allin_cache_hits_total[5m])) + sum by (cache_type) (rate(allin_cache_misses_total[5m])) > 0)",
        ),
    ),
    contract.OAUTH_OPERATIONS_TOTAL.name: (
        Query(
            "success rate by platform; a person who says no is no failure",
            'sum by (platform) (rate(allin_oauth_operations_total{status="success"}[5m]))'
            ' / (sum by (platform) (rate(allin_oauth_operations_total{status!="denied"}[5m])) > 0)',
        ),
    ),
    contract.OAUTH_TOKEN_EXPIRY.name: (
        Query(
            "seconds until the first token ends",
            "min by (platform) (allin_oauth_token_expiry_timestamp_seconds) - time()",
        ),
    ),
    contract.SOCIAL_CALLS.name: (
        Query(
            "share of failed requests by platform",
            'sum by (platform) (rate(allin_social_api_calls_total{status="error"}[5m]))'
            " / (sum by (platform) (rate(allin_social_api_calls_total[5m])) > 0)",
        ),
    ),
    contract.SOCIAL_DURATION.name: (
        Query(
            "mean response time in seconds",
            "sum(rate(allin_social_api_duration_seconds_sum[5m]))"
            " / (sum(rate(allin_social_api_duration_seconds_count[5m])) > 0)",
        ),
    ),
    contract.SOCIAL_ERRORS_TOTAL.name: (
        Query(
            "failures a second by platform and class, only those that occur",
            "sum by (platform, error) (rate(allin_social_api_errors_total[5m])) > 0",
        ),
    ),
    contract.QUEUE_POSTS.name: (
        Query("posts due now, by platform", 'max by (platform) (allin_publish_queue_posts{state="due"})'),
    ),
    contract.PUBLISH_DELAY.name: (
        Query(
            "share of posts published within a minute of their time",
            'sum(rate(allin_publish_delay_seconds_bucket{le="60.0"}[1h]))'
            " / (sum(rate(allin_publish_delay_seconds_count[1h])) > 0)",
        ),
    ),
    contract.ACTIVE_USERS.name: (Query("users active in the last 24 hours", 'max(allin_active_users{window="24h"})'),),
    contract.BACKGROUND_LAST_SUCCESS.name: (
        Query(
            "seconds since a job last worked anywhere",
            "time() - max by (task) (allin_background_last_success_timestamp_seconds)",
        ),
    ),
    contract.EVENT_LOOP_LAG_P95.name: (
        Query("of the worst instance, in seconds", "max(allin_nodejs_eventloop_lag_p95_seconds)"),
    ),
    contract.GC_DURATION.name: (
        Query(
            "share of time spent collecting, for each instance",
            "sum by (instance) (rate(allin_nodejs_gc_duration_seconds_sum[5m]))",
        ),
    ),
    contract.PROCESS_CPU.name: (
        Query("per cent of one core, for each instance", "100 * rate(allin_process_cpu_seconds_total[5m])"),
    ),
    contract.BUILD_INFO.name: (
        Query("which releases run, and how many instances of each", "count by (release) (allin_build_info)"),
    ),
}

_INTRODUCTION: Final = f"""\
# Metrics of the backend

<!-- Written by `make metrics-doc` from app/src/allin_backend/metrics/contract.py; change it there. -->

The backend exposes {len(contract.CONTRACT)} metrics on `/metrics`, these and no others. Instruments, this page and the
checks of rules are made from one contract, `app/src/allin_backend/metrics/contract.py`. Every label has a closed set of
values, so no request can add series without end. Histograms also have `le`; in queries it is written as on `/metrics`:
`le="0.2"`, `le="1.0"`.

*Predecessor: yes* means that the documentation of the Node.js backend has the metric, so that dashboards and alerts use
it under this name and with these labels. In Grafana write `[$__rate_interval]` where a query has `[5m]`.
"""


def render() -> str:
    """The document, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _INTRODUCTION.splitlines()
    yield ""
    for subject in contract.SUBJECTS:
        yield f"- [{subject.title}](#{_anchor(subject.title)}): {len(subject.metrics)}"
    yield f"- [{_LONG_TITLE}](#{_anchor(_LONG_TITLE)})"
    for subject in contract.SUBJECTS:
        yield from _subject(subject)
    yield from _long_sets()


def _subject(subject: Subject) -> Iterator[str]:
    yield ""
    yield f"## {subject.title}"
    yield ""
    yield subject.text
    for metric in subject.metrics:
        yield from _metric(metric)


def _metric(metric: Metric) -> Iterator[str]:
    yield ""
    yield f"### `{metric.name}`"
    yield ""
    yield metric.help
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    yield f"| Type | {metric.kind}{f', in {metric.unit}' if metric.unit else ''} |"
    for label in metric.labels:
        yield f"| Label `{label.name}` | {_values(label)} |"
    if metric.kind is Kind.HISTOGRAM:
        yield f"| Buckets | {', '.join(f'{bound:g}' for bound in metric.buckets)} |"
    yield f"| Samples | {metric.appears or _FROM_THE_START} |"
    yield f"| Predecessor | {'yes' if metric.documented else 'no'} |"
    for query in QUERIES.get(metric.name, ()):
        yield ""
        yield f"{query.answers[0].upper()}{query.answers[1:]}:"
        yield ""
        yield "```promql"
        yield query.expression
        yield "```"


_LONG_TITLE: Final = "Long sets of label values"


def _values(label: Label) -> str:
    if label.values is None:
        return _OPEN_VALUES
    if len(label.values) > _LONGEST_INLINE:
        return f"[{len(label.values)} values](#{_anchor(_LONG_TITLE)})"
    return ", ".join(f"`{value}`" for value in label.values)


def _long_sets() -> Iterator[str]:
    yield ""
    yield f"## {_LONG_TITLE}"
    yield ""
    yield "| Label | Values |"
    yield "| --- | --- |"
    labels = dict.fromkeys(label for metric in contract.CONTRACT for label in metric.labels)
    for label in labels:
        if label.values is not None and len(label.values) > _LONGEST_INLINE:
            yield f"| `{label.name}` | {', '.join(f'`{value}`' for value in label.values)} |"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


if __name__ == "__main__":
    sys.stdout.write(render())
