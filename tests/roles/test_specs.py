"""The argument specifications are the documentation and the validator, so they must say what the defaults say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.action.check_settings import Checker

ROLES = sorted(path.parent.parent for path in Path(__file__).parents[2].glob("roles/*/meta/argument_specs.yml"))
UNSET = object()


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def options(role: Path) -> dict[str, Any]:
    """Every option of every entry point of a role."""
    found: dict[str, Any] = {}
    for entry in load(role / "meta/argument_specs.yml")["argument_specs"].values():
        found |= entry["options"]
    return found


# managed_service is told by its callers.
PINNED = [role for role in ROLES if f"{role.name}_archive_sha256" in load(role / "defaults/main.yml")]


def test_every_role_has_a_specification() -> None:
    everything = {path for path in Path(__file__).parents[2].glob("roles/*") if path.is_dir()}
    assert everything == set(ROLES)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specification_and_defaults_agree(role: Path) -> None:
    """Prevents: documentation that promises another default than the one that is used."""
    defaults = load(role / "defaults/main.yml")
    documented = {name: spec["default"] for name, spec in options(role).items() if "default" in spec}
    assert documented == defaults
    required = {name for name, spec in options(role).items() if spec.get("required")}
    assert not required & set(defaults)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_described_and_typed(role: Path) -> None:
    def check(name: str, spec: dict[str, Any]) -> None:
        assert spec.get("description"), f"{name} has no description"
        assert spec.get("type"), f"{name} has no type"
        for inner, inner_spec in spec.get("options", {}).items():
            check(f"{name}.{inner}", inner_spec)

    for name, spec in options(role).items():
        assert name.startswith(f"{role.name}_")
        check(name, spec)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_internal_names_have_two_underscores(role: Path) -> None:
    """Prevents: a constant that looks like something users may set."""
    internal = load(role / "vars/main.yml")
    assert all(name.startswith(f"__{role.name}_") for name in internal)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_checked_format_belongs_to_an_option(role: Path) -> None:
    """Prevents: a check of a variable that was renamed, which would check nothing."""
    internal = load(role / "vars/main.yml")
    tables = [value for name, value in internal.items() if "_formats" in name and isinstance(value, dict)]
    named = {name.partition(".")[0] for table in tables for name in table}
    assert named <= set(options(role))
    # Every port is checked: no type can say 1 to 65535.
    ports = {name for name, spec in options(role).items() if name.endswith("_port") and spec["type"] == "int"}
    assert ports <= named


def switches(options: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every option that is true or false, however deep: its path, and what an inventory has with "no" there."""
    for name, spec in options.items():
        if spec["type"] == "bool":
            yield ".".join((*path, name)), {name: "no"}
        for place, value in switches(spec.get("options", {}), (*path, name)):
            yield place, {name: [value] if spec["type"] == "list" else value}


# managed_service is told by its callers, in variables of theirs.
SWITCHES = [
    pytest.param(role, place, value, id=place)
    for role in ROLES
    if role.name != "managed_service"
    for entry in load(role / "meta/argument_specs.yml")["argument_specs"].values()
    for place, value in switches(entry["options"])
]


@pytest.mark.parametrize(("role", "place", "value"), SWITCHES)
def test_a_text_that_means_false_is_refused_for_every_switch(role: Path, place: str, value: dict[str, Any]) -> None:
    """Prevents: a switch that -e name=false leaves on, since a text that is not empty counts as true."""
    assert f"check_settings:\n    role: {role.name}\n" in (role / "tasks/check.yml").read_text()
    spec = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    checker = Checker(role.name, spec, {}, values=value)
    checker.check_role(())
    said = [line.replace("[0]", "") for _, line in checker.problems]
    assert any(line.startswith(f"{place}: 'no' is a text, which may count as true") for line in said), said


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_a_readme_of_one_screen(role: Path) -> None:
    lines = (role / "README.md").read_text().splitlines()
    assert lines[0] == f"# {role.name}"
    assert 10 <= len(lines) <= 60


@pytest.mark.parametrize("role", PINNED, ids=lambda role: role.name)
def test_the_default_version_is_pinned_for_both_architectures(role: Path) -> None:
    """Prevents: a first deployment with the defaults that stops for want of a pin."""
    version = load(role / "defaults/main.yml")[f"{role.name}_version"]
    pins = load(role / "vars/main.yml")[f"__{role.name}_checksums"]
    assert set(pins[version]) == {"amd64", "arm64"}
    assert all(len(pin) == 64 for ones in pins.values() for pin in ones.values())
