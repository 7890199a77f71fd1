"""Installation from archives: from a folder, from a mirror, an upgrade, and everything that must leave what runs alone.

The tests build on each other in this order: the old release is installed, survives every bad change, and is upgraded.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apis import Prometheus
from conftest import HOST, Site
from estate import run_playbook, run_site
from waiting import eventually

NAME = re.compile(r"prometheus-(?P<version>[0-9.]+)\.linux-amd64\.tar\.gz")


def versions(archives: Path) -> list[str]:
    """The versions of Prometheus in the folder, oldest first."""
    found = [match["version"] for match in map(NAME.fullmatch, (path.name for path in archives.iterdir())) if match]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def running(prometheus: Prometheus) -> str:
    return str(prometheus.api("status/buildinfo")["version"]).partition("+")[0]


def configuration(host: Any) -> str:
    """Digests of all that Prometheus reads; not of config_tree's own record of it."""
    return str(host.check_output("find /etc/prometheus -type f -not -name '.*' -exec sha256sum {} + | sort"))


def releases(host: Any) -> set[str]:
    return set(host.check_output("ls -A /opt/prometheus/releases").split())


@pytest.fixture
def mirror(archives: Path) -> Iterator[str]:
    """A web server on this machine that serves the archives by their names."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archives)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_host_has_no_way_out(host: Any) -> None:
    """Prevents: a proof without internet on a host that has it. The address is one that nobody has."""
    ask = "import socket; socket.create_connection(('192.0.2.1', 443), 5)"
    assert "Network is unreachable" in host.run(f'python3 -c "{ask}"').stderr


def test_the_folder_s_release_runs(host: Any, prometheus: Prometheus, archives: Path) -> None:
    old = versions(archives)[0]
    assert running(prometheus) == old
    assert releases(host) == {old}
    assert host.file("/opt/prometheus/current").linked_to == f"/opt/prometheus/releases/{old}"
    for service in ("prometheus", "alertmanager", "node_exporter"):
        assert host.service(service).is_running
        assert host.service(service).is_enabled


def test_a_wrong_checksum_in_the_folder_is_refused(
    site: Site, host: Any, prometheus: Prometheus, archives: Path
) -> None:
    """Prevents: an archive that somebody has replaced, running as a service on every host."""
    old, new = versions(archives)
    run = site(prometheus_version=new, prometheus_archive_sha256={"amd64": "0" * 64})
    assert run.code != 0
    assert "prometheus_archive_sha256" in run.output
    assert "No host was changed" in run.output
    assert releases(host) == {old}
    assert running(prometheus) == old


def test_a_wrong_checksum_on_the_mirror_is_refused(
    site: Site, host: Any, prometheus: Prometheus, archives: Path, mirror: str, tmp_path: Path
) -> None:
    old, new = versions(archives)
    run = site(
        prometheus_version=new,
        prometheus_archive_sha256={"amd64": "0" * 64},
        artifacts_dir="",
        artifact_mirror_url=mirror,
        artifacts_download_dir=str(tmp_path),
    )
    assert run.code != 0
    assert f"pinned is {'0' * 64}" in run.output
    assert "Nothing was unpacked" in run.output
    assert not list(tmp_path.glob("*.tar.gz"))
    assert releases(host) == {old}
    assert running(prometheus) == old


def test_a_version_without_a_pin_is_refused(site: Site, host: Any, archives: Path) -> None:
    run = site(prometheus_version="3.99.0", prometheus_archive_sha256={})
    assert run.code != 0
    assert "no SHA-256 is known for 3.99.0 on amd64" in run.output
    assert "No host was changed" in run.output
    assert releases(host) == {versions(archives)[0]}


def test_a_configuration_that_promtool_rejects_changes_nothing(
    site: Site, host: Any, prometheus: Prometheus, archives: Path
) -> None:
    """Prevents: half a configuration on disk, waiting for the next restart."""
    before = configuration(host)
    run = site(prometheus_extra_scrape_configs=[{"job_name": "broken", "no_such_key": 1}])
    assert run.code != 0
    assert "no_such_key" in run.output
    assert "/etc/prometheus/prometheus.yml" in run.output
    assert configuration(host) == before
    assert running(prometheus) == versions(archives)[0]


def broken_release(archives: Path, folder: Path, version: str) -> str:
    """Write an archive whose promtool works and whose Prometheus ends at once; return its SHA-256."""
    source = archives / f"prometheus-{versions(archives)[1]}.linux-amd64.tar.gz"
    target = folder / f"prometheus-{version}.linux-amd64.tar.gz"
    with tarfile.open(source) as old, tarfile.open(target, "w:gz", compresslevel=1) as new:
        for member in old.getmembers():
            content: Any = old.extractfile(member) if member.isfile() else None
            member.name = member.name.replace(versions(archives)[1], version)
            if member.name.endswith("/prometheus"):
                program = b"#!/bin/sh\necho this release is broken >&2\nexit 1\n"
                member.size = len(program)
                content = io.BytesIO(program)
            new.addfile(member, content)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def test_a_release_that_does_not_come_up_is_taken_back(
    site: Site, host: Any, prometheus: Prometheus, archives: Path, tmp_path: Path
) -> None:
    """Prevents: a night without monitoring after an upgrade."""
    old = versions(archives)[0]
    before = configuration(host)
    unit = host.file("/etc/systemd/system/prometheus.service").content_string
    pin = broken_release(archives, tmp_path, "9.9.9")
    run = site(
        prometheus_version="9.9.9",
        prometheus_archive_sha256={"amd64": pin},
        artifacts_dir=str(tmp_path),
        prometheus_retention_time="3d",
        prometheus_external_labels={"environment": "broken"},
    )
    assert run.code != 0
    assert "What ran before was put back and answers" in run.output
    assert "this release is broken" in run.output
    assert running(prometheus) == old
    assert host.file("/opt/prometheus/current").linked_to == f"/opt/prometheus/releases/{old}"
    assert configuration(host) == before
    assert host.file("/etc/systemd/system/prometheus.service").content_string == unit
    assert prometheus.api("status/flags")["storage.tsdb.retention.time"] in ("7d", "1w")
    # And the next good run finds nothing to mend.
    again = site()
    assert again.code == 0, again.output
    assert again.changed(HOST) == 0


def test_an_upgrade_from_a_mirror_keeps_the_data(
    site: Site, host: Any, prometheus: Prometheus, archives: Path, mirror: str, tmp_path: Path
) -> None:
    old, new = versions(archives)
    question = 'prometheus_build_info{job="prometheus"}'
    eventually(lambda: prometheus.query(question), within=30, what="a sample of the old release")
    moment = str(time.time())
    before = prometheus.api("query", query=question, time=moment)
    assert before["result"][0]["metric"]["version"].startswith(old)
    run = site(
        prometheus_version=new,
        artifacts_dir="",
        artifact_mirror_url=mirror,
        artifacts_download_dir=str(tmp_path),
    )
    assert run.code == 0, run.output
    assert running(prometheus) == new
    assert prometheus.api("query", query=question, time=moment) == before
    # The previous release stays for the way back; the broken one is neither current nor previous.
    assert releases(host) == {old, new}


def test_a_second_run_changes_nothing_and_needs_no_archive(site: Site, archives: Path, tmp_path: Path) -> None:
    new = versions(archives)[1]
    run = site(prometheus_version=new, artifacts_dir=str(tmp_path), artifact_mirror_url="http://127.0.0.1:9")
    assert run.code == 0, run.output
    assert run.changed(HOST) == 0


def test_a_reinstallation_keeps_the_data(site: Site, host: Any, prometheus: Prometheus, archives: Path) -> None:
    new = versions(archives)[1]
    eventually(lambda: prometheus.query("up"), within=30, what="a sample")
    moment = str(time.time())
    before = prometheus.api("query", query="up", time=moment)
    host.check_output("systemctl stop prometheus && rm -rf /opt/prometheus /etc/systemd/system/prometheus.service")
    run = site(prometheus_version=new)
    assert run.code == 0, run.output
    assert prometheus.api("query", query="up", time=moment) == before


def test_a_folder_that_was_filled_serves_a_new_host(site: Site, host: Any, mirror: str, tmp_path: Path) -> None:
    """What playbooks/artifacts.yml brought from somewhere else is all that an estate needs, where nothing answers."""
    nowhere = {"artifact_mirror_url": "http://127.0.0.1:9", "artifacts_download_dir": str(tmp_path / "downloads")}
    variables = {"artifacts_dir": "", "artifact_mirror_url": mirror, "artifacts_into": str(tmp_path / "filled")}
    filled = run_playbook("playbooks/artifacts.yml", "--extra-vars", json.dumps(nowhere | variables))
    assert filled.code == 0, filled.output
    host.check_output("systemctl stop node_exporter && rm -rf /opt/node_exporter")
    run = run_site(
        "--tags", "node_exporter", "--extra-vars", json.dumps(nowhere | {"artifacts_dir": variables["artifacts_into"]})
    )
    assert run.code == 0, run.output
    assert host.service("node_exporter").is_running
