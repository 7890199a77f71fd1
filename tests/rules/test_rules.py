"""The rule templates: rendered by Ansible from the role's defaults, judged by promtool of three releases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from allin_backend import paths
from allin_backend.metrics.contract import CONTRACT
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.rules.promql import OWN_METRICS, Matcher, grouping_labels, job_matchers, metrics, selectors
from tests.rules.rule_files import HERE, ROLE, RUNBOOKS, SETTINGS, SUITES, RuleFiles, case_names, render, run_promtool

STORED = {name: metric for metric in CONTRACT for name in metric.sample_names}
#: The same of the other exporters: metric -> its labels.
EXPORTED: dict[str, list[str]] = yaml.safe_load((HERE / "exporters.yml").read_text())
KNOWN_METRICS = OWN_METRICS | STORED.keys() | EXPORTED.keys()
#: Fires always, so nothing about it is to be set, and no case can see it quiet.
ALWAYS = "Watchdog"
#: Labels that Prometheus gives to every series of a target.
TARGET_LABELS = {"job", "instance", "host", "team"}
#: Thresholds that say how many bad events there must be -> how many observations a quantile needs for that.
OBSERVATIONS = {
    ("slow_response_time", "minimum_slow_requests"): (20, 2),
    ("slow_median_response_time", "minimum_slow_requests"): (2,),
    ("slow_tail_response_time", "minimum_slow_requests"): (100,),
    ("slow_database_queries", "minimum_slow_queries"): (100, 2),
    ("social_api_slow", "minimum_slow_calls"): (20, 2),
}
#: cadvisor and grafana-server are not among the roles yet; where somebody runs them, their alerts hold.
UNITS = {"allin-backend", "prometheus", "alertmanager", "node_exporter", "cadvisor", "grafana"}
#: Thresholds that are a bound of a histogram, counted up to it -> the histogram.
BOUNDS = {
    ("publish_delay_high", "seconds"): "allin_publish_delay_seconds",
    ("latency_budget_burn", "seconds"): "allin_http_request_duration_seconds",
}
#: Spans in expressions that are no setting, beside the minute that carries gauges over a failed scrape.
OTHER_WINDOWS = {"BackendNoTraffic": {"1h", "1w"}, "CertificateExpiry": {"1h"}}
#: Records for people and dashboards: no alert reads them.
SHOWN = {
    "job:allin_slo_availability_budget_remaining:ratio30d",
    "job:allin_slo_latency_budget_remaining:ratio30d",
    "allin_links_info",
}
RUNBOOK_SECTIONS = ["Meaning", "Impact", "First look", "Likely causes", "Silence", "Cured when"]


def _role_file(path: str) -> Any:
    """Read a YAML file of the role."""
    return yaml.safe_load((ROLE / path).read_text())


def _threshold_defaults() -> dict[str, dict[str, Any]]:
    """The thresholds that hold when nobody sets any."""
    defaults: dict[str, dict[str, Any]] = _role_file("vars/main.yml")["__prometheus_alert_threshold_defaults"]
    return defaults


def _threshold_spec() -> dict[str, Any]:
    """The argument spec of prometheus_alert_thresholds."""
    options = _role_file("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    spec: dict[str, Any] = options["prometheus_alert_thresholds"]
    return spec


def _alert_name(key: str) -> str:
    """high_error_rate -> HighErrorRate, oauth_failures -> OAuthFailures."""
    return "".join({"oauth": "OAuth"}.get(word, word.capitalize()) for word in key.split("_"))


# --- promtool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", SUITES)
def test_promtool_accepts_the_rules(release: str, rules: RuleFiles) -> None:
    """A rule file that one of the supported releases refuses would stop it at its next start."""
    assert rules.paths, "no rule files were rendered"
    run = run_promtool(release, "check", "rules", *rules.paths)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("release", SUITES)
@pytest.mark.parametrize("case", case_names())
def test_alerts_fire_when_they_should_and_only_then(release: str, case: str, cases: Path) -> None:
    """The cases are the specification of each alert: when it fires, what it says, what leaves it quiet."""
    run = run_promtool(release, "test", "rules", cases / case)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("release", SUITES)
def test_the_documented_queries_return_what_they_claim(release: str) -> None:
    """Every query of the setup document, in its corrected form, on data that the documented form gets wrong."""
    run = run_promtool(release, "test", "rules", HERE / "queries.yml")
    assert run.returncode == 0, run.stdout + run.stderr


#: What the setup document shows: metric, and how it is asked for. Each needs a corrected form in queries.yml.
DOCUMENTED_QUERIES = {
    "allin_http_request_duration_seconds_bucket": ["histogram_quantile(0.95", 'route="/health"', "1000 *"],
    "allin_http_requests_total": ["by (status_code)", "round(sum(rate(", 'status_code=~"5.."', "100 *"],
    "allin_active_connections": ["sum("],
    "allin_cache_hits_total": ["by (cache_type)", "100"],
    "allin_db_query_duration_seconds_bucket": ["histogram_quantile(0.99", "1000 *"],
    "allin_db_queries_total": ['status="error"'],
    "allin_oauth_operations_total": ['status="success"', "by (platform)", "100"],
    "allin_social_api_duration_seconds_sum": ["sum("],
    "allin_process_cpu_seconds_total": ["* 100"],
    "allin_process_resident_memory_bytes": [""],
    "allin_process_heap_bytes": [""],
    "allin_nodejs_eventloop_lag_p95_seconds": ["max(", "1000 *"],
}
#: Name, severity and wait.
DOCUMENTED_ALERTS = {
    ("HighErrorRate", "critical", "2m"),
    ("SlowResponseTime", "warning", "5m"),
    ("HighMemoryUsage", "warning", "5m"),
    ("HighEventLoopLag", "warning", "2m"),
    ("LowCacheHitRate", "info", "10m"),
    ("SlowDatabaseQueries", "warning", "5m"),
}


def test_every_documented_query_and_alert_has_its_corrected_form(rules: RuleFiles) -> None:
    """A query or panel of the setup document without one would be copied from there, with its faults."""
    groups = yaml.safe_load((HERE / "queries.yml").read_text())["tests"]
    asked = [" ".join(test["expr"].split()) for group in groups for test in group["promql_expr_test"]]
    for metric, ways in DOCUMENTED_QUERIES.items():
        of_metric = [expression for expression in asked if metric in expression]
        for way in ways:
            assert any(way in expression for expression in of_metric), f"{metric}: {way}"
    alerts = {(rule["alert"], rule["labels"]["severity"], rule.get("for")) for rule in rules.alerts()}
    assert alerts >= DOCUMENTED_ALERTS


def test_every_alert_has_a_case_that_fires_and_one_that_stays_quiet(rules: RuleFiles) -> None:
    """An alert nobody has seen fire, severity by severity, may be unable to; one never seen quiet may be noise."""
    fired: set[tuple[str, str]] = set()
    quiet_groups: set[str] = set()
    for name in case_names():
        for group in yaml.safe_load((HERE / "cases" / name).read_text())["tests"]:
            expected: dict[str, bool] = {}
            for test in group.get("alert_rule_test", []):
                alerts = test.get("exp_alerts", [])
                expected[test["alertname"]] = expected.get(test["alertname"], False) or bool(alerts)
                for alert in alerts:
                    assert alert.get("exp_annotations"), f"{name}: {group['name']}: exp_annotations is missing"
                    fired.add((test["alertname"], alert["exp_labels"]["severity"]))
            # Quiet at every time that the case looks at, not merely before it fires.
            quiet_groups |= {alert for alert, fires in expected.items() if not fires}
    alerts_of_rules = {(rule["alert"], rule["labels"]["severity"]) for rule in rules.alerts()}
    assert fired == alerts_of_rules
    assert {alert for alert, _ in alerts_of_rules} - {ALWAYS} <= quiet_groups


def test_the_performance_targets_have_their_alerts(rules: RuleFiles) -> None:
    """Each line of the documented table of targets is an alert with that threshold, and its text names the target."""
    for line in yaml.safe_load((HERE / "targets.yml").read_text()):
        condition = f"{line['record']} {line['condition']}"
        found = [rule for rule in rules.alerts() if re.search(rf"^{re.escape(condition)}$", rule["expr"], re.MULTILINE)]
        assert [(rule["alert"], rule["labels"]["severity"]) for rule in found] == [tuple(line["alert"])], line["metric"]
        (rule,) = found
        assert f"(target: {line['target_in_words']})" in rule["annotations"]["description"], line["metric"]


# --- labels, annotations, runbooks ------------------------------------------------------------------------------------


def test_every_alert_tells_people_what_they_need(rules: RuleFiles) -> None:
    """An alert without severity is routed nowhere, one without a runbook leaves its reader alone."""
    for rule in rules.alerts():
        name = rule["alert"]
        assert rule["labels"]["severity"] in ({"none"} if name == ALWAYS else {"critical", "warning", "info"}), name
        assert rule["labels"]["component"], name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["description"].endswith("."), name
        assert rule["annotations"]["runbook_url"] == f"{SETTINGS['prometheus_runbook_url_base']}/{name}.md", name
        assert "dashboard_url" not in rule["annotations"], name
        assert name == ALWAYS or re.fullmatch(r"\d+(ms|s|m|h)", rule["for"]), name
        # $value has up to 17 digits, and differs between releases; people are shown rounded values.
        for text in rule["annotations"].values():
            assert not re.search(r'(?<!printf "%.[01]f" )\$value\s*}}', text), name


def test_runbooks_and_alerts_belong_together(rules: RuleFiles) -> None:
    """A link to a page that does not exist, or a page about an alert that does not."""
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages == {rule["alert"] for rule in rules.alerts()}


def runbook_queries(text: str) -> list[str]:
    """The queries of a page as Prometheus gets them: in double quotes the shell fills in the backend's job."""
    found = re.findall(r"""--data-urlencode (?:'query=([^']+)'|"query=([^"]+)")""", text)
    job = SETTINGS.get("prometheus_backend_job", "backend-api-dev")
    return [single or double.replace("${BACKEND_JOB:?}", job).replace("'", '"') for single, double in found]


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_runbook_is_complete_and_names_what_exists(page: Path, rules: RuleFiles) -> None:
    """A runbook whose commands query something that does not exist answers "no data", which reads like "no problem"."""
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == RUNBOOK_SECTIONS
    first_look = text.split("## First look")[1].split("\n## ")[0]
    assert first_look.strip().startswith("On "), "it does not say on which host"
    assert all(section.strip() for section in re.split(r"^## .+$", text, flags=re.MULTILINE))
    assert len(re.findall(r"^```sh$", first_look, re.MULTILINE)) == 3
    assert f"silence add alertname={page.stem}" in text
    known = KNOWN_METRICS | {rule["record"] for rule in rules.rules() if "record" in rule} | {"ALERTS"}
    queries = runbook_queries(text)
    assert len(queries) == text.count("--data-urlencode")
    assert queries, "no query"
    for query in queries:
        assert metrics(query) <= known, query
        _check_labels(query)
    # A worker is a unit of its own: allin-backend@1.service.
    assert set(re.findall(r"(?<![\w@-])([\w-]+)(?:@\d+)?\.service\b", text)) <= UNITS


