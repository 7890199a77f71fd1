"""`artifacts` and `missing_artifacts`: where an archive is, how it comes, and what is said when it does not."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from plugins.action import artifacts
from plugins.action.artifacts import (
    INDEX,
    SUMS,
    FolderError,
    MissingError,
    Wanted,
    collect,
    download,
    fetch,
    find,
    merged,
)
from plugins.action.missing_artifacts import cures, lacking, table, ways
from plugins.callback.left_out import lines

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "prometheus-3.14.0.linux-amd64.tar.gz"


class Server(ThreadingHTTPServer):
    """A web server that serves CONTENT as NAME, and can misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.asked: list[tuple[str, str]] = []
        self.statuses: list[int] = []
        self.cut = 0
        self.ranges = True
        self.kind = "application/octet-stream"
        self.refuses_head = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the server says."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's signature
        return

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.command, wanted))
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        if self.command == "HEAD" and self.server.refuses_head:
            self.send_error(405)
            return
        if not self.path.endswith(NAME):
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            if self.server.cut:
                body, self.server.cut = body[: self.server.cut], 0
            self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "pause", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    artifacts.sha256_of.cache_clear()


def wanted(tmp_path: Path, **more: Any) -> Wanted:
    """Prometheus' archive for one host, of which nobody has a copy."""
    settings: dict[str, Any] = {
        "file": NAME,
        "url": f"http://127.0.0.1:9/{NAME}",
        "sha256": SHA256,
        "role": "prometheus",
        "version": "3.14.0",
        "architecture": "amd64",
        "pin": "prometheus_archive_sha256",
        "folder": str(tmp_path / "folder"),
        "downloads": str(tmp_path / "downloads"),
        "hosts": ["monitor1"],
    } | more
    return Wanted(**settings)


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- Where is it? -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "downloads"])
def test_what_is_on_the_controller_is_found_and_nobody_is_asked(server: Server, tmp_path: Path, place: str) -> None:
    path = put(tmp_path / place / NAME)
    one = wanted(tmp_path, url=f"{server.url}/{NAME}")
    find([one])
    assert (one.found, one.path) == (True, str(path))
    assert server.asked == []


def test_another_file_in_the_folder_is_refused_and_not_passed_over(server: Server, tmp_path: Path) -> None:
    """Prevents: an archive that somebody has replaced and nobody hears of."""
    put(tmp_path / "folder" / NAME, b"something else")
    put(tmp_path / "downloads" / NAME)
    one = wanted(tmp_path, url=f"{server.url}/{NAME}")
    find([one])
    assert not one.found
    assert one.looked[-1][1].endswith(f"pinned is {SHA256} (prometheus_archive_sha256)")
    assert server.asked == []


def renamed(tmp_path: Path, **more: Any) -> Wanted:
    return wanted(tmp_path, other_names=["prometheus_3.14.0_[0-9]*_linux_amd64.tar.gz"], **more)


OTHER_NAME = "prometheus_3.14.0_24388279614_linux_amd64.tar.gz"


def test_the_folder_may_have_it_by_another_name(server: Server, tmp_path: Path) -> None:
    """Prevents: an archive that is in the folder as it was downloaded, and is told to be missing."""
    put(tmp_path / "folder" / "prometheus_3.14.0_1_linux_amd64.tar.gz", b"another build")
    path = put(tmp_path / "folder" / OTHER_NAME)
    one = renamed(tmp_path, mirror=server.url)
    find([one])
    assert (one.found, one.path) == (True, str(path))
    assert server.asked == []
    # By its own name it is preferred, and it must be as pinned by another name too.
    own = put(tmp_path / "folder" / NAME)
    assert renamed(tmp_path).look_here()
    artifacts.sha256_of.cache_clear()
    own.unlink()
    put(path, b"something else")
    other = renamed(tmp_path, mirror=server.url)
    find([other])
    assert not other.found
    assert f"{path} has the SHA-256 " in artifacts.complaint(other)
    assert server.asked == []


@pytest.mark.parametrize("place", ["folder", "filled"])
def test_a_filled_folder_has_it_by_the_name_that_is_asked_for(server: Server, tmp_path: Path, place: str) -> None:
    """Prevents: a mirror that has the archive by another name than the roles ask for."""
    put(tmp_path / place / OTHER_NAME)
    assert collect([renamed(tmp_path, mirror=server.url)], tmp_path / "filled", lambda _: None)
    assert (tmp_path / "filled" / NAME).read_bytes() == CONTENT
    assert server.asked == []


