"""Messages as people get them: a real Alertmanager renders the role's templates and sends them to the message sinks.

python -m tests.roles.messages           writes docs/messages.md
python -m tests.roles.messages FOLDER    also puts what a picture is made of into FOLDER
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.roles.rendering import ROOT, render
from tests.sinks.alertmanagers import SUITES, Alertmanager, running
from tests.sinks.conftest import Sink

if TYPE_CHECKING:
    from molecule.shared.sinks.client import Message

DOCUMENT = ROOT / "docs/messages.md"
EXTERNAL_URL = "https://alerts.example.com"
RUNBOOKS = "https://git.example.com/monitoring/docs/runbooks"
PROMETHEUS = "https://prometheus.example.com/graph?g0.expr="

BACKEND_DOWN: dict[str, Any] = {
    "labels": {
        "alertname": "BackendDown",
        "severity": "critical",
        "component": "backend",
        "environment": "production",
        "job": "backend-api-production",
    },
    "annotations": {
        "summary": "No instance of backend-api-production answers Prometheus",
        "description": "All scrape targets of backend-api-production have failed for at least 15s.",
        "runbook_url": f"{RUNBOOKS}/BackendDown.md",
        "dashboard_url": "https://grafana.example.com/d/allin-overview?var-job=backend-api-production",
    },
    "startsAt": "2026-03-14T03:07:30Z",
    "generatorURL": f"{PROMETHEUS}max+by+%28job%29+%28up%7Bjob%3D%22backend-api-production%22%7D%29+%3D%3D+0&g0.tab=1",
}
RESOLVED_AT = "2026-03-14T03:19:45Z"


def disk(number: int) -> dict[str, Any]:
    """Return one of several alerts about disks."""
    host, device = f"app{number}", f"/dev/sda1 of 192.0.2.{10 + number}:9100"
    return {
        "labels": {
            "alertname": "HostDiskSpaceLow",
            "severity": "critical",
            "component": "host",
            "environment": "production",
            "job": "node",
            "host": host,
            "instance": f"192.0.2.{10 + number}:9100",
            "device": "/dev/sda1",
        },
        "annotations": {
            "summary": f"Less than 5% of the space on {device} is left",
            "description": f"{device} has {5 - number / 2:.4g}% of its space left.",
            "runbook_url": f"{RUNBOOKS}/HostDiskSpaceLow.md",
            "dashboard_url": f"https://grafana.example.com/d/allin-hosts?var-host={host}",
        },
        "startsAt": f"2026-03-14T03:0{number}:10Z",
        "generatorURL": f"{PROMETHEUS}job_instance_device%3Anode_filesystem_avail%3Aratio+%3C+0.05&g0.tab=1",
    }


DISKS = [disk(number) for number in range(1, 8)]


def resolved(alert: dict[str, Any], at: str = RESOLVED_AT) -> dict[str, Any]:
    """Return the end of an alert."""
    ended = copy.deepcopy(alert)
    ended["endsAt"] = at
    return ended


@dataclass(frozen=True)
class Example:
    """One Slack message and the mail of the same alerts."""

    slack: Message
    mail: Message

    @property
    def attachment(self) -> dict[str, Any]:
        """The part of the Slack message that holds everything."""
        found: dict[str, Any] = self.slack["attachments"][0]
        return found


class Desk:
    """An Alertmanager with the role's configuration, and the sinks that it sends to."""

    def __init__(self, alertmanager: Alertmanager, sink: Sink) -> None:
        self.alertmanager = alertmanager
        self.sink = sink

    def tell(self, alerts: list[dict[str, Any]], start: str) -> Example:
        """Send alerts as Prometheus does; return the next Slack message and mail with a title that starts so.

        Alerts that began before the group's wait are sent at once, the first of them perhaps alone.
        """
        after = self.sink.client.last_id()
        self.alertmanager.call("/api/v2/alerts", alerts)
        try:
            return Example(
                *(
                    self.sink.client.wait_for(lambda one: one.title.startswith(start), 20, kind, after)
                    for kind in ("slack", "mail")
                )
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.alertmanager.log()}") from error