# --- names ------------------------------------------------------------------------------------------------------------


def _labels(name: str) -> dict[str, tuple[str, ...] | None]:
    """The labels of a stored series and their closed sets; None where any value may come."""
    if name in EXPORTED:
        return dict.fromkeys(TARGET_LABELS.union(EXPORTED[name]))
    metric = STORED[name]
    labels: dict[str, tuple[str, ...] | None] = {label.name: label.values for label in metric.labels}
    if name.endswith("_bucket"):
        labels["le"] = (*(str(float(bound)) for bound in metric.buckets), "+Inf")
    return labels | dict.fromkeys(TARGET_LABELS)


def _check_labels(expression: str) -> None:
    """Fail if an expression names a label, or a label's value, that no series of the contract has."""
    allowed = TARGET_LABELS.union(*(_labels(name) for name in STORED.keys() | EXPORTED.keys()))
    assert grouping_labels(expression) <= allowed, expression
    for name, matchers in selectors(expression):
        for matcher in matchers:
            if name in STORED or name in EXPORTED:
                _check_matcher(name, matcher)
            else:
                # Records and Prometheus's own metrics: only the label's name is known here.
                assert matcher.label in allowed | {"__name__", "alertname"}, expression


def _check_matcher(name: str, matcher: Matcher) -> None:
    labels = _labels(name)
    assert matcher.label in labels, f"{name} has no label {matcher.label}"
    values = labels[matcher.label]
    for alternative in matcher.alternatives():
        # A probe's path that is not measured at all may be left out by a rule all the same.
        excused = alternative.operator.startswith("!") and alternative.value == paths.METRICS
        assert values is None or excused or alternative.selects_any_of(values), f"{name}: nothing fits {alternative}"


