"""The formats of `check_settings`: what each takes, what it refuses, and in which words."""

from __future__ import annotations

import pytest
import yaml

from plugins.action import check_settings as plugin

GOOD: dict[str, list[object]] = {
    "port": [1, 9090, 65535, "9090"],
    "duration": ["30d", "1h30m", "1y2w3d4h5m6s7ms", "15s", "1ms", "292y"],
    "scrape_interval": ["1ms", "15s", "1m30s", "2m"],
    "duration_or_zero": ["0", 0, "0s", "0d", "30s"],
    "size": ["10GB", "512MB", "1B", "7EB", "1KB", "3TB", "2PB"],
    "size_or_zero": ["0", 0, "0B", "10GB"],
    "listen_address": ["0.0.0.0", "10.0.0.1", "::", "fe80::1%eth0", "localhost", "mon-1.corp.net", "a_b"],  # noqa: S104
    "host_port": ["mail.corp.net:587", "10.0.0.1:9094", "[::1]:9094", "localhost:1"],
    "url": ["http://a", "https://mon.corp.net:9090/prometheus/", "http://[::1]:9090", "https://u:p@h.net/x?y=z"],
    "url_or_empty": ["", "http://a"],
    "reachable": ["", None, 7, "https://mon.corp.net", "10.0.0.1", "sqlite+aiosqlite:////var/lib/a.db", "sample.com"],
    "url_base": ["docs/runbooks", "runbooks/", "a_b-c/d.e", "https://git.corp.net/a/b", "http://[::1]:1/"],
    "absolute_path": ["/", "/var/lib/prometheus", "/srv/a b", "/a..b"],
    "email": ["on-call@corp.net", "root@localhost", "a+b@x.co"],
    "email_list": [[], ["a@b.c"], "a@b.c", "a@b.c, d@e.f", ["a@b.c", "d@e.f"]],
    "slack_channel": ["#alerts", "#on-call_2", "#überwachung", "@ops.lead", "C0123456789", "U01ABCDEFG"],
    "label_name": ["region", "_a", "A9_b"],
    "label_map": [{}, {"region": "eu", "_zone": ""}],
    "version": ["1.2", "3.14.0", "0.60.5", "1.2.3.4"],
    "sha256": ["a" * 64, "0123456789abcdefABCDEF" + "0" * 42],
    "time_of_day": ["00:00", "08:00", "23:59"],
    "time_zone": ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Local", ""],
    "flag": [True, False, 0, 1, "true", "yes"],
    "not_empty": ["production", " a", 7, 0],
    "not_empty_list": [["a"], [None], {"a": None}],
    "ratio": [0, 1, 0.5, "0.999"],
    "share": [0.5, "0.999", 1e-9],
    "share_or_all": [1, 0.5, "0.999", 1e-9],
    "zero_or_more": [0, 1, 0.1, "3", 1e9],
    "positive": [1, 0.1, "3", 1e9],
    "unix_mode": ["0640", "640", "2755"],
    "system_user": ["prometheus", "_apt", "node-exporter", "a$", "x" * 31],
    "password": ["correct-horse-battery", "twelve chars"],
    "secret": ["x", "pass word", "üñí"],
    "fernet_key": ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "_-" + "A" * 41 + "="],
    "cache_url": ["memory:", "redis://cache.corp.net:6379/0", "rediss://10.0.0.1", "redis://u@[::1]:6379/12"],
    "grafana_uid": ["payments", 7, "allin-platform", "A_1", "-x", "x" * 40],
    "name_of_file": ["deploy", "ci-2_a", "7", 7],
    "not_placeholder": [
        "https://hooks.slack.com/services/TQ1W2E3R4/B0ABCDEF1/k3yK3yk3y",
        "correct horse battery",
        "monitoring@allin.io",
        "10.0.0.1",
        "192.0.20.1",
        "maxxx0",
        "T0100000A",
        "exchange",
        "changemenot" + "s",
        "yours truly",
        "#on-call",
        "fe80::1",
        "sample-rate-team@corp.net",
        "myexample.common.net",
        0,
        7,
    ],
    "not_placeholder_list": [["a@corp.net"], {"critical": "#on-call"}, "a@corp.net"],
}
DURATION_WORDS = "is not a duration"
BAD: dict[str, list[tuple[object, str]]] = {
    "port": [
        (0, "out of range"),
        (65536, "out of range"),
        (-1, "out of range"),
        ("70000", "out of range"),
        (True, "is not a port"),
        ("http", "is not a port"),
        ("", "is not a port"),
        ("9090 ", "is not a port"),
        (9090.5, "is not a port"),
        ([], "is not a port"),
        ("٩٠٩٠", "is not a port"),
    ],
    "secret": [
        ("", "is not a text of one line"),
        (" ", "is not a text of one line"),
        ("a\nb", "is not a text of one line"),
        (5, "is not a text of one line"),
        ("changeme", "is a placeholder"),
    ],
    "password": [
        ("", "is not a text of one line"),
        ("admin", "is too short"),
        ("eleven char", "is too short"),
        ("changeme-please", "is a placeholder"),
    ],
    "fernet_key": [
        ("", "is not a key of Fernet"),
        ("A" * 43, "is not a key of Fernet"),
        ("A" * 44, "is not a key of Fernet"),
        ("+/" + "A" * 41 + "=", "is not a key of Fernet"),
        (44, "is not a key of Fernet"),
    ],
    "cache_url": [
        ("", "is not a cache"),
        ("memory", "is not a cache"),
        ("localhost:6379", "is not a cache"),
        ("http://cache.corp.net", "is not a cache"),
        ("redis://", "is not a cache"),
        ("redis://cache.corp.net:0", "is not a cache"),
        ("redis://cache.corp.net/cache", "is not a cache"),
        (6379, "is not a cache"),
    ],
    "duration": [
        ("0", "is zero"),
        ("0s", "is zero"),
        ("0h0m", "is zero"),
        (0, "is zero"),
        ("", DURATION_WORDS),
        ("15 days", DURATION_WORDS),
        ("30", DURATION_WORDS),
        (30, DURATION_WORDS),
        ("1.5h", DURATION_WORDS),
        ("30m1h", DURATION_WORDS),
        ("1d1d", DURATION_WORDS),
        ("-1d", DURATION_WORDS),
        ("1D", DURATION_WORDS),
        ("1d\n", DURATION_WORDS),
        (None, DURATION_WORDS),
        (False, DURATION_WORDS),
        ("293y", "too long"),
    ],
    "duration_or_zero": [("", DURATION_WORDS), ("zero", DURATION_WORDS), (False, DURATION_WORDS), ("300y", "too long")],
    "size": [
        ("0", "is not a size"),
        ("0GB", "is zero"),
        ("10", "is not a size"),
        (10, "is not a size"),
        ("10 GB", "is not a size"),
        ("10gb", "is not a size"),
        ("10G", "is not a size"),
        ("10GiB", "is not a size"),
        ("1.5GB", "is not a size"),
        ("8EB", "too large"),
        ("9000000PB", "too large"),
    ],
    "size_or_zero": [("10", "is not a size"), ("", "is not a size"), (False, "is not a size"), ("0X", "is not a size")],
    "listen_address": [
        ("127.0.0.1:9090", "not an address"),
        ("[::1]", "not an address"),
        ("localhost:1", "not an address"),
        ("", "not an address"),
        ("300.1.1.1", "not an address"),
        ("1.2.3", "not an address"),
        ("a b", "not an address"),
        ("-a", "not an address"),
        ("a..b", "not an address"),
        ("*", "not an address"),
        (0, "not an address"),
    ],
    "host_port": [
        ("mail.corp.net", "not a host and a port"),
        (":587", "not a host and a port"),
        ("::1:587", "not a host and a port"),
        ("[1.2.3.4]:5", "not a host and a port"),
        ("h:", "not a host and a port"),
        ("h:smtp", "not a host and a port"),
        ("http://h:1", "not a host and a port"),
        ("h:0", "port out of range"),
        ("h:65536", "port out of range"),
        (587, "not a host and a port"),
    ],
    "url": [
        ("", "not a web address"),
        ("mon.corp.net", "not a web address"),
        ("ftp://a", "not a web address"),
        ("http://", "not a web address"),
        ("http:///x", "not a web address"),
        ("http://a:99999", "not a web address"),
        ("http://a:0", "not a web address"),
        ("http://a b", "not a web address"),
        ("http://a\n", "not a web address"),
        ("http://[::1", "not a web address"),
        ("http://300.0.0.1", "not a web address"),
        (1, "not a web address"),
    ],
    "url_or_empty": [(" ", "is not a web address"), ("a.net", "is not a web address"), (None, "is not a web address")],
    "reachable": [
        ("https://grafana.example.com", "documentation only"),
        ("postgresql+asyncpg://allin@db.example.com/allin", "documentation only"),
        ("redis://cache.example.org:6379/0", "documentation only"),
        ("192.0.2.5", "documentation only"),
    ],
    "url_base": [
        *(
            (base, "is neither a web address")
            for base in (
                "",
                "/docs",
                "git.corp.net/a",
                "./docs",
                "git:80/a",
                "//a/b",
                "ftp://a",
                "docs/run books",
                "a\n",
                1,
            )
        )
    ],
    "absolute_path": [
        ("", "not an absolute path"),
        ("var/lib", "not an absolute path"),
        ("~/x", "not an absolute path"),
        ("/var/../etc", "not an absolute path"),
        ("/a\n", "not an absolute path"),
        (5, "not an absolute path"),
    ],
    "email": [
        ("", "not a mail address"),
        ("a", "not a mail address"),
        ("@b.c", "not a mail address"),
        ("a@", "not a mail address"),
        ("a@b@c.d", "not a mail address"),
        ("a b@c.d", "not a mail address"),
        ("A <a@b.c>", "not a mail address"),
        ("a@b.c,d@e.f", "not a mail address"),
        (["a@b.c"], "not a mail address"),
    ],
    "email_list": [
        ("", "not a list"),
        ("a@b.c,", "not a list"),
        (["a@b.c", "x"], "not a list"),
        ({"a@b.c": 1}, "not a"),
    ],
    "slack_channel": [
        ("alerts", "not a Slack channel"),
        ("#", "not a Slack channel"),
        ("#Alerts", "not a Slack channel"),
        ("#a b", "not a Slack channel"),
        ("##a", "not a Slack channel"),
        ("C123", "not a Slack channel"),
        (None, "not a Slack channel"),
    ],
    "label_name": [
        ("9a", "not a label name"),
        ("a-b", "not a label name"),
        ("", "not a label name"),
        ("ä", "not a label name"),
        ("a\n", "not a label name"),
        ("__address__", "keeps for itself"),
    ],
    "label_map": [
        ([], "not a mapping"),
        ({"a-b": "x"}, "whose name is not a label name"),
        ({1: "x"}, "whose name is not a label name"),
        ({"__a": "x"}, "keeps for itself"),
        ({"a": 1}, "label a that is no text"),
        ({"a": None}, "label a that is no text"),
    ],
    "time_of_day": [
        ("8:00", "not a time of day"),
        ("24:00", "not a time of day"),
        ("12:60", "not a time of day"),
        ("noon", "not a time of day"),
        (1080, "quotes"),
    ],
    "version": [
        (3.1, "put the version in quotes"),
        ("v3.1.0", "not a version"),
        ("3", "not a version"),
        (3, "not a version"),
        ("latest", "not a version"),
        ("3.1-rc1", "not a version"),
        ("3..1", "not a version"),
        ("3.1\n", "not a version"),
    ],
    "sha256": [
        ("a" * 63, "not a SHA-256"),
        ("g" * 64, "not a SHA-256"),
        ("sha256:" + "a" * 57, "not a"),
        ("", "not a"),
    ],
    "time_zone": [
        *(
            (zone, "is not a time zone (region/city, or UTC)")
            for zone in (
                " ",
                "Europe/Berln",
                "europe/berlin",
                "CEST",
                "Europe",
                "../UTC",
                "/UTC",
                "UTC+2",
                "a\0",
                1,
                None,
            )
        )
    ],
    "flag": [(text, "is a text, which may count as true") for text in ("false", "No", "OFF", "0", " f")],
    "not_empty": [
        ("", "is empty"),
        (" \t", "is empty"),
        (None, "is empty"),
        ([], "is empty"),
        *((value, "put it in quotes") for value in (1.5, True, False)),
    ],
    "not_empty_list": [([], "no entry"), ({}, "no entry"), ("", "no entry"), ("a", "no entry"), (None, "no entry")],
    "ratio": [
        (-0.1, "out of range"),
        (1.01, "out of range"),
        ("99%", "not a number"),
        (True, "not a number"),
        ("nan", "not a"),
    ],
    "positive": [
        (0, "above 0"),
        (-1, "above 0"),
        ("x", "above 0"),
        (True, "above 0"),
        ("inf", "above 0"),
        ([], "above 0"),
    ],
    "scrape_interval": [("15", DURATION_WORDS), ("0s", "is zero"), ("2m1s", "at most 2m"), ("1h", "at most 2m")],
    "share": [(value, "between 0 and 1") for value in (0, 1, 5, -0.1, "5%", "many", True, "nan", None)],
    "share_or_all": [(value, "at most 1") for value in (0, 1.1, 95, -0.1, "5%", True, "nan", None)],
    "zero_or_more": [(value, "0 or more") for value in (-1, -0.1, "many", True, "inf", None)],
    "unix_mode": [
        (416, "put it in quotes"),
        ("0840", "not a file mode"),
        ("64", "not a file mode"),
        ("u=rw", "not a file"),
    ],
    "system_user": [
        ("Prometheus", "not the name of an account"),
        ("1st", "not the name of an account"),
        ("a b", "not the name of an account"),
        ("x" * 33, "not the name of an account"),
        ("", "not the name of an account"),
        (0, "not the name of an account"),
    ],
    "grafana_uid": [
        *((value, "is not a uid of Grafana's") for value in ("", "a b", "a.b", "a/b", "ä", "x" * 41, True, None)),
        ("general", "Grafana's own"),
        ("sharedwithme", "Grafana's own"),
    ],
    "name_of_file": [
        (value, "is not a name for a file") for value in ("", "a.b", "../a", "a b", "-a", "_a", "ä", "a\n", True, None)
    ],
    "not_placeholder": [
        ("", "required, and not set"),
        ("  ", "required, and not set"),
        (None, "required, and not set"),
        ([], "required, and not set"),
        ("changeme", "is a placeholder"),
        ("CHANGEME", "is a placeholder"),
        ("change-me!", "is a placeholder"),
        ("please_change_this", "is a placeholder"),
        ("replace with your token", "is a placeholder"),
        ("xxx", "is a placeholder"),
        ("xoxb-xxxxx-xxxx", "is a placeholder"),
        ("<webhook>", "is a placeholder"),
        ("https://<host>/x", "is a placeholder"),
        ("TODO", "is a placeholder"),
        ("todo: ask ops", "is a placeholder"),
        ("FIXME later", "is a placeholder"),
        ("example", "is a placeholder"),
        ("example-token", "is a placeholder"),
        ("your-token", "is a placeholder"),
        ("https://your-company.com/x", "is a placeholder"),
        ("YOUR_API_KEY", "is a placeholder"),
        ("yourtoken", "is a placeholder"),
        ("password", "is a placeholder"),
        ("https://hooks.slack.com/services/...", "is a placeholder"),
        ("https://hooks.slack.com/services/XXX/YYY/ZZZ", "is a placeholder"),
        ("https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX", "is a placeholder"),
        ("https://hooks.slack.com/services/T00000000/B00000000/abcdefghijkl", "is a placeholder"),
        ("on-call@example.com", "documentation"),
        ("a@mail.example.org", "documentation"),
        ("A <a@example.net>", "documentation"),
        ("https://prometheus.example.com:9090/", "documentation"),
        ("mail.example:25", "documentation"),
        ("host.invalid", "documentation"),
        ("192.0.2.10", "documentation"),
        ("http://198.51.100.7:9090", "documentation"),
        ("203.0.113.255", "documentation"),
        ("[2001:db8::1]:9090", "documentation"),
        (["changeme"], "has an element that is a placeholder"),
    ],
    "not_placeholder_list": [
        ([], "required, and not set"),
        (None, "required, and not set"),
        ("", "required, and not set"),
        ({}, "required, and not set"),
        (["a@corp.net", ""], "has an empty element"),
        (["a@corp.net", "b@example.com"], "has an element that is an address for documentation"),
        ({"critical": "xxx"}, "has an element that is a placeholder"),
    ],
}


