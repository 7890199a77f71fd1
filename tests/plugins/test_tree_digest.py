"""The lookup `tree_digest`: what must not change a release id, and what must."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader

from plugins.lookup import tree_digest as plugin

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "plugins" / "lookup" / "tree_digest.py"


def digest(*paths: Path) -> str:
    """Return the digest of the paths."""
    return str(plugin.tree_digest(list(paths)))


def make_app(parent: Path) -> Path:
    """Make a small application below `parent`."""
    app = parent / "app"
    (app / "src" / "pkg").mkdir(parents=True)
    (app / "src" / "pkg" / "a.py").write_text("a = 1\n")
    (app / "src" / "pkg" / "b.py").write_text("")
    (app / "src" / "é.txt").write_text("é")
    (app / "src" / "link").symlink_to("pkg/a.py")
    (app / "pyproject.toml").write_text("[project]\n")
    return app


def paths_of(app: Path) -> list[Path]:
    """Return what a release is made of."""
    return [app / "src", app / "pyproject.toml"]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A small application."""
    return make_app(tmp_path)


def touch(app: Path) -> None:
    os.utime(app / "src" / "pkg" / "a.py", (1, 1))


def other_modes(app: Path) -> None:
    (app / "src" / "pkg" / "a.py").chmod(0o600)
    (app / "src" / "pkg").chmod(0o700)


def add_bytecode(app: Path) -> None:
    (app / "src" / "pkg" / "__pycache__").mkdir()
    (app / "src" / "pkg" / "__pycache__" / "a.py").write_text("x")
    (app / "src" / "pkg" / "a.pyc").write_text("x")


def add_egg_info(app: Path) -> None:
    (app / "src" / "pkg.egg-info").mkdir()
    (app / "src" / "pkg.egg-info" / "PKG-INFO").write_text("x")


def add_dot_directory(app: Path) -> None:
    (app / "src" / ".mypy_cache").mkdir()
    (app / "src" / ".mypy_cache" / "x.json").write_text("x")


def add_empty_directory(app: Path) -> None:
    (app / "src" / "empty").mkdir()


@pytest.mark.parametrize(
    "change", [touch, other_modes, add_bytecode, add_egg_info, add_dot_directory, add_empty_directory]
)
def test_what_git_does_not_keep_changes_nothing(app: Path, change: Callable[[Path], None]) -> None:
    before = digest(*paths_of(app))
    change(app)
    assert digest(*paths_of(app)) == before


def edit(app: Path) -> None:
    (app / "src" / "pkg" / "a.py").write_text("a = 2\n")


def edit_last(app: Path) -> None:
    (app / "pyproject.toml").write_text("[project]\nname = 'x'\n")


def rename(app: Path) -> None:
    (app / "src" / "pkg" / "b.py").rename(app / "src" / "pkg" / "c.py")


def move(app: Path) -> None:
    (app / "src" / "pkg" / "b.py").rename(app / "src" / "b.py")


def remove(app: Path) -> None:
    (app / "src" / "pkg" / "b.py").unlink()


def add_dot_file(app: Path) -> None:
    (app / "src" / ".env").write_text("x")


def point_elsewhere(app: Path) -> None:
    (app / "src" / "link").unlink()
    (app / "src" / "link").symlink_to("pkg/b.py")


def link_becomes_file(app: Path) -> None:
    (app / "src" / "link").unlink()
    (app / "src" / "link").write_text("pkg/a.py")


def shift_between_name_and_content(app: Path) -> None:
    (app / "src" / "pkg" / "b.py").unlink()
    (app / "src" / "pkg" / "a.py").rename(app / "src" / "pkg" / "a.pya = 1")


@pytest.mark.parametrize(
    "change",
    [
        edit,
        edit_last,
        rename,
        move,
        remove,
        add_dot_file,
        point_elsewhere,
        link_becomes_file,
        shift_between_name_and_content,
    ],
)
def test_what_is_released_changes_the_digest(app: Path, change: Callable[[Path], None]) -> None:
    before = digest(*paths_of(app))
    change(app)
    assert digest(*paths_of(app)) != before


def test_the_digest_is_the_same_wherever_the_tree_is(tmp_path: Path, app: Path) -> None:
    elsewhere = make_app(tmp_path / "another" / "place")
    assert digest(*paths_of(elsewhere)) == digest(*paths_of(app))


def test_the_order_in_which_a_directory_is_read_does_not_count(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(app / "src")
    walk = plugin.walk
    monkeypatch.setattr(plugin, "walk", lambda root: sorted(walk(root), reverse=True))
    assert digest(app / "src") == before


def test_a_known_tree_keeps_its_digest(tmp_path: Path) -> None:
    """A new way to compute the digest would give every host a new release without any change of the source."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    (tmp_path / "src" / "link").symlink_to("a.py")
    assert digest(tmp_path / "src") == "465341906aa7"


def test_a_link_as_the_path_itself_is_followed(app: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "src").symlink_to(app / "src")
    (tmp_path / "elsewhere" / "pyproject.toml").symlink_to(app / "pyproject.toml")
    assert digest(*paths_of(tmp_path / "elsewhere")) == digest(*paths_of(app))


def test_a_link_that_leads_nowhere_is_content(app: Path) -> None:
    (app / "src" / "broken").symlink_to("nowhere")
    assert len(digest(app / "src")) == 12


@pytest.mark.parametrize("terms", [["src", "missing.toml"], ["missing"]])
def test_a_missing_path_is_an_error(app: Path, terms: list[str]) -> None:
    with pytest.raises(AnsibleLookupError, match=r"missing.* does not exist; check the path"):
        digest(*(app / term for term in terms))


def test_a_tree_without_any_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    with pytest.raises(AnsibleLookupError, match="holds no file"):
        digest(tmp_path / "src")


def test_a_pipe_is_an_error(app: Path) -> None:
    os.mkfifo(app / "src" / "pipe")
    with pytest.raises(AnsibleLookupError, match=r"pipe is neither a file"):
        digest(app / "src")


@pytest.mark.parametrize(
    ("terms", "message"), [([], "at least one"), ([None], "is not a path"), ([""], "is not a path")]
)
def test_what_is_no_path_is_an_error(terms: list[object], message: str) -> None:
    lookup = plugin.LookupModule(loader=DataLoader())
    lookup.set_options = lambda **_: None
    with pytest.raises(AnsibleLookupError, match=message):
        lookup.run(terms)


COMPUTE = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("plugin", sys.argv[1])
plugin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plugin)
print(plugin.tree_digest([pathlib.Path(path) for path in sys.argv[2:]]))
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_locale_and_the_umask_do_not_count(app: Path, locale: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, SOURCE, *paths_of(app)],
        env={"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        umask=0o077,
    )
    assert done.stdout.strip() == digest(*paths_of(app))


def test_ansible_gives_the_digest(app: Path) -> None:
    """Through Ansible itself, one path relative to the playbook."""
    (app.parent / "play.yml").write_text(
        "- {hosts: localhost, gather_facts: false, tasks: [{ansible.builtin.debug: {msg: "
        "\"<{{ query('tree_digest', 'app/src', playbook_dir ~ '/app/pyproject.toml') | join }}>\"}}]}\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "play.yml"],
        cwd=app.parent,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(app.parent),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_LOOKUP_PLUGINS": str(SOURCE.parent),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"<{digest(*paths_of(app))}>" in done.stdout, done.stdout + done.stderr