def test_metrics_are_told_from_labels_functions_and_strings() -> None:
    """The checks of names below see what this finds, and nothing else."""
    expression = """
      histogram_quantile(0.9, sum by (job, le) (rate(a_bucket{route!~"x|y", job="and b{c"}[5m:15s] offset 1h)))
      / on (job) group_left (version) (job:b:rate5m > bool 2e3)
      and count(c) or vector(0) unless max without (le) (last_over_time(d[1m]))
    """
    assert metrics(expression) == {"a_bucket", "job:b:rate5m", "c", "d"}
    assert job_matchers('a{x="1", job=~"b"} / on (job) c{job!="d"}') == [("=~", '"b"'), ("!=", '"d"')]


def test_labels_and_values_are_found_in_selectors() -> None:
    """The checks of labels below see what these find, and nothing else."""
    expression = """
      sum by (job, le) (rate(a_bucket{route!~"x|y}", job="and b{c"}[5m])) / on (job) group_left (version) b{c="\\"d"}
    """
    assert dict(selectors(expression)) == {
        "a_bucket": [Matcher("route", "!~", "x|y}"), Matcher("job", "=", "and b{c")],
        "b": [Matcher("c", "=", '"d')],
    }
    assert grouping_labels(expression) == {"job", "le", "version"}
    assert [matcher.value for matcher in Matcher("route", "!~", "x|y").alternatives()] == ["x", "y"]
    assert Matcher("status_code", "=~", "5..").selects_any_of(["200", "500"])
    assert not Matcher("status_code", "=", "5..").selects_any_of(["200", "500"])