def test_a_damaged_download_is_no_find(server: Server, tmp_path: Path) -> None:
    put(tmp_path / "downloads" / NAME, CONTENT[:100])
    one = wanted(tmp_path, mirror=server.url)
    find([one])
    assert one.found
    assert not one.path
    assert server.asked == [("HEAD", "")]


def test_the_mirror_is_asked_instead_of_upstream(server: Server, tmp_path: Path) -> None:
    one = wanted(tmp_path, mirror=f"{server.url}/deep/")
    find([one])
    assert one.looked[-1] == (f"mirror {server.url}/deep/{NAME}", "has it (1.0 MB)")


def test_a_mirror_that_knows_no_head_is_asked_by_get(server: Server, tmp_path: Path) -> None:
    server.refuses_head = True
    one = wanted(tmp_path, mirror=server.url)
    find([one])
    assert one.found
    assert [method for method, _ in server.asked] == ["HEAD", "GET"]


def test_a_web_page_is_no_archive(server: Server, tmp_path: Path) -> None:
    """Prevents: the page of a firewall or a login taken for the file."""
    server.kind = "text/html; charset=utf-8"
    one = wanted(tmp_path, mirror=server.url)
    find([one])
    assert not one.found
    assert one.looked[-1][1] == "a web page instead of the file"


def test_it_says_where_it_looked_and_what_came_back(server: Server, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    one, other = wanted(tmp_path), wanted(tmp_path, file="grafana.tar.gz", mirror=server.url, folder="")
    find([one, other])
    assert one.looked == [
        (f"folder (artifacts_dir) {tmp_path / 'folder'}", "no such folder"),
        (f"earlier downloads {tmp_path / 'downloads'}", "no such file"),
        (f"upstream http://127.0.0.1:9/{NAME}", "no answer: Connection refused"),
    ]
    assert other.looked[0] == ("folder (artifacts_dir)", "none is named")
    assert other.looked[-1] == (f"mirror {server.url}/grafana.tar.gz", "404 Not Found")


def test_nothing_is_taken_without_a_pin(server: Server, tmp_path: Path) -> None:
    put(tmp_path / "folder" / NAME)
    one = wanted(tmp_path, sha256="", mirror=server.url)
    find([one])
    assert not one.found
    assert one.looked == [("pin (prometheus_archive_sha256)", "no SHA-256 is known for 3.14.0 on amd64")]
    assert "prometheus_archive_sha256: {amd64: <64 hex digits of" in artifacts.complaint(one)
    known = wanted(
        tmp_path, sha256="", sums="https://user:secret@example.com/sha256sums.txt", pinned=["3.13.0", "3.15.0"]
    )
    find([known])
    assert "publishes it at https://example.com/sha256sums.txt" in artifacts.complaint(known)
    assert "prometheus_version: 3.13.0 or 3.15.0" in artifacts.complaint(known)


def test_a_password_in_an_address_is_not_shown(server: Server, tmp_path: Path) -> None:
    address = server.url.replace("//", "//reader:secret@")
    one = wanted(tmp_path, mirror=address)
    find([one])
    assert one.found
    assert "secret" not in str(one.looked)


def test_one_name_with_two_pins_is_refused(tmp_path: Path) -> None:
    one, same, other = wanted(tmp_path), wanted(tmp_path, hosts=["monitor2"]), wanted(tmp_path, sha256="0" * 64)
    assert [each.hosts for each in merged([one, same])] == [["monitor1", "monitor2"]]
    with pytest.raises(AnsibleActionFail, match="has two pins"):
        merged([one, other])


# --- How it comes -----------------------------------------------------------------------------------------------------


def test_a_download_is_verified_and_kept(server: Server, tmp_path: Path) -> None:
    one = wanted(tmp_path, mirror=server.url)
    assert fetch([one], lambda _: None)
    target = tmp_path / "downloads" / NAME
    assert one.path == str(target)
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644
    again = wanted(tmp_path, mirror=server.url)
    assert not fetch([again], lambda _: None)
    assert len(server.asked) == 1


def test_another_content_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    one = wanted(tmp_path, mirror=server.url)
    assert not fetch([one], lambda _: None)
    assert "pinned is" in artifacts.complaint(one)
    assert "Nothing was unpacked" in artifacts.complaint(one)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path) -> None:
    put(tmp_path / f".{NAME}.partial", CONTENT[:1000])
    download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == [("GET", "bytes=1000-")]


