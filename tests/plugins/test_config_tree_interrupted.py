"""`config_tree` killed at every step and at random moments, while others read and write in the same directory.

Whatever happens, a reader finds the complete old tree or the complete new one, no foreign file is lost, and the next
run puts everything in order.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.config_tree_helpers import MANIFEST, Driver, Reader, arguments, staged_of, store_of, tree

OLD = {"main.yml": "old\n", "rules/a.yml": "old a\n", "rules/gone/b.yml": "old b\n", "same.yml": "same\n"}
NEW = {"main.yml": "new\n" * 50, "rules/a.yml": "new a\n", "file_sd/c.yml": "new c\n", "same.yml": "same\n"}
STABLE = ["certificates/key.pem", "link", "notes.txt"]
METHODS = pytest.mark.parametrize("exchange_error", ["", "EINVAL"], ids=["exchange", "renames"])


@pytest.fixture
def driver() -> Iterator[Driver]:
    """A process that forks module runs."""
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tree will be; the parent has nothing else in it."""
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "app"


def add_foreign(path: Path) -> None:
    """Put files into the tree that the module never managed."""
    (path / "certificates").mkdir()
    (path / "certificates" / "key.pem").write_text("key\n")
    (path / "notes.txt").write_text("mine\n")
    (path / "link").symlink_to("notes.txt")


def managed(path: Path) -> dict[str, str]:
    """Return what is there of the files that old or new tree manage."""
    return {rel: content for rel, content in tree(path).items() if rel in OLD or rel in NEW}


def foreign(path: Path) -> dict[str, str]:
    """Return the rest."""
    return {rel: content for rel, content in tree(path).items() if rel not in OLD and rel not in NEW}


def leftovers(path: Path) -> set[str]:
    """Return what is beside the tree, except for what may be there."""
    beside = {entry.name for entry in path.parent.iterdir()} - {path.name, store_of(path).name}
    store = store_of(path)
    return beside | ({entry.name for entry in store.iterdir()} if store.exists() else set()) - {"previous", "rejected"}


def window(number: int) -> dict[str, Any]:
    """Return what others do in the moment before the switch: all kinds of change to files of theirs."""
    return {
        "before 1": [
            ["write", "swapped", f"second {number}"],
            ["write", f"made/new-{number}", "new"],
            ["unlink", "deleted"],
            ["rename", "draft", "final"],
            ["rmdir", "emptied"],
            ["write", "emptied", "a file now"],
        ]
    }


def set_window(path: Path) -> None:
    """Make the files that `window` changes."""
    for rel in ("swapped", "deleted", "draft"):
        (path / rel).write_text(f"first {rel}")
    (path / "final").unlink(missing_ok=True)
    if (path / "emptied").is_file():
        (path / "emptied").unlink()
    (path / "emptied").mkdir(exist_ok=True)
    if (path / "made").exists():
        remove(path / "made")


def interfered(path: Path, number: int) -> bool:
    """Whether the others of `window` had their turn before the module was killed."""
    places = (path, staged_of(path), store_of(path) / "parked")
    return any((tree / "swapped").read_text() == f"second {number}" for tree in places if (tree / "swapped").exists())


def check_window(path: Path, number: int) -> None:
    """Check that the live tree has what `window` made, and nothing that it took away."""
    found = foreign(path)
    assert found["swapped"] == f"second {number}"
    assert found[f"made/new-{number}"] == "new"
    assert found["final"] == "first draft"
    assert found["emptied"] == "a file now"
    assert not {"deleted", "draft", "swapped.draft"} & found.keys()