def test_rules_name_only_labels_and_values_of_the_contract(rules: RuleFiles) -> None:
    """A misspelt label or a value that never comes selects nothing, without an error, and its alert never fires."""
    for rule in rules.rules():
        _check_labels(rule["expr"])


@pytest.mark.parametrize(
    "expression",
    [
        'allin_http_requests_total{status="500"}',
        'allin_http_requests_total{status_code=~"6.."}',
        'allin_http_requests_total{route=~"/health|/healthz"}',
        'allin_http_request_duration_seconds_bucket{le="0.4"}',
        'allin_http_request_duration_seconds_count{le="0.2"}',
        "sum by (status) (up) / on (http_code) up",
        'job:allin_http_requests:rate5m{http_code="500"}',
    ],
)
def test_misspelt_labels_and_values_are_seen(expression: str) -> None:
    """The check above would be worth nothing if it let these through."""
    with pytest.raises(AssertionError):
        _check_labels(expression)


@pytest.mark.parametrize(
    "file", [HERE / "queries.yml", *sorted((HERE / "cases").glob("*.yml"))], ids=lambda file: file.stem
)
def test_cases_are_made_of_series_that_exist(file: Path, rules: RuleFiles) -> None:
    """A case with a metric or label that the backend has not proves nothing. Values are the case's own affair."""
    records = {rule.get("record") for rule in rules.rules()}
    for group in yaml.safe_load(file.read_text())["tests"]:
        for line in group.get("input_series", []):
            (name,) = metrics(line["series"])
            labels = {matcher.label for _, matchers in selectors(line["series"]) for matcher in matchers}
            # Records may be given, to test an alert alone; what is no record of ours would not reach any rule.
            if name not in OWN_METRICS and name not in records:
                assert labels <= _labels(name).keys(), line["series"]