def test_a_connection_that_breaks_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut = 2000
    download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert server.asked == [("GET", ""), ("GET", "bytes=2000-")]


def test_what_another_file_s_download_has_left_is_thrown_away(server: Server, tmp_path: Path) -> None:
    put(tmp_path / f".{NAME}.partial", b"x" * 1000)
    download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == [("GET", "bytes=1000-"), ("GET", "")]


def test_more_than_there_is_is_thrown_away(server: Server, tmp_path: Path) -> None:
    put(tmp_path / f".{NAME}.partial", CONTENT + b"more")
    download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_sends_it_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    put(tmp_path / f".{NAME}.partial", CONTENT[:1000])
    download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert len(server.asked) == 4


@pytest.mark.parametrize(("statuses", "asked", "said"), [([404], 1, "404 Not Found"), ([503] * 9, 4, "503 Service")])
def test_what_does_not_pass_is_told(server: Server, tmp_path: Path, statuses: list[int], asked: int, said: str) -> None:
    server.statuses = statuses
    with pytest.raises(MissingError, match=said):
        download(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)
    assert len(server.asked) == asked
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_download_it_once(server: Server, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=download, args=(f"{server.url}/{NAME}", tmp_path / NAME, SHA256)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert len(server.asked) == 1


def test_a_full_disk_is_told_at_once_and_as_what_it_is(server: Server, tmp_path: Path) -> None:
    """Prevents: upstream blamed, and asked four times, for the controller's full disk."""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f".{NAME}.partial").symlink_to("/dev/full")
    one = wanted(tmp_path, mirror=server.url)
    with pytest.raises(FolderError, match=f"^{tmp_path / 'downloads'}: No space left on device$"):
        fetch([one], lambda _: None)
    assert server.asked == [("GET", "")]


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    """Prevents: "Not a directory", and nobody knows which."""
    below = put(tmp_path / "file") / "below"
    one = wanted(tmp_path, mirror=server.url, downloads=str(below))
    with pytest.raises(FolderError, match=f"^{below}: Not a directory$"):
        fetch([one], lambda _: None)
    put(tmp_path / "folder" / NAME)
    with pytest.raises(FolderError, match=f"^{below}: Not a directory$"):
        collect([wanted(tmp_path)], below, lambda _: None)
    assert server.asked == []


# --- A folder for an estate -------------------------------------------------------------------------------------------


def test_a_folder_is_filled_and_described(server: Server, tmp_path: Path) -> None:
    into = tmp_path / "filled"
    assert collect([wanted(tmp_path, mirror=server.url)], into, lambda _: None)
    assert sorted(path.name for path in into.iterdir()) == [INDEX, SUMS, NAME]
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=into, check=True, capture_output=True)
    assert (
        f"| `{NAME}` | prometheus | 3.14.0 | amd64 | 1.0 MB | http://127.0.0.1:9/{NAME} |" in (into / INDEX).read_text()
    )
    # It is what it is made for: a folder, and a mirror.
    found = wanted(tmp_path, folder=str(into))
    find([found])
    assert found.path == str(into / NAME)


def test_filling_it_again_changes_nothing_and_asks_nobody(server: Server, tmp_path: Path) -> None:
    into = tmp_path / "filled"
    collect([wanted(tmp_path, mirror=server.url)], into, lambda _: None)
    before = {path: path.stat().st_mtime_ns for path in into.iterdir()}
    server.asked.clear()
    assert not collect([wanted(tmp_path, mirror=server.url)], into, lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in into.iterdir()} == before
    assert server.asked == []


def test_what_is_on_the_controller_is_copied(server: Server, tmp_path: Path) -> None:
    put(tmp_path / "downloads" / NAME)
    assert collect([wanted(tmp_path, mirror=server.url)], tmp_path / "filled", lambda _: None)
    assert (tmp_path / "filled" / NAME).read_bytes() == CONTENT
    assert server.asked == []


def test_what_earlier_runs_brought_stays_in_the_lists(server: Server, tmp_path: Path) -> None:
    """Prevents: amd64 missing from the lists after a run for arm64."""
    into = tmp_path / "filled"
    collect([wanted(tmp_path, mirror=server.url)], into, lambda _: None)
    arm = NAME.replace("amd64", "arm64")
    put(tmp_path / "downloads" / arm)
    collect([wanted(tmp_path, file=arm, architecture="arm64")], into, lambda _: None)
    assert [line.split()[1] for line in (into / SUMS).read_text().splitlines()] == [NAME, arm]
    assert (into / INDEX).read_text().count("| `prometheus") == 2
    (into / NAME).unlink()
    collect([wanted(tmp_path, file=arm, architecture="arm64")], into, lambda _: None)
    assert (into / INDEX).read_text().count("| `prometheus") == 1


