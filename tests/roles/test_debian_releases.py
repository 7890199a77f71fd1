"""Which Alertmanager reads the configuration follows from the host's Debian, and what is refused from that."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
import yaml

from plugins.action.check_receivers import NEWEST
from tests.roles.rendering import MAIL, ROOT, SLACK

# Release of Debian -> the release of its Alertmanager that the role goes by; without facts the host was not asked yet.
RELEASES = {"12": "0.25", "13": "0.28", "14": "99.0", "forky/sid": "99.0", "": "0.25"}
# One that we do not know, one that is misspelt, and a secret that Debian 12's reads from nowhere else.
KINDS: dict[str, dict[str, Any]] = {
    "carrierpigeon_configs": {"loft": "a"},
    "slackk_configs": {"channel": "#a"},
    "telegram_configs": {"bot_token": "SECRET", "chat_id": 1},
}
PLAY = {
    "hosts": "all",
    "gather_facts": False,
    "tasks": [
        {
            "ansible.builtin.set_fact": {"distribution": "Debian", "distribution_major_version": "{{ debian }}"}
            | {"cacheable": True},
            "when": "debian | length > 0",
        },
        {"ansible.builtin.import_role": {"name": "alertmanager", "tasks_from": "check"}},
        {"ansible.builtin.debug": {"msg": "release {{ __alertmanager_release }}"}},
    ],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """By release of Debian and kind of receiver, what the role's check said at last."""
    cases = [(debian, kind) for debian in RELEASES for kind in KINDS]
    hosts = {
        f"case{number}": {
            "debian": debian,
            "alertmanager_extra_receivers": [{"name": "pager", kind: [KINDS[kind]]}],
            "alertmanager_extra_routes": [{"matchers": ["team = payments"], "receiver": "pager"}],
        }
        for number, (debian, kind) in enumerate(cases)
    }
    everywhere = {**SLACK, **MAIL, "alertmanager_install_method": "package", "ansible_connection": "local"}
    folder = tmp_path_factory.mktemp("debian-releases")
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": everywhere, "hosts": hosts}}))
    (folder / "check.yml").write_text(yaml.safe_dump([PLAY]))
    environment = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.timer",
    }
    run = subprocess.run(
        ["ansible-playbook", "--inventory", str(folder / "hosts.yml"), str(folder / "check.yml")],
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    report, _ = json.JSONDecoder().raw_decode(run.stdout)
    said: dict[str, str] = {}
    for task in report["plays"][0]["tasks"]:
        said.update({host: str(result["msg"]) for host, result in task["hosts"].items() if "msg" in result})
    return {case: said[f"case{number}"] for number, case in enumerate(cases)}


@pytest.mark.parametrize("debian", RELEASES)
def test_a_newer_debian_may_have_integrations_that_we_do_not_know(
    answers: dict[tuple[str, str], str], debian: str
) -> None:
    """Prevents: an integration of a new Debian's package that cannot be used before the role knows it."""
    said = answers[debian, "carrierpigeon_configs"]
    if debian in ("12", "13"):
        assert "carrierpigeon_configs: is no key of a receiver" in said
    else:
        assert said == f"release {RELEASES[debian]}"
    newest = tuple(int(number) for number in RELEASES[debian].split("."))
    assert (newest > NEWEST) == (debian in ("14", "forky/sid"))


def test_what_is_misspelt_is_refused_before_a_host_is_asked(answers: dict[tuple[str, str], str]) -> None:
    """Prevents: a slip that is found when half of the estate was changed."""
    for debian in ("12", "13", ""):
        assert "did you mean slack_configs?" in answers[debian, "slackk_configs"]


def test_secrets_are_judged_by_the_release_that_reads_them(answers: dict[tuple[str, str], str]) -> None:
    """Prevents: advice to write what Debian 12's package refuses."""
    for debian, release in RELEASES.items():
        said = answers[debian, "telegram_configs"]
        assert "SECRET" not in said
        assert ("bot_token_file" in said) == (release != "0.25")