@pytest.mark.parametrize("settings", ["rules", "other_rules"])
def test_rules_name_only_metrics_and_records_that_exist(settings: str, request: pytest.FixtureRequest) -> None:
    """A misspelt name selects nothing, without an error, and its alert never fires."""
    rules: RuleFiles = request.getfixturevalue(settings)
    records: set[str] = set()
    recorded: set[tuple[Any, ...]] = set()
    for rule in rules.rules():
        named = metrics(rule["expr"])
        assert named or rule["expr"] == "vector(1)", f"no metric found in: {rule['expr']}"
        # A record must stand before its users: rules of a group are evaluated in order.
        unknown = named - KNOWN_METRICS - records
        assert not unknown, rule.get("record") or rule["alert"]
        if "record" in rule:
            one = (rule["record"], *sorted(rule.get("labels", {}).items()))
            assert one not in recorded, f"{one} is recorded twice"
            recorded.add(one)
            records.add(rule["record"])


def test_no_rule_fails_while_a_target_changes_its_labels(rules: RuleFiles) -> None:
    """Then a target has two series of everything for a moment, and a one-to-one match on some labels is an error."""
    one_to_one = re.compile(r"(?:[-+*/%^]|[<>]=?|[=!]=) (?:bool )?on \([^)]*\)(?! group_)")
    for rule in rules.rules():
        assert not one_to_one.search(rule["expr"]), rule["expr"]


def test_every_record_is_used(rules: RuleFiles) -> None:
    """Records cost an evaluation each; so far alerts are their only readers, directly or through other records."""
    used = set[str]().union(*(metrics(rule["expr"]) for rule in rules.rules()))
    unused = {rule["record"] for rule in rules.rules() if "record" in rule} - used
    assert unused == SHOWN


def test_every_job_in_the_rules_is_the_configured_one(rules: RuleFiles) -> None:
    """A rule for a job of another name watches nothing."""
    matchers = {matcher for rule in rules.rules() for matcher in job_matchers(rule["expr"])}
    jobs = ('"backend-api-dev"', '"alertmanager"', '"grafana"')
    assert matchers == {(operator, job) for operator in ("=", "!=") for job in jobs}


def test_the_role_installs_every_template() -> None:
    """A template that the role does not list would be tested here and never reach a server."""
    templates = {path.name.removesuffix(".j2") for path in (ROLE / "templates" / "rules").glob("*.rules.yml.j2")}
    assert sorted(templates) == _role_file("vars/main.yml")["__prometheus_rule_templates"]


def test_group_names_are_unique(rules: RuleFiles) -> None:
    """The cases order groups by name alone."""
    names = [group["name"] for group in rules.groups()]
    assert len(names) == len(set(names))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_thresholds() -> dict[str, dict[str, Any]]:
    """Every threshold with a value of its own that occurs nowhere else."""
    serial = iter(range(31, 2000, 2))

    def other(value: object) -> object:
        number = next(serial)
        return f"{number}m" if isinstance(value, str) else number if isinstance(value, int) else number + 0.5

    return {
        alert: {
            key: f"{next(serial)}m"
            if isinstance(value, str)
            else next(serial)
            if isinstance(value, int)
            else next(serial) + 0.5
            for key, value in options.items()
        }
        for alert, options in _threshold_defaults().items()
    }