def settings(folder: Path, sink: Sink) -> dict[str, Any]:
    """Return the role's variables for an Alertmanager that sends to a sink, with its secrets in a folder."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "slack_api_url").write_text(f"{sink.url}/slack/T0/B0/secret")
    return {
        "alertmanager_slack_channel": "#on-call",
        "alertmanager_email_to": ["on-call@mail.test"],
        "alertmanager_email_from": "monitoring@mail.test",
        "alertmanager_smtp_smarthost": f"127.0.0.1:{sink.smtp_port}",
        "alertmanager_smtp_require_tls": False,
        "alertmanager_secrets_dir": str(secrets),
        # All alerts that a test sends at once come in one message, and it comes soon.
        "alertmanager_group_wait": "1s",
        "alertmanager_group_wait_critical": "1s",
        "alertmanager_group_interval": "1s",
        "alertmanager_group_interval_critical": "1s",
    }


def examples(suite: str, folder: Path) -> dict[str, Example]:
    """Return the documented examples as a suite's Alertmanager sends them."""
    sink = Sink()
    try:
        render(folder / "config", **settings(folder, sink))
        with running(
            suite,
            folder / "config/alertmanager.yml",
            folder,
            f"--web.external-url={EXTERNAL_URL}",
            "--web.route-prefix=/",
        ) as sender:
            sender.wait_until_ready()
            desk = Desk(sender, sink)
            return {
                "One alert": desk.tell([BACKEND_DOWN], "[FIRING:1] BackendDown"),
                "Its end": desk.tell([resolved(BACKEND_DOWN)], "[RESOLVED] BackendDown"),
                "Seven alerts of one kind": desk.tell(DISKS, "[FIRING:7]"),
                "Two of the seven have ended": desk.tell([resolved(DISKS[0]), resolved(DISKS[3])], "[FIRING:5]"),
            }
    finally:
        sink.stop()


def document(found: dict[str, Example]) -> str:
    """Return docs/messages.md."""
    lines = [
        "# What messages look like",
        "",
        "Rendered by a real Alertmanager from `roles/alertmanager/files/allin.tmpl`; written by `make messages-doc`,",
        "and a test fails when it is out of date. `make message-pictures` makes the pictures.",
        "",
        "- Slack shows times as the reader's own; the text in `<!date…|…>` is what others see. It gets the first five",
        "  alerts of a group in full, so that nothing is cut off; a mail gets twenty.",
        "- *Dashboard* opens from half an hour before the alert until now (or until half an hour after its end),",
        "  *Query* shows the expression in Prometheus, *Silence* opens the form with exactly these labels filled in.",
        "- The form was opened with the pages of Alertmanager 0.28 and 0.30, labels with quotes and backslashes too.",
        "  Debian's package has no pages: there `amtool silence add`, as each runbook shows it, does the same.",
        "- A mail is complete in its text part too. The HTML part loads nothing from anywhere and follows the reader's",
        "  dark mode.",
        "",
    ]
    for name, example in found.items():
        lines += [f"## {name}", "", *example_lines(name, example)]
    return "\n".join(lines).rstrip() + "\n"


def example_lines(name: str, example: Example) -> list[str]:
    """Return an example as pictures and as text."""
    slug = slug_of(name)
    lines = [f"![{name}, in Slack](pictures/message-{slug}-slack.png)", ""]
    lines += [f"![{name}, as a mail](pictures/message-{slug}-mail.png)", ""]
    if name == "One alert":
        lines += ["In the dark, and on a phone:", ""]
        lines += [f"![{name}, in Slack, dark](pictures/message-{slug}-slack-dark.png)", ""]
        lines += [f"![{name}, as a mail on a phone, dark](pictures/message-{slug}-mail-phone-dark.png)", ""]
    lines += ["<details><summary>The same as text</summary>", "", "Slack:", "", "```text"]
    lines += [example.attachment["title"], "", example.attachment["text"].rstrip(), "```", "", "Mail:", "", "```text"]
    lines += [f"Subject: {example.mail.title}", "", tidy(example.mail["text"]), "```", "", "</details>", ""]
    return lines


def tidy(text: str) -> str:
    """Return a mail's text without what transport did to its line ends."""
    return re.sub(r"[ \t]+$", "", text.replace("\r\n", "\n"), flags=re.MULTILINE).strip()


def slug_of(name: str) -> str:
    """Return a name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(target: Path | None = None) -> None:
    """Write the document, and the material of the pictures where a folder is given."""
    with tempfile.TemporaryDirectory() as folder:
        found = examples(SUITES[-1], Path(folder))
    DOCUMENT.write_text(document(found))
    if target is None:
        return
    target.mkdir(parents=True, exist_ok=True)
    for name, example in found.items():
        material = {
            "subject": example.mail.title,
            "attachment": example.attachment,
            "from": example.slack["username"],
        }
        (target / f"{slug_of(name)}.html").write_text(example.mail["html"])
        (target / f"{slug_of(name)}.json").write_text(json.dumps(material))


if __name__ == "__main__":
    write()
