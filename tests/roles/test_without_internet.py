"""An estate without internet: a folder that playbooks/artifacts.yml fills serves it; what is missing stops the run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROLES = {"prometheus": "3.14.0", "alertmanager": "0.33.1", "node_exporter": "1.11.1"}


def archive(role: str, architecture: str) -> str:
    return f"{role}-{ROLES[role]}.linux-{architecture}.tar.gz"


def content(role: str, architecture: str) -> bytes:
    return f"{role} for {architecture}".encode()


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    """A web server that has every archive."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
            return

    folder = tmp_path / "upstream"
    folder.mkdir()
    for role in ROLES:
        for architecture in ("amd64", "arm64"):
            (folder / archive(role, architecture)).write_bytes(content(role, architecture))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


class Estate:
    """An inventory of this machine's own making: monitor1 and an ARM host, app1. Nobody answers at either."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backends: dict[str, dict[str, str]] = {}
        self.settings: dict[str, Any] = {
            "ansible_host": "127.0.0.1",
            "ansible_port": 9,
            "artifacts_download_dir": str(folder / "downloads"),
        }
        for role in ROLES:
            self.settings[f"{role}_archive_sha256"] = {
                architecture: hashlib.sha256(content(role, architecture)).hexdigest()
                for architecture in ("amd64", "arm64")
            }

    def run(self, playbook: str | Path, *options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook with these settings of the inventory."""
        hosts = {
            "prometheus": {"hosts": {"monitor1": {}}},
            "alertmanager": {"hosts": {"monitor1": {}}},
            "node_exporter": {"hosts": {"monitor1": {}, "app1": {"allin_architecture": "arm64"}}},
            "backend": {"hosts": self.backends},
        }
        inventory = self.folder / "hosts.json"
        inventory.write_text(json.dumps({"all": {"children": hosts, "vars": self.settings | settings}}))
        return subprocess.run(
            ["ansible-playbook", "-i", str(inventory), str(playbook), *options],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "no_proxy": "127.0.0.1"},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


NOWHERE = "http://127.0.0.1:9"


def test_what_is_missing_stops_the_run_with_one_table(estate: Estate) -> None:
    """Prevents: an estate half of which is of another version, because the rest could not be had."""
    done = estate.run("playbooks/resolve_artifacts.yml", artifact_mirror_url=NOWHERE)
    assert done.returncode != 0
    assert "4 artifacts that this run needs are nowhere to be had. No host was changed." in done.stdout
    for role, architecture in (*((role, "amd64") for role in ROLES), ("node_exporter", "arm64")):
        assert archive(role, architecture) in done.stdout
    assert "arm64.tar.gz  app1" in done.stdout
    assert "no answer: Connection refused" in done.stdout
    for way in ("artifacts_dir: ", "artifact_mirror_url: ", "prometheus_install_method: package"):
        assert way in done.stdout


@pytest.mark.parametrize("playbook", ["resolve_artifacts", "artifacts"])
def test_a_version_without_a_pin_says_what_to_write(estate: Estate, upstream: str, playbook: str) -> None:
    """Prevents: a first deployment that stops, with a list of ways none of which leads on."""
    into = str(estate.folder / "filled")
    settings = {"node_exporter_version": "1.99.0", "node_exporter_archive_sha256": {}, "artifact_mirror_url": upstream}
    done = estate.run(f"playbooks/{playbook}.yml", artifacts_dir=into, **settings)
    assert done.returncode != 0
    for words in (
        "no SHA-256 is known for 1.99.0 on arm64",
        "node_exporter_archive_sha256: {amd64: <64 hex digits>, arm64: <64 hex digits>}",
        "https://github.com/prometheus/node_exporter/releases/download/v1.99.0/sha256sums.txt",
        "node_exporter_version: 1.11.1",
    ):
        assert words in done.stdout
    assert "ways to supply" not in done.stdout


def test_preflight_and_the_whole_site_begin_with_it() -> None:
    for playbook in ("playbooks/preflight.yml", "site.yml"):
        listed = subprocess.run(
            ["ansible-playbook", "-i", "inventories/production", playbook, "--list-tasks", "--tags", "backend"],
            cwd=ROOT, env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, check=True, capture_output=True,
            text=True,
        ).stdout  # fmt: skip
        assert "Refuse to begin what cannot be finished" in listed.partition("Deploy the backend")[0]


def test_what_another_service_lacks_stops_nobody(estate: Estate, upstream: str) -> None:
    (estate.folder / "upstream" / archive("prometheus", "amd64")).unlink()
    settings = {"artifact_mirror_url": upstream}
    assert estate.run("playbooks/resolve_artifacts.yml", "--tags", "alertmanager", **settings).returncode == 0
    assert estate.run("playbooks/resolve_artifacts.yml", "--skip-tags", "prometheus", **settings).returncode == 0
    assert estate.run("playbooks/resolve_artifacts.yml", "--limit", "app1", **settings).returncode == 0
    done = estate.run("playbooks/resolve_artifacts.yml", **settings)
    assert done.returncode != 0
    assert "404" in done.stdout