@pytest.fixture(scope="module")
def other_rules(tmp_path_factory: pytest.TempPathFactory, other_thresholds: dict[str, dict[str, Any]]) -> RuleFiles:
    """The rules with every setting changed."""
    return render(
        tmp_path_factory.mktemp("rules") / "other",
        prometheus_alert_thresholds=other_thresholds,
        prometheus_backend_job='back"end\\api é',
        prometheus_alertmanager_job='alert"manager',
        prometheus_grafana_job="gra|fana",
        prometheus_inventory_targets=[{"job": 'back"end\\api é', "targets": ["[2001:db8::1]:7000", "a:1", "a:1"]}],
        prometheus_expected_containers=['a"b'],
        prometheus_evaluation_interval="7s",
        prometheus_runbook_url_base="https://wiki.example.com/a b",
        prometheus_dashboard_url_base="https://grafana.example.com/monitoring",
        prometheus_external_url="https://prometheus.example.com/a b/",
    )


def _made_of(expressions: list[str], rules: RuleFiles) -> list[str]:
    """The expressions and those of all records that they are made of."""
    found = set(expressions)
    unseen = [*expressions]
    while unseen:
        named = metrics(unseen.pop())
        more = {rule["expr"] for rule in rules.rules() if rule.get("record") in named} - found
        found |= more
        unseen.extend(more)
    return [*found]


def test_every_threshold_reaches_its_alert(other_rules: RuleFiles, other_thresholds: dict[str, dict[str, Any]]) -> None:
    """A threshold that a template ignores is a setting that does nothing."""
    assert {_alert_name(key) for key in other_thresholds} == {rule["alert"] for rule in other_rules.alerts()} - {ALWAYS}
    for key, options in other_thresholds.items():
        rules_of_key = [rule for rule in other_rules.alerts() if rule["alert"] == _alert_name(key)]
        expressions = "\n".join(rule["expr"] for rule in rules_of_key)
        for option, value in options.items():
            if option == "for":
                assert {rule["for"] for rule in rules_of_key} == {value}, key
            elif re.fullmatch(r"(\w+_)?for(_\w+)?", option):
                assert [rule["for"] for rule in rules_of_key].count(value) == 1, f"{key}.{option}"
            elif option.split("_")[-1] == "window":
                looked_back = _made_of([rule["expr"] for rule in rules_of_key], other_rules)
                assert any(re.search(rf"(\[|offset ){value}\b", one) for one in looked_back), f"{key}.{option}"
            elif (key, option) in BOUNDS:
                everything = "\n".join(rule["expr"] for rule in other_rules.rules())
                assert f'{BOUNDS[key, option]}_bucket{{le="{value}"' in everything, f"{key}.{option}"
            elif option == "objective":
                assert f" (1 - {value})" in expressions, f"{key}.{option}"
            elif (key, option) in OBSERVATIONS:
                for factor in OBSERVATIONS[key, option]:
                    assert re.search(rf">= {value * factor}(\s|$)", expressions), f"{key}.{option}"
            else:
                assert re.search(rf"[<>]=? {re.escape(str(value))}(\s|$)", expressions), f"{key}.{option}"