def test_a_file_of_that_name_with_another_content_is_left_and_told(server: Server, tmp_path: Path) -> None:
    """Prevents: an archive of somebody's own build overwritten."""
    target = put(tmp_path / "filled" / NAME, b"my own build")
    one = wanted(tmp_path, mirror=server.url)
    assert not collect([one], target.parent, lambda _: None)
    assert not one.found
    assert target.read_bytes() == b"my own build"


# --- What is said -----------------------------------------------------------------------------------------------------


def looked(tmp_path: Path, **more: Any) -> dict[str, Any]:
    one = wanted(tmp_path, **more)
    find([one])
    return one.public()


def test_who_has_it_unpacked_needs_no_archive(tmp_path: Path) -> None:
    """Prevents: a way back that is refused because the mirror is down."""
    one = looked(tmp_path, hosts=["a", "b", "c"])
    answers = {"a": {"releases": {"prometheus": ["3.13.0", "3.14.0"]}}, "b": {"releases": {"prometheus": ["3.13.0"]}}}
    assert lacking([one], answers)[0]["hosts"] == ["b", "c"]
    assert lacking([one], dict.fromkeys("abc", answers["a"])) == []
    assert lacking([{**one, "found": True}], {}) == []


def test_the_table_has_everything(tmp_path: Path) -> None:
    text = table([looked(tmp_path, hosts=["a", "b", "c", "d", "e"])])
    assert text[0].split() == ["ROLE", "VERSION", "ARCH", "FILE", "FOR", "LOOKED", "IN", "CAME", "BACK"]
    assert text[1].split()[:4] == ["prometheus", "3.14.0", "amd64", NAME]
    assert "a, b, c and 2 more" in text[1]
    assert text[1].endswith("no such folder")
    # The file's name is not said again in the address.
    assert " upstream http://127.0.0.1:9 " in text[-1]
    assert text[-1].endswith("no answer: Connection refused")


def test_the_ways_name_what_can_be_written(tmp_path: Path) -> None:
    text = "\n".join(ways([looked(tmp_path)]))
    for words in (
        "playbooks/artifacts.yml",
        "artifacts_dir: ",
        "artifact_mirror_url: ",
        "prometheus_install_method: package",
    ):
        assert words in text
    # There is no such package.
    grafana = "\n".join(ways([looked(tmp_path, role="grafana")]))
    assert "install_method" not in grafana
    assert "grafana_version" in grafana


def test_without_a_pin_it_says_what_to_write(tmp_path: Path) -> None:
    """Prevents: ways to supply an archive that all end at the same missing pin."""
    sums = "https://dl.example.com/grafana-12.9.9.linux-{}.tar.gz.sha256"
    unpinned = [
        looked(
            tmp_path, role="grafana", version="12.9.9", sha256="", pin="grafana_archive_sha256",
            architecture=architecture, file=f"grafana-{architecture}.tar.gz", sums=sums.format(architecture),
            pinned=pinned,
        )
        for architecture, pinned in (("arm64", ["12.4.2"]), ("amd64", ["12.4.2", "12.4.1"]))
    ]  # fmt: skip
    text = "\n".join(cures(unpinned))
    for words in (
        "grafana_archive_sha256: {amd64: <64 hex digits>, arm64: <64 hex digits>}",
        sums.format("amd64"),
        sums.format("arm64"),
        "grafana_version: 12.4.2",
    ):
        assert words in text
    # It has no pin for one of them.
    assert "12.4.1" not in text
    assert "artifacts.yml" not in text
    both = "\n".join(cures([*unpinned, looked(tmp_path)]))
    assert "grafana_archive_sha256: {" in both
    assert "prometheus_install_method: package" in both
    assert "grafana_version: 12.4.2" in both
    nobody = "\n".join(cures([looked(tmp_path, sha256="")]))
    assert "sha256sum" in nobody


def test_the_last_lines_say_what_is_not_there_and_why() -> None:
    one = {"role": "grafana", "version": "12.4.0", "file": "g.tar.gz", "hosts": ["x"], "why": "mirror: 404 Not Found"}
    text = "\n".join(lines([one]))
    for words in ("NOT DEPLOYED", "grafana 12.4.0 on x: g.tar.gz", "404 Not Found"):
        assert words in text