def test_debian_s_packages_need_no_archive(estate: Estate) -> None:
    methods = {f"{role}_install_method": "package" for role in ROLES}
    assert estate.run("playbooks/resolve_artifacts.yml", artifact_mirror_url=NOWHERE, **methods).returncode == 0


def test_a_filled_folder_serves_the_estate(estate: Estate, upstream: str) -> None:
    """As folder and as mirror, for the architectures that its hosts have."""
    folder = estate.folder / "filled"
    fill = ("playbooks/artifacts.yml", "-e", f"artifacts_into={folder}")
    done = estate.run(*fill, artifact_mirror_url=upstream)
    assert done.returncode == 0, done.stdout
    names = {archive(role, "amd64") for role in ROLES} | {archive("node_exporter", "arm64")}
    assert {path.name for path in folder.iterdir()} == names | {"SHA256SUMS", "INDEX.md"}

    again = estate.run(*fill, artifact_mirror_url=NOWHERE)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout

    offline = {"artifacts_dir": str(folder), "artifact_mirror_url": NOWHERE}
    assert estate.run("playbooks/resolve_artifacts.yml", **offline).returncode == 0
    # What is on the way may be damaged.
    (folder / archive("prometheus", "amd64")).write_bytes(b"half of it")
    done = estate.run("playbooks/resolve_artifacts.yml", **offline)
    assert done.returncode != 0
    assert "pinned is" in done.stdout


def test_all_architectures_that_are_asked_for_come(estate: Estate, upstream: str) -> None:
    options = ("-e", json.dumps({"artifacts_architectures": ["amd64", "arm64"]}))
    into = str(estate.folder / "filled")
    done = estate.run("playbooks/artifacts.yml", *options, artifact_mirror_url=upstream, artifacts_dir=into)
    assert done.returncode == 0, done.stdout
    assert len(list(Path(into).glob("*.tar.gz"))) == 6


def test_what_cannot_be_brought_is_told(estate: Estate, upstream: str) -> None:
    (estate.folder / "upstream" / archive("prometheus", "amd64")).unlink()
    into = estate.folder / "filled"
    done = estate.run("playbooks/artifacts.yml", artifact_mirror_url=upstream, artifacts_dir=str(into))
    assert done.returncode != 0
    assert "404" in done.stdout
    assert (into / archive("alertmanager", "amd64")).is_file()


def test_the_folder_to_fill_is_asked_for(estate: Estate, upstream: str) -> None:
    """Prevents: "'artifacts_dir' is undefined"."""
    done = estate.run("playbooks/artifacts.yml", artifact_mirror_url=upstream)
    assert done.returncode != 0
    assert "Name it: -e artifacts_into=/srv/allin-artifacts" in " ".join(done.stdout.split())
    assert "undefined" not in done.stdout


def test_a_folder_that_cannot_be_filled_is_named_with_its_setting(estate: Estate, upstream: str) -> None:
    (estate.folder / "file").touch()
    into = str(estate.folder / "file/filled")
    done = estate.run("playbooks/artifacts.yml", "-e", f"artifacts_into={into}", artifact_mirror_url=upstream)
    assert done.returncode != 0
    for words in (f"its folder {into}: Not a directory", "artifacts_into: /path"):
        assert words in " ".join(done.stdout.split())


def test_where_it_is_optional_the_hosts_go_without(estate: Estate, upstream: str) -> None:
    """And the last lines say so, behind everything else that is printed."""
    (estate.folder / "upstream" / archive("prometheus", "amd64")).unlink()
    playbook = estate.folder / "play.yml"
    show = {"ansible.builtin.debug": {"msg": "left: {{ groups['prometheus_left_out'] | default('nobody') }}"}}
    playbook.write_text(
        json.dumps(
            [
                {"import_playbook": str(ROOT / "playbooks/resolve_artifacts.yml")},
                {"hosts": "prometheus:!prometheus_left_out", "gather_facts": False, "tasks": [{"fail": {}}]},
                {"hosts": "alertmanager:!alertmanager_left_out", "gather_facts": False, "tasks": [show]},
            ]
        )
    )
    done = estate.run(playbook, artifact_mirror_url=upstream, prometheus_optional=True)
    assert done.returncode == 0, done.stdout
    assert "left: [" in done.stdout or "left: ['monitor1']" in done.stdout
    last = done.stdout.rpartition("NOT DEPLOYED")[2]
    assert "prometheus 3.14.0 on monitor1" in last
    assert "404 File not found" in last
    assert "PLAY RECAP" not in last
    assert "changed=0" in done.stdout
    # A text, as behind -e; verify.yml asks before the settings are checked.
    done = estate.run(playbook, "-e", "prometheus_optional=false", artifact_mirror_url=upstream)
    assert done.returncode != 0
    assert "NOT DEPLOYED" not in done.stdout