def test_alerts_look_back_over_their_own_window_alone(
    other_rules: RuleFiles, other_thresholds: dict[str, dict[str, Any]]
) -> None:
    """Two windows in one condition, or a text with another one, and nobody knows what an alert says."""
    texts = 0
    for key, options in other_thresholds.items():
        windows = {value for option, value in options.items() if option.split("_")[-1] == "window"}
        for rule in other_rules.alerts():
            if rule["alert"] == _alert_name(key):
                told = set(re.findall(r"(?:rate|delta|\[|offset )(\d+[mhdw])", rule["expr"])) - {"1m"}
                # Objectives are made of records of 5 minutes; HighRouteErrorRate asks what HighErrorRate says.
                others = {"5m"} if "slo" in rule["labels"] else OTHER_WINDOWS.get(rule["alert"], set())
                if rule["alert"] == "HighRouteErrorRate":
                    others = {other_thresholds["high_error_rate"]["window"]}
                assert told <= windows | others, rule["expr"]
                for minutes, factor in re.findall(r"rate(\d+)m \* (\d+)\)", rule["expr"]):
                    assert int(factor) == int(minutes) * 60, rule["expr"]
                for minutes in re.findall(r"the last (\S+ \w+)", rule["annotations"]["description"]):
                    assert f"{minutes.split()[0]}m" in windows, rule["annotations"]["description"]
                    texts += 1
    assert texts >= 30


def test_records_for_dashboards_stay_whatever_the_windows(rules: RuleFiles, other_rules: RuleFiles) -> None:
    """Dashboards and runbooks name records with their window; an alert's other window must not take them away."""
    before, after = ({rule["record"] for rule in files.rules() if "record" in rule} for files in (rules, other_rules))
    assert before < after


def test_summaries_name_the_threshold_in_force(other_rules: RuleFiles) -> None:
    """A summary with the default's number would lie as soon as somebody changes the threshold."""
    found = 0
    bounds = {float(bound) for rule in other_rules.rules() for bound in re.findall(r'le="([\d.]+)"', rule["expr"])}
    for rule in other_rules.alerts():
        limits = bounds | {float(limit) for limit in re.findall(r" [<>]=? ([\d.]+)", rule["expr"])}
        for number in re.findall(r"{{ ([\d.]+) \|", rule["annotations"]["summary"]):
            assert float(number) in limits, rule["alert"]
            found += 1
    assert found >= 32


@pytest.mark.parametrize("release", SUITES)
def test_promtool_accepts_the_rules_with_other_settings(release: str, other_rules: RuleFiles) -> None:
    """A job with a quote or a backslash in its name must neither break the files nor end the string early."""
    run = run_promtool(release, "check", "rules", *other_rules.paths)
    assert run.returncode == 0, run.stdout + run.stderr
    jobs = {json.loads(value) for rule in other_rules.rules() for _, value in job_matchers(rule["expr"])}
    assert jobs == {'back"end\\api é', 'alert"manager', "gra|fana"}


def test_other_settings_reach_every_rule(other_rules: RuleFiles) -> None:
    """Group interval and links are settings too."""
    intervals = {group["name"]: group["interval"] for group in other_rules.groups()}
    # Thirty days change little in five minutes.
    assert intervals.pop("slo-budget-records") == "5m"
    assert set(intervals.values()) == {"7s"}
    for rule in other_rules.alerts():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/a b/{rule['alert']}.md"
        assert rule["annotations"]["dashboard_url"].startswith("https://grafana.example.com/monitoring/d/allin-")
    (addresses,) = [rule["labels"] for rule in other_rules.rules() if rule.get("record") == "allin_links_info"]
    assert addresses == {"prometheus": "https://prometheus.example.com/a b", "runbooks": "https://wiki.example.com/a b"}


def test_without_addresses_the_dashboards_still_have_something_to_link_to(rules: RuleFiles, tmp_path: Path) -> None:
    """A link to an address that nobody set would lead to a page that does not exist."""
    bare = render(tmp_path / "bare", prometheus_runbook_url_base="docs/runbooks")
    (addresses,) = [rule["labels"] for rule in bare.rules() if rule.get("record") == "allin_links_info"]
    assert addresses == {
        "prometheus": "http://127.0.0.1:9090",
        "runbooks": "/d/allin-alerts/alerts?var-runbook=docs/runbooks",
    }