@METHODS
@pytest.mark.parametrize("keep_previous", [True, False], ids=["keep", "drop"])
def test_killed_at_each_step(path: Path, driver: Driver, exchange_error: str, keep_previous: bool) -> None:
    """Every prefix of the steps of a switch, with foreign changes in the window between staging and switch."""
    how = {"exchange_error": exchange_error}
    old = arguments(path, OLD, keep_previous=keep_previous)
    new = arguments(path, NEW, keep_previous=keep_previous)
    driver.run(old, **how)
    add_foreign(path)
    reader = Reader(path, [OLD, NEW], STABLE, may_be_missing=bool(exchange_error))
    states = {"old": 0, "new": 0, "missing": 0}
    forgotten = 0
    number = 0
    while True:
        number += 1
        set_window(path)
        before = foreign(path)
        answer = driver.ask(new, kill_at=number, moments=window(number), **how)
        if not answer["signal"]:
            break
        assert answer["signal"] == signal.SIGKILL
        if not path.exists():
            assert exchange_error, "the path is missing"
            states["missing"] += 1
        else:
            assert managed(path) in (OLD, NEW)
            states["old" if managed(path) == OLD else "new"] += 1
        others = interfered(path, number)

        # Nobody has reported the change yet, so this run must, or the service would never be reloaded. Only where
        # nothing is kept there is a last step (removing the empty store) after which nothing is left to tell.
        store = store_of(path)
        told = managed(path) == NEW and store.exists() and not any(store.iterdir()) and not keep_previous
        forgotten += told
        if number % 5 == 0 and not told:
            assert driver.run({**new, "_ansible_check_mode": True}, **how)["changed"]
        assert driver.run(new, **how)["changed"] != told
        assert managed(path) == NEW
        if others:
            check_window(path, number)
        else:
            assert foreign(path) == before
        assert leftovers(path) == set(), number
        if number % 5 == 0:
            assert not driver.run(new, **how)["changed"]
        driver.run(old, **how)
        assert managed(path) == OLD
    assert managed(path) == NEW
    check_window(path, number)
    seen = reader.stop()
    assert seen["bad"] == []
    assert all(seen["seen"]), seen
    assert forgotten == (not keep_previous)
    assert states["old"] > 30
    assert states["new"] > 5
    assert bool(states["missing"]) == bool(exchange_error)


@METHODS
def test_killed_at_each_step_of_a_rollback(path: Path, driver: Driver, exchange_error: str) -> None:
    how = {"exchange_error": exchange_error}
    back = arguments(path, state="previous")
    driver.run(arguments(path, OLD), **how)
    add_foreign(path)
    driver.run(arguments(path, NEW), **how)
    reader = Reader(path, [OLD, NEW], STABLE, may_be_missing=bool(exchange_error))
    number = 0
    while True:
        number += 1
        set_window(path)
        answer = driver.ask(back, kill_at=number, moments=window(number), **how)
        if not answer["signal"]:
            break
        if path.exists():
            assert managed(path) in (OLD, NEW)
        others = interfered(path, number)
        result = driver.run(back, **how)
        assert result["changed"]
        assert managed(path) == OLD
        assert leftovers(path) == set(), number
        assert set(STABLE) <= foreign(path).keys()
        if others:
            check_window(path, number)
        again = driver.run(back, **how)
        assert not again["changed"]
        assert again["previous"] is None
        assert managed(store_of(path) / "rejected") == NEW
        driver.run(arguments(path, NEW), **how)
    check_window(path, number)
    seen = reader.stop()
    assert seen["bad"] == []
    assert all(seen["seen"]), seen