def tiny(estate: Estate) -> tuple[Path, Path, dict[str, Any]]:
    """Give the backend one locked package, which upstream has; return its wheel, the lock and the settings for both."""
    wheel = estate.folder / "upstream/simple/tiny/tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tiny.py", "")
        packed.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        packed.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("tiny-1.0.dist-info/RECORD", "")
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    lock = estate.folder / "app/requirements/runtime.txt"
    lock.parent.mkdir(parents=True)
    lock.write_text(f"tiny==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    (lock.parents[1] / "src/allin_backend").mkdir(parents=True)
    (lock.parents[1] / "src/allin_backend/__init__.py").write_text('__version__ = "1.0"\n')
    (lock.parents[1] / "pyproject.toml").touch()
    settings = {
        "backend_source_dir": str(estate.folder / "app"),
        "artifacts_dir": str(estate.folder / "filled"),
        "artifacts_pythons": ["3.13"],
    }
    return wheel, lock, settings


def test_the_backend_s_packages_come_too(estate: Estate, upstream: str) -> None:
    """For every Python and architecture, once, and as locked."""
    estate.backends = {"app8": {}, "app9": {"allin_architecture": "arm64"}}
    wheel, lock, settings = tiny(estate)

    def fill(**more: Any) -> subprocess.CompletedProcess[str]:
        return estate.run("playbooks/artifacts.yml", "--limit", "backend", **settings, **more)

    done = fill(backend_wheels_index_url=f"{upstream}/simple")
    assert done.returncode == 0, done.stdout
    found = {path.name for path in (estate.folder / "filled/wheels").iterdir()}
    assert found == {wheel.name, "requirements-py3.13-x86_64.txt", "requirements-py3.13-aarch64.txt"}
    again = fill(backend_wheels_index_url=f"{NOWHERE}/simple")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == 2
    # What is not as locked is not taken.
    lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    assert fill(backend_wheels_index_url=f"{upstream}/simple").returncode != 0


def test_the_backend_s_packages_are_looked_for_before_any_host_is_changed(estate: Estate, upstream: str) -> None:
    """Prevents: a deployment that stops half-way because one package is not on the estate's index."""
    estate.backends = {"app8": {}, "app9": {"allin_architecture": "arm64"}}
    wheel, _, settings = tiny(estate)
    settings |= {"artifact_mirror_url": upstream, "artifacts_pythons": ["3.11", "3.13"]}
    resolve = "playbooks/resolve_artifacts.yml"

    nowhere = settings | {"backend_wheels_index_url": f"{NOWHERE}/simple"}
    done = estate.run(resolve, **nowhere)
    assert done.returncode != 0
    assert "4 artifacts that this run needs are nowhere to be had. No host was changed." in done.stdout
    for python in ("3.11", "3.13"):
        for architecture, host in (("amd64", "app8"), ("arm64", "app9")):
            assert f"{architecture}  Python packages for {python}  {host}" in done.stdout
    assert "tiny==1.0: no answer: Connection refused" in done.stdout
    assert "backend_wheels_dir: /path/wheels" in done.stdout
    release = re.findall(r"backend +(1[.]0-[0-9a-f]+) ", done.stdout)[0]
    # Others are deployed without.
    for options in (("--tags", "prometheus"), ("--skip-tags", "backend")):
        assert estate.run(resolve, *options, **nowhere).returncode == 0

    assert estate.run(resolve, **settings, backend_wheels_index_url=f"{upstream}/simple").returncode == 0
    folder = estate.folder / "wheels"
    folder.mkdir()
    in_folder = nowhere | {"backend_wheels_dir": str(folder)}
    done = estate.run(resolve, "--tags", "backend", **in_folder)
    assert done.returncode != 0
    assert "1 of 1 are not there: tiny==1.0" in done.stdout
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    done = estate.run(resolve, "--tags", "backend", **in_folder)
    assert done.returncode == 0, done.stdout

    # What an earlier run has packed is enough, and no host is asked.
    for python in ("3.11", "3.13"):
        for machine in ("x86_64", "aarch64"):
            name = f"allin-backend-{release}-wheels-and-requirements-py{python}-{machine}.tar"
            (estate.folder / "downloads/wheels").mkdir(parents=True, exist_ok=True)
            (estate.folder / "downloads/wheels" / name).touch()
    done = estate.run(resolve, "--tags", "backend", **nowhere)
    assert done.returncode == 0, done.stdout
    assert "TASK [backend : Resolve | Ask" not in done.stdout
