"""The action `check_settings`, run by ansible-playbook itself.

Every case is a host of one inventory, at an address that nobody answers, so one run checks them all, and shows that no
connection is needed. The same settings are checked from a play, in check mode, and from within the role.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from plugins.action.check_settings import GATHERED

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "hunter2-do-not-show"

ARGUMENT_SPECS = """
argument_specs:
  main:
    options:
      demo_port:
        type: int
        default: 9090
        description: "Port. For example C(demo_port: 1). For example C(demo_port: 9100)."
      demo_retention: {type: str, default: 30d, description: How long.}
      demo_method: {type: str, choices: [archive, package], default: archive}
      demo_webhook:
        type: str
        required: true
        no_log: true
        description: >-
          Where messages go. For example
          C(demo_webhook: https://hooks.slack.com/services/...).
      demo_channel: {type: str, default: ""}
      demo_url: {type: str, default: ""}
      demo_peers: {type: list, elements: str}
      demo_debug: {type: bool, default: false}
      demo_ratio: {type: float, default: 0.5}
      demo_version: {type: str, default: 1.2.3}
      demo_file_mode: {type: str, default: "0640"}
      demo_labels: {type: dict, default: {}}
      demo_recipients: {type: list, elements: str, default: []}
      demo_environments: {type: list, elements: str, choices: [dev, production], default: [dev]}
      demo_thresholds:
        type: dict
        default: {memory_bytes: {warning: 100, critical: 200}}
        options:
          memory_bytes:
            type: dict
            options:
              warning: {type: int, description: "Lower. For example C(warning: 150)."}
              critical: {type: int, required: true}
      demo_jobs:
        type: list
        elements: dict
        default: []
        options:
          name: {type: str, required: true, description: Its name. For example C(node).}
          port: {type: int}
          scheme: {type: str, choices: [http, https], aliases: [protocol]}
      demo_account:
        type: dict
        default: {}
        options:
          user: {type: str}
          checked: {type: bool}
          password: {type: str, no_log: true}
          keys: {type: dict, no_log: true, options: {first: {type: int}}}
      demo_tls:
        type: dict
        default: {}
        options: {cert: {type: str}, key: {type: str}}
        required_together: [[cert, key]]
      demo_address: {type: str, aliases: [demo_listen]}
      demo_size: {type: bytes, default: 10M}
      demo_anything: {type: raw}
      demo_alerts: {type: list, elements: dict, default: []}
      demo_derived: {type: str, default: "{{ demo_base }}/x"}
      demo_computed: {type: str, default: "{{ ansible_facts['architecture'] }}"}
"""

DEFAULTS = """
demo_port: 9090
demo_retention: 30d
demo_method: archive
demo_channel: ""
demo_url: ""
demo_debug: false
demo_ratio: 0.5
demo_version: 1.2.3
demo_file_mode: "0640"
demo_labels: {}
demo_recipients: []
demo_environments: [dev]
demo_thresholds: {memory_bytes: {warning: 100, critical: 200}}
demo_jobs: []
demo_alerts: []
demo_account: {}
demo_tls: {}
demo_size: 10M
demo_derived: "{{ demo_base }}/x"
demo_computed: "{{ ansible_facts['architecture'] }}"
demo_forgotten_in_the_specification: 1
"""

CHECK = yaml.safe_load("""
role: demo
formats:
  demo_port: port
  demo_retention: duration
  demo_webhook: [not_placeholder, url]
  demo_channel: slack_channel
  demo_url: url
  demo_version: version
  demo_file_mode: unix_mode
  demo_labels: label_map
  demo_recipients: email
  demo_peers: [not_placeholder, listen_address]
  demo_jobs[].port: port
  demo_jobs.name: label_name
  demo_thresholds.memory_bytes.warning: positive
  demo_address: listen_address
  demo_labels.zone: not_empty
  demo_alerts[].times[].location: time_zone
allow: [demo_shared, "demo_team_*"]
renamed: {demo_keep: demo_retention, demo_gone: }
""")


def task(name: str, arguments: dict[str, Any], **keywords: object) -> dict[str, Any]:
    """Return a task that the play survives."""
    return {"name": name, "ignore_errors": True, "check_settings": arguments, **keywords}


def play(hosts: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    """Return a play that gathers no facts."""
    return {"name": "Check", "hosts": hosts, "gather_facts": False, "tasks": list(tasks)}


PLAYBOOK = [
    play("all", task("play", CHECK)),
    play("all", task("check mode", CHECK, check_mode=True)),
    play("all", {"ansible.builtin.import_role": {"name": "demo", "rolespec_validate": False}}),
    play(
        "fine",
        task("no role", {"role": "nowhere"}),
        task("bad role", {"role": "../demo"}),
        task("no spec", {"role": "bare"}),
        task("no format", {"role": "demo", "formats": {"demo_port": "prot"}}),
        task("no setting", {"role": "demo", "formats": {"demo_jobs.prot": "port"}}),
    ),
    play(
        "facts",
        {"ansible.builtin.set_fact": {"ansible_architecture": "x86_64", "cacheable": True}},
        task("with facts", {"role": "demo"}),
    ),
]

RECORDER = """
import json
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    def record(self, result, failed):
        said = json.loads(self._dump_results(result.result)) | {"failed": failed}
        line = {"host": result.host.get_name(), "task": result.task.get_name().split(" : ")[-1], "result": said}
        with open("results", "a") as stream:
            stream.write(json.dumps(line) + "\\n")

    def v2_runner_on_ok(self, result):
        self.record(result, False)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.record(result, True)

    def v2_runner_on_unreachable(self, result):
        self.record(result, True)
"""


@dataclass(frozen=True)
class Case:
    """Settings of one host in YAML, and the lines that are to be said about them, without the place at the end."""

    name: str
    settings: str
    says: Sequence[str] = ()
    unchecked: Sequence[str] = ("demo_computed", "demo_derived")
    task: str = field(default="play", kw_only=True)


CASES = [
    Case("fine", ""),
    Case("strings", "{demo_port: '9100', demo_ratio: '0.25', demo_debug: 'yes', demo_size: 1G, demo_address: '::'}"),
    Case("null", "{demo_port: null, demo_account: {user: null}, demo_anything: [1, {a: 2}]}"),
    Case(
        "null-list",
        "{demo_jobs: null}",
        [
            "demo_jobs: null, as where every entry is commented out. Write demo_jobs: [] for none, or delete the line",
        ],
    ),
    Case("empty", "{demo_url: '', demo_channel: '', demo_recipients: []}"),
    Case("omitted", "{demo_port: '{{ omit }}'}"),
    Case("templates", "{demo_port: '{{ base + 1 }}', base: 9099, demo_labels: {zone: '{{ inventory_hostname }}'}}"),
    Case("allowed", "{demo_shared: 1, demo_team_a: 1, demo_team_b: 2, demo_proxy_port: 1, __demo_x: 1}"),
    Case(
        "passed-on", "{demo_alerts: [{times: [{location: UTC}, {start: 1}]}, {times: now}, {}], demo_labels: {a: ''}}"
    ),
    Case(
        "passed-on-wrong",
        "{demo_alerts: [{}, {times: [{}, {location: Berlin}]}], demo_labels: {zone: ''}}",
        [
            "demo_labels.zone: '' is empty, a name is needed. Write for example: zone: production",
            "demo_alerts[1].times[1].location: 'Berlin' is not a time zone (region/city, or UTC). "
            "Write for example: location: Europe/Berlin",
        ],
    ),
    Case(
        "several",
        "{demo_port: 70000, demo_retention: 15 days, demo_method: deb}",
        [
            "demo_port: 70000 is out of range, a port is 1 to 65535. Write for example: demo_port: 9100",
            "demo_retention: '15 days' is not a duration (a number and a unit: ms, s, m, h, d, w, y; units may be "
            "joined from large to small). Write for example: demo_retention: 30d",
            "demo_method: 'deb' is not one of: archive, package. Write for example: demo_method: archive",
        ],
    ),
    Case(
        "texts-for-false",
        "{demo_debug: 'False', demo_account: {checked: ' no'}}",
        [
            "demo_debug: 'False' is a text, which may count as true; write it without quotes, and behind -e as JSON. "
            "Write for example: demo_debug: false",
            "demo_account.checked: ' no' is a text, which may count as true; write it without quotes, and behind -e as "
            "JSON. Write for example: demo_account: {checked: false}",
        ],
    ),
    Case(
        "required",
        "{demo_webhook: null}",
        ["demo_webhook: required, and not set. Write for example: demo_webhook: https://hooks.slack.com/services/..."],
    ),
    Case(
        "blank",
        "{demo_webhook: ''}",
        ["demo_webhook: required, and not set. Write for example: demo_webhook: https://hooks.slack.com/services/..."],
    ),
    Case(
        "empty-list",
        "{demo_peers: []}",
        ["demo_peers: required, and not set. Write for example: demo_peers: 127.0.0.1"],
    ),
    Case(
        "secret",
        f"{{demo_webhook: 'x:{SECRET}'}}",
        [
            "demo_webhook: the secret value (not shown) is not a web address (http:// or https://, a host, and "
            "perhaps a port and a path). Write for example: demo_webhook: https://hooks.slack.com/services/..."
        ],
    ),
    Case(
        "secret-kind",
        f"{{demo_webhook: ['{SECRET}']}}",
        [
            "demo_webhook: the secret value (not shown) is a list, not a text. "
            "Write for example: demo_webhook: https://hooks.slack.com/services/..."
        ],
    ),
    Case(
        "secret-inside",
        f"{{demo_account: [{{password: '{SECRET}'}}]}}",
        ["demo_account: the secret value (not shown) is not a mapping. Write for example: demo_account: {name: value}"],
    ),
    Case(
        "secret-nested",
        f"{{demo_account: {{user: [a], password: {{a: '{SECRET}'}}}}}}",
        [
            'demo_account.user: ["a"] is a list, not a text. Write for example: demo_account: {user: some-text}',
            "demo_account.password: the secret value (not shown) is a mapping, not a text. "
            "Write for example: demo_account: {password: some-text}",
        ],
    ),
    Case(
        "secret-parent",
        f"{{demo_account: {{keys: {{first: '{SECRET}'}}}}}}",
        [
            "demo_account.keys.first: the secret value (not shown) is not a whole number. "
            "Write for example: demo_account: {keys: {first: 1}}"
        ],
    ),
    Case(
        "secret-template",
        f"{{demo_webhook: \"{{{{ '{SECRET}' | no_such_filter }}}}\"}}",
        [
            "demo_webhook: its template cannot be resolved: the error is not shown, because the value is secret. "
            "Write for example: demo_webhook: https://hooks.slack.com/services/..."
        ],
    ),
    Case(
        "secret-undefined",
        "{demo_webhook: '{{ vault_webhook }}'}",
        [
            "demo_webhook: its template cannot be resolved: 'vault_webhook' is undefined. "
            "Write for example: demo_webhook: https://hooks.slack.com/services/..."
        ],
    ),
    Case(
        "vault",
        "VAULT",
        [
            "demo_retention: the secret value (not shown) is not a duration (a number and a unit: ms, s, m, h, d, w, "
            "y; units may be joined from large to small). Write for example: demo_retention: 30d"
        ],
    ),
    Case(
        "placeholder",
        "{demo_webhook: 'https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX'}",
        [
            "demo_webhook: the secret value (not shown) is a placeholder, put the real value there. "
            "Write for example: demo_webhook: https://hooks.slack.com/services/..."
        ],
    ),
    Case(
        "kinds",
        "{demo_port: nine, demo_debug: maybe, demo_ratio: half, demo_labels: a=b, demo_recipients: a@b.c, "
        "demo_retention: true, demo_size: big, demo_method: [archive], demo_jobs: {name: a}}",
        [
            "demo_port: 'nine' is not a port, a whole number from 1 to 65535. Write for example: demo_port: 9100",
            "demo_retention: true is not a duration (a number and a unit: ms, s, m, h, d, w, y; units may be joined "
            "from large to small). Write for example: demo_retention: 30d",
            'demo_method: ["archive"] is a list, not a text. Write for example: demo_method: archive',
            "demo_debug: 'maybe' is neither true nor false. Write for example: demo_debug: false",
            "demo_ratio: 'half' is not a number. Write for example: demo_ratio: 0.5",
            "demo_labels: 'a=b' is not a mapping of label names to texts. "
            "Write for example: demo_labels: {region: eu-west}",
            "demo_recipients: 'a@b.c' is not a list. Write for example: demo_recipients: on-call@your-company.com",
            'demo_jobs: {"name": "a"} is not a list. Write for example: demo_jobs: [{name: value}]',
            "demo_size: 'big' is not a size such as 10M. Write for example: demo_size: 10M",
        ],
    ),
    Case(
        "yaml-traps",
        "{demo_version: 3.10, demo_file_mode: 0640, demo_url: off, demo_method: no, demo_address: 2024-01-01}",
        [
            "demo_method: false is not a text to YAML; put it in quotes. Write for example: demo_method: archive",
            "demo_url: false is not a web address (http:// or https://, a host, and perhaps a port and a path). "
            "Write for example: demo_url: https://monitoring.your-company.com",
            "demo_version: 3.1 is a number to YAML, which drops zeros at the end; put the version in quotes. "
            "Write for example: demo_version: 1.2.3",
            "demo_file_mode: 416 is a number to YAML, which may read it as another mode; put it in quotes. "
            "Write for example: demo_file_mode: '0640'",
            'demo_address: "2024-01-01" is not an address to listen on (an IP address or a host name, without port '
            "and brackets). Write for example: demo_address: 127.0.0.1",
        ],
    ),
    Case(
        "boolean-number",
        "{demo_ratio: true}",
        ["demo_ratio: true is not a number. Write for example: demo_ratio: 0.5"],
    ),
    Case(
        "nested",
        "{demo_thresholds: {memory_bytes: {warning: much, critcal: 1}}}",
        [
            "demo_thresholds.memory_bytes.critcal: unknown, did you mean critical?",
            "demo_thresholds.memory_bytes.warning: 'much' is not a number above 0. "
            "Write for example: demo_thresholds: {memory_bytes: {warning: 150}}",
            "demo_thresholds.memory_bytes.critical: required, and not set. "
            "Write for example: demo_thresholds: {memory_bytes: {critical: 1}}",
        ],
    ),
    Case(
        "nested-list",
        "{demo_jobs: [{name: 1up, port: 0}, {port: [1]}, seven, {name: a, protocol: ftp, zzzz: 1}]}",
        [
            "demo_jobs[2]: 'seven' is not a mapping. Write for example: demo_jobs: [{name: value}]",
        ],
    ),
    Case(
        "nested-list-options",
        "{demo_jobs: [{name: 1up, port: 0}, {port: [1]}, {name: a, protocol: ftp, zzzz: 1}]}",
        [
            "demo_jobs[0].name: '1up' is not a label name (letters, digits and _, not starting with a digit). "
            "Write for example: demo_jobs: [{name: node}]",
            "demo_jobs[0].port: 0 is out of range, a port is 1 to 65535. Write for example: demo_jobs: [{port: 9090}]",
            "demo_jobs[1].name: required, and not set. Write for example: demo_jobs: [{name: node}]",
            "demo_jobs[1].port: [1] is a list, not a whole number. Write for example: demo_jobs: [{port: 9090}]",
            "demo_jobs[2].zzzz: unknown, and close to no setting that there is (name, port, protocol, scheme); "
            "delete it",
            "demo_jobs[2].protocol: 'ftp' is not one of: http, https. Write for example: demo_jobs: [{protocol: http}]",
        ],
    ),
    Case(
        "elements",
        "{demo_environments: [dev, prod], demo_recipients: [a@b, nobody], demo_peers: [a.net, 'a b', b.example.com]}",
        [
            "demo_peers[2]: 'b.example.com' is an address for documentation only, which reaches nobody; put the real "
            "one there. Write for example: demo_peers: [127.0.0.1]",
            "demo_peers[1]: 'a b' is not an address to listen on (an IP address or a host name, without port and "
            "brackets). Write for example: demo_peers: [127.0.0.1]",
            "demo_recipients[1]: 'nobody' is not a mail address (name@host). "
            "Write for example: demo_recipients: [on-call@your-company.com]",
            "demo_environments[1]: 'prod' is not one of: dev, production. Write for example: demo_environments: [dev]",
        ],
    ),
    Case(
        "core-only",
        "{demo_tls: {cert: /a}}",
        ["parameters are required together: cert, key found in demo_tls"],
    ),
    Case(
        "core-too",
        "{demo_port: x, demo_tls: {cert: /a}}",
        [
            "demo_port: 'x' is not a port, a whole number from 1 to 65535. Write for example: demo_port: 9100",
            "parameters are required together: cert, key found in demo_tls",
        ],
    ),
    Case(
        "alias",
        "{demo_listen: '10.0.0.1:9090'}",
        [
            "demo_listen: '10.0.0.1:9090' is not an address to listen on (an IP address or a host name, without port "
            "and brackets). Write for example: demo_listen: 127.0.0.1"
        ],
    ),
    Case(
        "names",
        "{demo_retension: 3d, demo_zzz: 1, demmo_port: 1, dem_o_port: 2, my_port: 3, port: 4}",
        [
            "dem_o_port: unknown, did you mean demo_port?",
            "demmo_port: unknown, did you mean demo_port?",
            "demo_retension: unknown, did you mean demo_retention?",
            "demo_zzz: unknown, and close to no setting that there is; delete it",
        ],
    ),
    Case(
        "renamed",
        "{demo_keep: 3d, demo_gone: 1}",
        ["demo_gone: was removed, delete it", "demo_keep: was renamed to demo_retention, rename it"],
    ),
    Case(
        "undefined",
        "{demo_port: '{{ nowhere }}', demo_labels: {a: '{{ deep.er }}', b: c}, deep: {}}",
        [
            "demo_port: its template cannot be resolved: 'nowhere' is undefined. Write for example: demo_port: 9100",
            "demo_labels: its template cannot be resolved: object of type 'dict' has no attribute 'er'. "
            "Write for example: demo_labels: {region: eu-west}",
        ],
    ),
    Case(
        "undefined-address",
        "{demo_address: '{{ ansible_become_user }}'}",
        [
            "demo_address: its template cannot be resolved: 'ansible_become_user' is undefined. "
            "Write for example: demo_address: 127.0.0.1"
        ],
    ),
    Case(
        "facts",
        "{demo_address: \"{{ ansible_facts['default_ipv4']['address'] }}\", demo_url: '{{ ansible_fqdn }}'}",
        [
            "demo_address: needs the fact default_ipv4, which the playbooks do not gather; write the value itself, "
            "where hosts differ in host_vars. Write for example: demo_address: 127.0.0.1"
        ],
        unchecked=["demo_url", "demo_computed", "demo_derived"],
    ),
    Case(
        "fact-behind-another",
        "{demo_url: 'http://{{ ansible_hostname }}/{{ ansible_facts.memtotal_mb }}/{{ ansible_facts.env.HOME }}'}",
        [
            "demo_url: needs the facts env, memtotal_mb, which the playbooks do not gather; write the value itself, "
            "where hosts differ in host_vars. Write for example: demo_url: https://monitoring.your-company.com"
        ],
    ),
    Case(
        "fact-with-a-default",
        "{demo_url: 'http://{{ ansible_hostname }}/{{ ansible_facts.memtotal_mb | default(1) }}'}",
        unchecked=["demo_url", "demo_computed", "demo_derived"],
    ),
    Case(
        "fact-in-another-variable",
        "{name_of_ours: \"{{ ansible_facts['hostname'] }}\", demo_url: 'http://{{ name_of_ours }}/'}",
        unchecked=["demo_url", "demo_computed", "demo_derived"],
    ),
    Case(
        "facts-beside-what-ansible-knows",
        "{demo_url: 'http://{{ ansible_hostname }}/{{ ansible_play_hosts[0] }}/{{ ansible_verbosity }}'}",
        unchecked=["demo_url", "demo_computed", "demo_derived"],
    ),
    Case(
        "long",
        "{demo_retention: '" + "x" * 200 + "'}",
        [
            "demo_retention: '" + "x" * 79 + "… is not a duration (a number and a unit: ms, s, m, h, d, w, y; units "
            "may be joined from large to small). Write for example: demo_retention: 30d"
        ],
    ),
]


@dataclass(frozen=True)
class Run:
    """What ansible-playbook said: results by host and task, and everything it printed."""

    results: dict[tuple[str, str], dict[str, Any]]
    output: str


def encrypted(text: str) -> str:
    """Return `text` as a YAML value from a vault with the password `pass`."""
    vault = VaultLib([("default", VaultSecret(b"pass"))])
    lines = vault.encrypt(text).decode().splitlines()
    return "!vault |\n" + "\n".join(f"  {line}" for line in lines)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Check all cases in one run of ansible-playbook."""
    root = tmp_path_factory.mktemp("estate")

    def write(path: str, text: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    write("roles/demo/meta/argument_specs.yml", ARGUMENT_SPECS)
    write("roles/demo/defaults/main.yml", DEFAULTS)
    write("roles/demo/vars/main.yml", "demo_constant: 1\n")
    write("roles/demo/README.md", "Demo\n")
    write("roles/demo/tasks/main.yml", yaml.safe_dump([task("role", CHECK)]))
    write("roles/demo_proxy/tasks/main.yml", "[]\n")
    write("roles/bare/tasks/main.yml", "[]\n")
    write("playbooks/site.yml", yaml.safe_dump(PLAYBOOK))
    write("callbacks/recorder.py", RECORDER)
    write("password", "pass\n")
    write("inventory/hosts", "\n".join(case.name for case in CASES) + "\n")
    # 192.0.2.0/24 is for documentation: a connection would hang there.
    write(
        "inventory/group_vars/all.yml",
        "ansible_host: 192.0.2.1\ndemo_webhook: https://hooks.slack.com/services/TQ1/BQ2/k3y\n",
    )
    for case in CASES:
        settings = case.settings
        if settings == "VAULT":
            settings = f"demo_retention: {encrypted(SECRET)}"
        write(f"inventory/host_vars/{case.name}.yml", f"---\n{settings}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "LANG": "C.UTF-8",
        "ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "plugins" / "action"),
        "ANSIBLE_ROLES_PATH": str(root / "roles"),
        "ANSIBLE_CALLBACK_PLUGINS": str(root / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder",
        "ANSIBLE_TIMEOUT": "1",
        "ANSIBLE_CONFIG": str(root / "none.cfg"),
    }
    write("none.cfg", "[defaults]\n")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-vv", "-i", "inventory", "--vault-password-file", "password", "playbooks/site.yml"),
        ],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]  # every task ignores its errors, so this is another one
    records = [json.loads(line) for line in (root / "results").read_text().splitlines()]
    return Run({(record["host"], record["task"]): record["result"] for record in records}, output)


def lines_of(result: dict[str, Any]) -> list[str]:
    """Return the problems without the place where the setting was written."""
    return [line.rpartition(" [set in ")[0] or line for line in result["problems"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_problem_is_said_in_one_line(run: Run, case: Case) -> None:
    result = run.results[case.name, "play"]
    assert lines_of(result) == list(case.says)
    assert result["failed"] is bool(case.says)
    assert sorted(result["unchecked"]) == sorted(case.unchecked)


@pytest.mark.parametrize("task", ["check mode", "role"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_says_the_same_wherever_it_runs(run: Run, case: Case, task: str) -> None:
    here, there = run.results[case.name, "play"], run.results[case.name, task]
    assert (there["problems"], there["unchecked"]) == (here["problems"], here["unchecked"])
    assert there["failed"] is here["failed"]


def test_the_message_is_complete(run: Run) -> None:
    message = run.results["renamed", "play"]["msg"].splitlines()
    assert message[0] == "2 settings of the role demo must be corrected:"
    assert message[1:3] == [
        "  demo_gone: was removed, delete it [set in inventory/host_vars/renamed.yml:2]",
        "  demo_keep: was renamed to demo_retention, rename it [set in inventory/host_vars/renamed.yml:2]",
    ]
    assert message[3] == "Every setting is described by: ansible-doc -t role demo, and roles/demo/README.md"


def test_success_says_so(run: Run) -> None:
    result = run.results["fine", "play"]
    assert (result["changed"], result["msg"]) == (False, "The settings of the role demo are in order.")


def test_no_secret_is_printed_anywhere(run: Run) -> None:
    assert "secret-kind" in run.output, "the run printed less than this test reads"
    assert SECRET not in run.output
    assert SECRET not in json.dumps(list(run.results.values()))


def test_nobody_was_asked(run: Run) -> None:
    assert not any(result.get("unreachable") for result in run.results.values())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("no role", "the role nowhere is in none of:"),
        ("bad role", "'../demo' is not the name of a role"),
        ("no spec", "has no meta/argument_specs.yml"),
        ("no format", "formats: demo_port: no format 'prot'. There are: absolute_path, "),
        ("no setting", "formats: demo_jobs.prot: the role demo has no such setting"),
    ],
)
def test_a_mistake_of_the_caller_is_an_error(run: Run, task: str, message: str) -> None:
    result = run.results["fine", task]
    assert result["failed"] is True
    assert message in result["msg"]
    assert "problems" not in result


def test_with_facts_a_missing_one_is_a_problem(run: Run) -> None:
    result = run.results["facts", "with facts"]
    assert lines_of(result) == [
        "demo_url: its template cannot be resolved: 'ansible_fqdn' is undefined. "
        "Write for example: demo_url: some-text",
        "demo_address: its template cannot be resolved: object of type 'dict' has no attribute 'default_ipv4'. "
        "Write for example: demo_address: some-text",
    ]
    assert result["unchecked"] == ["demo_derived"]


def test_what_counts_as_gathered_is_gathered() -> None:
    """Prevents: a fact that the checks before the hosts leave to the host, which never has it."""
    root = Path(__file__).parents[2]
    subsets = {
        tuple(play["gather_subset"])
        for path in sorted(root.glob("playbooks/*.yml"))
        for play in yaml.safe_load(path.read_text())
        if play.get("gather_facts", "hosts" in play)
    }
    (subset,) = subsets
    command = ["ansible", "localhost", "--one-line", "-m", "setup", "-a", f"gather_subset={','.join(subset)}"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    facts = json.loads(done.stdout.partition("=> ")[2])["ansible_facts"]
    assert {name.removeprefix("ansible_") for name in facts} >= GATHERED