def test_one_threshold_is_changed_without_the_others(rules: RuleFiles, tmp_path: Path) -> None:
    """An override of one number must not take the other numbers' defaults away."""
    changed = render(tmp_path / "changed", prometheus_alert_thresholds={"high_error_rate": {"ratio": 0.25}})
    for before, after in zip(rules.rules(), changed.rules(), strict=True):
        # HighRouteErrorRate is quiet where HighErrorRate speaks.
        if before.get("alert") not in ("HighErrorRate", "HighRouteErrorRate"):
            assert after == before
            continue
        assert before["expr"].replace("ratio_rate5m > 0.05", "ratio_rate5m > 0.25") == after["expr"] != before["expr"]
        if before["alert"] == "HighRouteErrorRate":
            continue
        assert "{{ 0.25 | humanizePercentage }}" in after["annotations"]["summary"]
        assert {key: after[key] for key in ("for", "labels")} == {key: before[key] for key in ("for", "labels")}


def _unit(key: str) -> str:
    """How the description of a threshold begins: with its unit, unless it is a plain number."""
    words = key.split("_")
    if "minimum" in words:
        return ""
    units = {"for": "Duration.", "window": "Duration.", "burn": "Times", "objective": "Share", "ratio": "Share"}
    return units.get(words[-1], words[-1].capitalize())


def test_thresholds_are_documented_with_the_defaults_in_force() -> None:
    """The argument spec is the thresholds' documentation; a default written there must be the one that holds."""
    spec = _threshold_spec()
    assert spec["type"] == "dict"
    assert spec["default"] == _role_file("defaults/main.yml")["prometheus_alert_thresholds"] == {}
    documented = {
        alert: {key: option["default"] for key, option in entry["options"].items()}
        for alert, entry in spec["options"].items()
    }
    assert documented == _threshold_defaults()
    for alert, entry in spec["options"].items():
        assert entry["description"].startswith(_alert_name(alert)), alert
        for key, option in entry["options"].items():
            assert option["description"].startswith(_unit(key)), f"{alert}.{key}"
            assert option["type"] == {int: "int", float: "float", str: "str"}[type(option["default"])], f"{alert}.{key}"


def test_bounds_can_only_be_those_of_the_histogram() -> None:
    """A bound that the histogram does not have selects no bucket: the alert would never fire."""
    for (key, option), histogram in BOUNDS.items():
        allowed = _threshold_spec()["options"][key]["options"][option]["choices"]
        assert allowed == list(STORED[f"{histogram}_bucket"].buckets)


@pytest.mark.parametrize("interval", ["15s", "1m", "1m30s", "500ms"])
def test_events_of_an_objective_are_counted_with_the_interval_of_the_records(interval: str, tmp_path: Path) -> None:
    """A sum of rates is a number of events only with the right interval between two of them."""
    changed = render(tmp_path / "changed", prometheus_evaluation_interval=interval)
    seconds = {"15s": "15", "1m": "60", "1m30s": "90", "500ms": "0.5"}[interval]
    burns = [rule for rule in changed.alerts() if "slo" in rule["labels"]]
    assert len(burns) == 8
    for rule in burns:
        assert re.search(rf"\]\) \* {re.escape(seconds)} >= 5$", rule["expr"]), rule["expr"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ({"high_error_rat": {"ratio": 0.1}}, "high_error_rat"),
        ({"high_error_rate": {"ration": 0.1}}, "ration"),
        ({"high_error_rate": {"ratio": "5%"}}, "ratio"),
    ],
)
def test_a_misspelt_threshold_is_refused(override: dict[str, Any], complaint: str) -> None:
    """A misspelt key would otherwise be merged in and ignored, and the alert keep its old threshold."""
    validator = ArgumentSpecValidator({"prometheus_alert_thresholds": _threshold_spec()})
    assert validator.validate({"prometheus_alert_thresholds": _threshold_defaults()}).error_messages == []
    messages = validator.validate({"prometheus_alert_thresholds": override}).error_messages
    assert len(messages) == 1
    assert complaint in messages[0]
