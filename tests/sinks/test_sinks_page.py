"""The page for people: looks right, and messages cannot do anything in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from email.message import EmailMessage
from html.parser import HTMLParser
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sinks.conftest import Sink

ALLOWED = {
    *("html", "head", "meta", "title", "noscript", "link", "style", "script", "body", "header", "main", "section"),
    *("article", "div", "span", "p", "h1", "h2", "h3", "small", "b", "strong", "em", "s", "code", "pre", "blockquote"),
    *("a", "button", "time", "dl", "dt", "dd", "ol", "li", "hr", "details", "summary", "iframe", "svg", "rect"),
}
VOID = {"meta", "link", "hr", "br", "rect"}


class Elements(HTMLParser):
    """All start tags of a document with their attributes; checks that they are closed in order."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(document)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that closes itself."""
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Check the order."""
        assert self._open, f"</{tag}> without a start"
        assert self._open.pop() == tag

    def handle_comment(self, data: str) -> None:
        """Refuse comments: we write none."""
        raise AssertionError(f"a comment: {data!r}")


def assert_harmless(document: str, scripts: int = 1) -> None:
    """Fail if a document has anything that could run, load or lead somewhere it should not."""
    elements = Elements(document).found
    assert {tag for tag, _ in elements} <= ALLOWED
    assert [tag for tag, _ in elements].count("script") == scripts
    assert [tag for tag, _ in elements].count("style") == scripts
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc", "id=")]
        if "href" in attributes and tag != "link":
            assert re.match(r"https?://|mailto:|/api/messages", attributes["href"]), attributes
            if not attributes["href"].startswith("/"):
                assert attributes["rel"] == "noopener noreferrer"
                assert attributes["target"] == "_blank"
        if "src" in attributes:
            assert tag == "iframe"
            assert re.fullmatch(r"/mail/\d+\.html", attributes["src"])
        if tag == "iframe":
            assert "allow-scripts" not in attributes["sandbox"]
            assert "allow-same-origin" not in attributes["sandbox"]
        if "fill" in attributes:
            assert re.fullmatch(r"#[0-9a-fA-F]{3,6}", attributes["fill"])


EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</noscript></iframe></article><svg onload=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&amp;lt;b onclick=alert(1)&amp;gt;",
    "<javascript:alert(1)|click>",
    "<JaVaScRiPt:alert(1)>",
    "<data:text/html,<script>alert(1)</script>|x>",
    '<http://x" onclick=alert(1)|x>',
    "<http://x'onclick='alert(1)|x>",
    "<http://x|<img src=x onerror=alert(1)>>",
    "<!channel|<img src=x onerror=alert(1)>>",
    '<@U1|"><script>alert(1)</script>>',
    '*<http://a|*b*>*_<http://c|_d_>_ ~`<b>`~ ```<i>``` http://x/"><b>',
    "*a _b* c_ ~d *e~ f*",
    "\x000\x00 \x001\x00 \x0099\x00",
    "> quote <b>\n&gt; quote\n<!-- -->",
    "\u202e\ud7ff\ufffe ​",
    "`" * 999,
    "*" * 999 + "_" * 999 + "~" * 999,
]


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_becomes_markup(sink: Sink, evil: str) -> None:
    keys = "title title_link pretext text fallback color author_name author_link footer image_url thumb_url"
    everywhere: dict[str, object] = dict.fromkeys(keys.split(), evil)
    block = {
        "type": "section",
        "text": {"type": "mrkdwn", "text": evil},
        "fields": [{"type": "plain_text", "text": evil}],
    }
    payload = {
        "username": evil,
        "icon_emoji": evil,
        "icon_url": evil,
        "text": evil,
        "attachments": [
            {
                **everywhere,
                "fields": [{"title": evil, "value": evil, "short": evil}],
                "actions": [{"type": "button", "text": evil, "url": evil, "style": evil, "name": evil}],
            },
            {"fallback": evil},
        ],
        "blocks": [
            block,
            {"type": evil, "x": evil},
            {"type": "header", "text": {"type": "plain_text", "text": evil}},
            {"type": "context", "elements": [evil, {"text": evil}, 5, None]},
            {"type": "actions", "elements": [{"text": {"text": evil}, "url": evil}]},
            {**block, "accessory": {"text": {"text": evil}, "url": evil}},
        ],
    }
    assert sink.slack(payload).text == "ok"
    mail = EmailMessage()
    line = " ".join(re.sub(r"[\x00-\x1f]", " ", evil).split())[:200]
    mail["Subject"] = line
    mail["X-Evil"] = line
    mail.set_content(evil)
    mail.add_alternative(evil, subtype="html")
    mail.add_attachment(b"x", maintype="image", subtype="png", filename=line)
    header = f"From: {line} <a@example.com>\nTo: {line} <b@example.com>\n".encode()
    sink.mail(header + mail.as_bytes())
    assert len(sink.client.messages()) == 2

    document = sink.request("GET", "/").text
    assert_harmless(document)
    assert "cannot be shown" not in document
    update = sink.request("GET", "/updates?after=0").json()
    assert_harmless(update["slack"] + update["mail"], scripts=0)


def test_page_has_a_strict_policy_that_fits_its_own_script_and_style(sink: Sink) -> None:
    answer = sink.request("GET", "/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        content = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert len(content) == 1
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r"(?:src|href)=\"(?!/|data:)", answer.text)


def test_html_of_a_mail_is_a_document_without_rights(sink: Sink) -> None:
    message = sink.mail("Content-Type: text/html\n\n<!doctype html><p style='color:red'>x</p><script>alert(1)</script>")
    answer = sink.request("GET", f"/mail/{message['id']}.html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert answer.text.startswith('<!doctype html><base target="_blank">')
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/api/messages", "/health", "/nothing"):
        assert sink.request("GET", path).headers["content-security-policy"].startswith("default-src 'none';")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*bold* _it_ ~gone~ `x*y*`", "<strong>bold</strong> <em>it</em> <s>gone</s> <code>x*y*</code>"),
        ("2*3*4 snake_case_name", "2*3*4 snake_case_name"),
        ("*<https://example.com/a?b=1&amp;c=2|now>*", None),
        ("<https://example.com>", None),
        ("a &lt;b&gt; &amp;amp;", "a &lt;b&gt; &amp;amp;"),
        ("<!here> <#C1|ops> <@U1>", None),
        ("<javascript:alert(1)|x>", "&lt;javascript:alert(1)|x&gt;"),
        (":fire: :nonsense:", "🔥 :nonsense:"),
        ("> quoted\nnot", "<blockquote>quoted</blockquote>not"),
        ("a\n```\n*x*\n```\nb", "a<pre>*x*</pre>b"),
        ("", ""),
    ],
)
def test_slack_markup(sinks_module: ModuleType, text: str, expected: str | None) -> None:
    attributes = 'target="_blank" rel="noopener noreferrer"'
    links = {
        "*<https://example.com/a?b=1&amp;c=2|now>*": (
            f'<strong><a href="https://example.com/a?b=1&amp;c=2" {attributes}>now</a></strong>'
        ),
        "<https://example.com>": f'<a href="https://example.com" {attributes}>https://example.com</a>',
        "<!here> <#C1|ops> <@U1>": (
            '<span class="mention">@here</span> <span class="mention">#ops</span> <span class="mention">@U1</span>'
        ),
    }
    assert sinks_module.mrkdwn(text) == (links[text] if expected is None else expected)


@pytest.mark.parametrize("text", ["<" * 1_000_000, "*a " * 300_000, "```" * 300_000, "`_~*<" * 200_000, ":a" * 500_000])
def test_hostile_text_does_not_hold_up_the_page(sinks_module: ModuleType, text: str) -> None:
    start = time.process_time()
    shown = sinks_module.mrkdwn(text)
    assert time.process_time() - start < 1
    assert "characters more" in shown


@pytest.mark.parametrize("markup", ["<style>" * 150_000, "<" * 1_000_000, "<head" * 200_000, "<header>" * 100_000])
def test_hostile_mail_does_not_hold_up_the_preview(sinks_module: ModuleType, markup: str) -> None:
    start = time.process_time()
    sinks_module.html_as_text(markup)
    assert time.process_time() - start < 1


def test_preview_of_a_mail_has_its_words_only(sinks_module: ModuleType) -> None:
    markup = (
        "<html><head><title>no</title></head><header>yes</header><STYLE>no{}</STYLE><p>1 &lt; 2<br>two</p><script>no"
    )
    assert sinks_module.html_as_text(markup) == "yes 1 < 2 two"


def test_alert_colours(sink: Sink) -> None:
    for title, color in (
        ("[FIRING:2] A", "danger"),
        ("[RESOLVED] A", "good"),
        ("A is down", "danger"),
        ("A", "#7b61ff"),
    ):
        sink.slack({"channel": "#alerts", "attachments": [{"title": title, "color": color}]})
    sink.mail("Subject: [RESOLVED] A\n\nx")
    document = sink.request("GET", "/").text
    assert re.findall(r'<article class="(slack|mail) (\w*)"', document) == [
        ("slack", ""),
        ("slack", "firing"),
        ("slack", "resolved"),
        ("slack", "firing"),
        ("mail", "resolved"),
    ]
    assert document.index("A is down") < document.index("[FIRING:2] A")
    assert '<span class="bar danger">' in document
    assert 'fill="#7b61ff"' in document


def test_empty_page_says_what_to_do(sink: Sink) -> None:
    document = sink.request("GET", "/", headers={"Host": f"127.0.0.1:{sink.http_port}"}).text
    assert document.count("docker exec allin-local systemctl stop allin-backend") == 2
    assert f"http://127.0.0.1:{sink.http_port}/slack/try" in document
    assert f"smtp://127.0.0.1:{sink.smtp_port}" in document
    hostile = sink.request("GET", "/", headers={"Host": '"><script>'}).text
    assert_harmless(hostile)


def test_page_without_script_reloads_by_itself(sink: Sink) -> None:
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in sink.request("GET", "/").text


def test_updates_bring_only_what_is_new_and_say_what_is_gone(sink: Sink) -> None:
    sink.slack({"text": "first"})
    first = sink.request("GET", "/updates?after=0").json()
    sink.slack({"text": "second"})
    second = sink.request("GET", f"/updates?after={first['last_id']}").json()
    assert "second" in second["slack"]
    assert "first" not in second["slack"]
    assert second["mail"] == ""
    assert second["counts"] == {"slack": 2, "mail": 0, "webhook": 0}
    sink.client.clear()
    third = sink.request("GET", f"/updates?after={second['last_id']}").json()
    assert third["slack"] == ""
    assert third["oldest_id"] > third["last_id"] == second["last_id"]


def test_page_shows_the_newest_fifty_of_many(sink: Sink) -> None:
    for number in range(55):
        sink.slack({"text": f"message-{number:03}"})
    document = sink.request("GET", "/").text
    assert document.count("<article") == 50
    assert "message-054" in document
    assert "message-004" not in document
    assert 'id="slack-count">55<' in document


def test_long_text_is_cut_for_people_not_for_tests(sink: Sink) -> None:
    sink.request("POST", "/slack/x", json.dumps({"text": "x" * 500_000}), {"Content-Type": "application/json"})
    assert len(sink.request("GET", "/").body) < 100_000
    assert len(sink.client.messages()[0]["text"]) == 500_000