def test_every_format_is_tested() -> None:
    assert plugin.FORMATS.keys() == GOOD.keys() == BAD.keys()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_takes(name: str, value: object) -> None:
    assert plugin.FORMATS[name].check(value) is None


@pytest.mark.parametrize(
    ("name", "value", "words"), [(name, value, words) for name, pairs in BAD.items() for value, words in pairs]
)
def test_refuses(name: str, value: object, words: str) -> None:
    said = plugin.FORMATS[name].check(value)
    assert said is not None
    assert words in said


@pytest.mark.parametrize("name", [name for name, form in plugin.FORMATS.items() if form.example])
def test_its_own_example_is_right(name: str) -> None:
    """An example that the check refuses sends people in circles."""
    assert plugin.FORMATS[name].check(yaml.safe_load(plugin.FORMATS[name].example)) is None


@pytest.mark.parametrize("name", sorted(BAD))
@pytest.mark.parametrize("value", ["s3cr3t\n", ["s3cr3t\n"], {"a": "s3cr3t"}, {"a": ["s3cr3t"]}])
def test_the_words_never_repeat_the_value(name: str, value: object) -> None:
    """A secret is hidden by not showing the value, so no check may show it by itself."""
    assert "s3cr3t" not in (plugin.FORMATS[name].check(value) or "")


def test_secrets_are_taken_out_of_messages_that_ansible_wrote() -> None:
    spec: dict[str, dict[str, object]] = {
        "a_token": {"no_log": True},
        "a_user": {"options": {"password": {"no_log": True}}},
        "a_open": {},
    }
    values = {"a_token": "s3cr3t", "a_user": {"password": ["hidden-one", 4711]}, "a_open": "shown", "a_vault": "v4ult"}
    checker = plugin.Checker("a", spec | {"a_vault": {}}, {}, values=values, vaulted={"a_vault"})
    said = checker.without_secrets("s3cr3t, hidden-one, 4711, v4ult and shown do not fit")
    hidden = "the secret value (not shown)"
    assert said == f"{hidden}, {hidden}, {hidden}, {hidden} and shown do not fit"