@METHODS
def test_killed_at_each_step_with_secrets(path: Path, driver: Driver, exchange_error: str) -> None:
    """What last worked is neither lost nor replaced by what never did; the next run says that something is open."""
    how = {"exchange_error": exchange_error}
    secret: dict[str, Any] = {"until_proven": True}
    old, new, newer = (arguments(path, files, **secret) for files in (OLD, NEW, {"main.yml": "newer\n"}))
    back, proven = arguments(path, state="previous", **secret), arguments(path, state="proven")
    previous = store_of(path) / "previous"
    driver.run(old, **how)
    for second in (new, newer):
        number = 0
        while True:
            number += 1
            if second is newer:
                driver.run(new, **how)
            answer = driver.ask(second, kill_at=number, **how)
            if not answer["signal"]:
                break
            foreseen = driver.run({**second, "_ansible_check_mode": True}, **how)
            result = driver.run(second, **how)
            assert (result["changed"] or result["unproven"]) == (foreseen["changed"] or foreseen["unproven"])
            assert result["changed"] or result["unproven"], number
            assert result["previous"] == str(previous)
            assert managed(previous) == OLD
            assert store_of(path).stat().st_mode & 0o777 == 0o700
            assert leftovers(path) == set(), number

            if number % 2:
                driver.ask(proven, kill_at=number // 2, **how)
                driver.run(proven, **how)
                driver.run(old, **how)
                driver.run(proven, **how)
            else:
                driver.ask(back, kill_at=number // 2, **how)
                if managed(path) != OLD or store_of(path).exists():
                    driver.run(back, **how)
            assert managed(path) == OLD
            assert [entry.name for entry in path.parent.iterdir()] == [path.name], number
        driver.run(back, **how)


def test_killed_at_each_step_of_a_first_install(path: Path, driver: Driver) -> None:
    number, unreported = 0, 0
    new = arguments(path / "deep" / "tree", NEW)
    target = path / "deep" / "tree"
    while True:
        number += 1
        answer = driver.ask(new, kill_at=number)
        if not answer["signal"]:
            break
        assert not target.exists() or tree(target) == NEW
        result = driver.run(new)
        unreported += not result["changed"]
        assert result["previous"] is None
        assert tree(target) == NEW
        assert [entry.name for entry in target.parent.iterdir()] == [target.name]
        assert not driver.run(new)["changed"]
        remove(path)
    # The very last step removes the directory that had the journal; nothing is left then to tell of the switch.
    assert unreported == 1
    assert number > 20


def remove(path: Path) -> None:
    """Delete a tree made of files and directories."""
    for entry in sorted(path.rglob("*"), reverse=True):
        (entry.rmdir if entry.is_dir() and not entry.is_symlink() else entry.unlink)()
    path.rmdir()


@pytest.mark.parametrize(
    ("moment", "exchange_error"),
    [
        ("half staged", ""),
        ("before the switch", ""),
        ("before the switch", "EINVAL"),
        ("path missing", "EINVAL"),
        ("after the switch", ""),
        ("after the switch", "EINVAL"),
    ],
)
def test_the_recovery_killed_at_each_step(path: Path, driver: Driver, moment: str, exchange_error: str) -> None:
    """A second kill, while the next run finishes or undoes what the first one has left."""
    how = {"exchange_error": exchange_error}
    old, new = arguments(path, OLD), arguments(path, NEW)
    driver.run(old, **how)
    add_foreign(path)
    driver.run(new, **how)

    def reached() -> bool:
        if moment == "path missing":
            return not path.exists()
        if moment == "after the switch":
            return path.exists() and managed(path) == NEW
        if moment == "before the switch":
            return (store_of(path) / "journal").exists()
        return (staged_of(path) / MANIFEST).exists()

    def interrupt(number: int) -> None:
        driver.run(old, **how)
        set_window(path)
        driver.ask(new, kill_at=number, moments=window(1), **how)

    first = 0
    while not first or not reached():
        first += 1
        interrupt(first)
    number = 0
    while True:
        number += 1
        interrupt(first)
        wanted = NEW if moment == "after the switch" else OLD
        others = interfered(path, 1)
        before = foreign(path) if path.exists() else foreign(store_of(path) / "parked")
        answer = driver.ask(arguments(path, wanted), kill_at=number, **how)
        if path.exists():
            assert managed(path) == wanted
        driver.run(arguments(path, wanted), **how)
        assert managed(path) == wanted
        assert leftovers(path) == set(), number
        if others:
            check_window(path, 1)
        else:
            assert foreign(path) == before
        if not answer["signal"]:
            break
    assert number > 3


@METHODS
def test_killed_at_random_moments(path: Path, driver: Driver, exchange_error: str) -> None:
    """Real time instead of counted steps, hence also in the middle of a system call or of a computation."""
    how = {"exchange_error": exchange_error}
    trees = [OLD, NEW]
    typical = min(driver.ask(arguments(path, files), **how)["seconds"] for files in (NEW, OLD, NEW, OLD))
    add_foreign(path)
    reader = Reader(path, trees, STABLE, may_be_missing=bool(exchange_error))
    chance = random.Random(1)  # noqa: S311 - a test that can be repeated, not a secret
    killed, number = 0, 0
    while killed < 120:
        number += 1
        assert number < 1000, "it is hardly ever killed"
        wanted = NEW if path.exists() and managed(path) == OLD else OLD
        answer = driver.ask(arguments(path, wanted), kill_after=chance.uniform(0, typical), **how)
        killed += bool(answer["signal"])
        if not answer["signal"]:  # how long a run takes depends on what else the machine does
            typical = (typical + answer["seconds"]) / 2
        if path.exists():
            assert managed(path) in trees
        if number % 3 == 0:
            driver.run(arguments(path, wanted), **how)
            assert managed(path) == wanted
            assert leftovers(path) == set()
    driver.run(arguments(path, NEW), **how)
    assert managed(path) == NEW
    assert set(STABLE) <= foreign(path).keys()
    assert leftovers(path) == set()
    seen = reader.stop()
    assert seen["bad"] == []
    assert all(seen["seen"]), seen


def test_a_killed_check_run_leaves_nothing_that_stays(path: Path, driver: Driver) -> None:
    driver.run(arguments(path, OLD))
    add_foreign(path)
    before = tree(path)
    check = arguments(path, NEW, check=True)
    number = 0
    while driver.ask(check, kill_at=(number := number + 1))["signal"]:
        assert tree(path) == before
        assert not driver.run(arguments(path, OLD))["changed"]
        assert leftovers(path) == set()
    assert number > 10


def test_newer_files_of_others_in_the_live_tree_win(path: Path, driver: Driver) -> None:
    """Others replace or delete a foreign file right after the switch: that is newer than what they did before it."""
    driver.run(arguments(path, OLD))
    for rel in ("replaced", "deleted", "recreated"):
        (path / rel).write_text("first")
    moments = {
        "before 1": [["write", "replaced", "second"], ["write", "new", "second"], ["unlink", "recreated"]],
        "after 1": [["write", "replaced", "third"], ["write", "new", "third"], ["write", "recreated", "third"]],
    }
    moments["after 1"].append(["unlink", "deleted"])
    driver.run(arguments(path, NEW), moments=moments)
    assert foreign(path) == {"replaced": "third", "new": "third", "recreated": "third"}


def test_a_file_replaced_in_the_very_moment_of_its_repair_is_not_lost(path: Path, driver: Driver) -> None:
    """The second exchange is that of the single file: what it takes out then is newer than what it puts in."""
    driver.run(arguments(path, OLD))
    number, seen = 0, set()
    while True:
        number += 1
        (path / "file").unlink(missing_ok=True)
        (path / "file").write_text("first")
        moments = {"before 1": [["write", "file", "second"]], "before 2": [["write", "file", "third"]]}
        answer = driver.ask(arguments(path, NEW), moments=moments, kill_at=number)
        places = [path / "file", staged_of(path) / "file", *(store_of(path) / "aside").glob("*")]
        order = ["first", "second", "third"]
        newest = max((place.read_text() for place in places if place.exists()), key=order.index)
        seen.add(newest)
        if not answer["signal"]:
            break
        driver.run(arguments(path, NEW))
        assert foreign(path) == {"file": newest}, number
        driver.run(arguments(path, OLD))
    assert foreign(path) == {"file": "third"}
    assert seen == {"first", "second", "third"}


def test_everything_is_on_disk_before_it_counts(path: Path, driver: Driver) -> None:
    """A power cut keeps only what was synchronised: staged files and directories, then the journal, then the switch."""
    driver.run(arguments(path, OLD))
    add_foreign(path)
    events = driver.ask(arguments(path, NEW))["events"]
    switched = events.index(f"exchange {path}")
    staged = staged_of(path)
    entries = [staged, *(staged / rel for rel in (*NEW, ".config_tree", "rules", "file_sd", "certificates"))]
    assert {f"sync {entry}" for entry in entries} <= set(events[:switched])
    journal = events.index(f"rename {store_of(path) / 'journal'}")
    assert all(events.index(f"sync {entry}") < journal for entry in entries)
    assert f"sync {store_of(path) / 'journal.draft'}" in events[:journal]
    assert f"sync {store_of(path)}" in events[journal:switched]
    assert f"sync {path.parent}" in events[:journal]
    kept = events.index(f"rename {store_of(path) / 'previous'}")
    assert f"sync {path.parent}" in events[switched:kept]
    assert {f"sync {path.parent}", f"sync {store_of(path)}"} <= set(events[kept:])


def test_foreign_files_in_the_place_of_ours_are_kept_and_named(path: Path, driver: Driver) -> None:
    driver.run(arguments(path, OLD))
    moments = {"before 1": [["write", "file_sd", "theirs"]]}
    result = driver.run(arguments(path, NEW), moments=moments)
    assert managed(path) == NEW
    assert "Others made file_sd" in result["warnings"][0]
    (kept,) = store_of(path).glob("kept-*")
    assert tree(kept) == {"file_sd": "theirs"}
    driver.run(arguments(path, OLD))
    assert tree(kept) == {"file_sd": "theirs"}


def test_a_directory_made_while_the_path_was_missing(path: Path, driver: Driver) -> None:
    """systemd makes a missing ConfigurationDirectory=; such a directory must not block the recovery."""
    for content in ({}, {"main.yml": "theirs", "extra": "theirs"}):
        driver.run(arguments(path, OLD), exchange_error="EINVAL")
        number = 0
        while path.exists():
            number += 1
            killed = driver.ask(arguments(path, NEW), exchange_error="EINVAL", kill_at=number)["signal"]
            assert killed, "the path was never missing"
        path.mkdir()
        for rel, text in content.items():
            (path / rel).write_text(text)
        result = driver.run(arguments(path, NEW), exchange_error="EINVAL")
        assert managed(path) == NEW
        assert managed(store_of(path) / "previous") == OLD
        if content:
            assert foreign(path) == {"extra": "theirs"}
            assert any(tree(kept) == content for kept in store_of(path).glob("kept-*"))
            assert any("made it" in warning for warning in result["warnings"])


def test_the_fallback_says_so(path: Path, driver: Driver) -> None:
    for error in ("EINVAL", "ENOSYS", "EXDEV"):
        driver.run(arguments(path, OLD))
        result = driver.run(arguments(path, NEW), exchange_error=error)
        assert result["switch"] == "renames"
        assert "two renames" in result["warnings"][0]
        assert managed(path) == NEW
    assert driver.run(arguments(path, OLD))["switch"] == "exchange"


def test_a_real_error_of_the_exchange_is_no_reason_for_the_fallback(path: Path, driver: Driver) -> None:
    driver.run(arguments(path, OLD))
    result = driver.ask(arguments(path, NEW), exchange_error="EIO")["result"]
    assert result["failed"]
    assert managed(path) == OLD
    assert leftovers(path) == set()


def test_a_directory_that_cannot_be_renamed_is_refused_with_the_way_out(path: Path, driver: Driver) -> None:
    """overlayfs refuses both for a directory of a lower layer."""
    driver.run(arguments(path, OLD))
    answer = driver.ask(arguments(path, NEW), exchange_error="EXDEV", fail={f"rename {path}": "EXDEV"})
    assert answer["result"]["failed"]
    assert "cp -a" in answer["result"]["msg"]
    assert managed(path) == OLD
    assert leftovers(path) == set()


def test_a_tree_replaced_by_hand_after_an_interrupted_switch(path: Path, driver: Driver) -> None:
    """Then the tree beside it is the only place of the files from before, and is kept."""
    driver.run(arguments(path, OLD))
    (path / "precious").write_text("precious")
    number = 0
    while managed(path) == OLD:
        number += 1
        assert driver.ask(arguments(path, NEW), kill_at=number)["signal"]
    assert staged_of(path).exists()
    remove(path)
    result = driver.run(arguments(path, NEW))
    (kept,) = store_of(path).glob("kept-*")
    assert tree(kept)["precious"] == "precious"
    assert str(kept) in result["warnings"][0]
