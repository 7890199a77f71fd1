"""Lookup `grafana_dashboards`: dashboards on the controller, checked, as the files that Grafana provisions."""

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_dashboards
author: AllIN operations
short_description: Dashboards on the controller, checked, as the files that Grafana provisions
description:
  - Reads the dashboards of directories, and single ones from grafana.com, and returns one mapping of relative path to
    content.
  - Refuses what Grafana would only complain about in its log. A dashboard needs a title and a uid, and no two have the
    same uid.
  - A dashboard from grafana.com must have the pinned SHA-256. Its data source inputs are filled in with O(datasource),
    and it gets the uid C(grafana-com-<id>), so that another revision replaces it.
options:
  _terms:
    description:
      - Sources. Each has C(folder), the directory in the result, and C(path), a directory, or a file with C(id),
        C(revision) and C(sha256). A directory with C(optional) may be missing or empty.
    type: list
    elements: dict
    required: true
  datasource:
    description: The uid that data source inputs of imported dashboards get.
    type: str
    default: prometheus
"""

EXAMPLES = r"""
files: "{{ lookup('grafana_dashboards', [{'folder': 'payments', 'path': '/srv/dashboards/payments'}]) }}"
"""

RETURN = r"""
_raw:
  description: One mapping of relative path to content.
  type: list
  elements: dict
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def parsed(path: Path, text: str) -> dict[str, Any]:
    """Return a dashboard. Raises AnsibleLookupError where it is none."""
    try:
        dashboard = json.loads(text)
    except ValueError as error:
        raise AnsibleLookupError(f"grafana_dashboards: {path} is not JSON: {error}.") from error
    if not isinstance(dashboard, dict) or not dashboard.get("title"):
        raise AnsibleLookupError(
            f"grafana_dashboards: {path} is no dashboard (a JSON object with a title). Export it from Grafana with "
            "Share, Export, Save to file."
        )
    return dashboard


def filled(value: object, inputs: Mapping[str, str]) -> object:
    """Return a part of a dashboard with its `${NAME}` inputs filled in."""
    if isinstance(value, dict):
        return {key: filled(element, inputs) for key, element in value.items()}
    if isinstance(value, list):
        return [filled(element, inputs) for element in value]
    if isinstance(value, str):
        for name, text in inputs.items():
            value = value.replace(f"${{{name}}}", text)
    return value


def imported(path: Path, source: Mapping[str, Any], datasource: str) -> str:
    """Return a dashboard from grafana.com for provisioning. Raises AnsibleLookupError for another than pinned."""
    where = f"https://grafana.com/api/dashboards/{source['id']}/revisions/{source['revision']}/download"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnsibleLookupError(
            f"grafana_dashboards: {path} cannot be read ({error.strerror}). Save it there from {where}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != str(source["sha256"]).lower():
        raise AnsibleLookupError(
            f"grafana_dashboards: {path} has the SHA-256 {digest}, pinned is {source['sha256']}. Replace the file from "
            f"{where}, or correct grafana_dashboards_imported if you meant this one."
        )
    dashboard = parsed(path, content.decode())
    inputs = {}
    for one in dashboard.pop("__inputs", []):
        inputs[str(one["name"])] = datasource if one.get("type") == "datasource" else str(one.get("value", ""))
    for key in ("__requires", "__elements", "id"):
        dashboard.pop(key, None)
    dashboard = {**dashboard, "uid": f"grafana-com-{source['id']}"}
    return json.dumps(filled(dashboard, inputs), indent=2, ensure_ascii=False) + "\n"


def read_source(source: Mapping[str, Any], datasource: str) -> Iterator[tuple[str, Path, str]]:
    """Yield name, origin and content of each dashboard of a source."""
    path = Path(str(source["path"])).expanduser()
    if "sha256" in source:
        yield f"{source['id']}.json", path, imported(path, source, datasource)
        return
    files = sorted(path.glob("*.json"))
    if not files and not source.get("optional"):
        raise AnsibleLookupError(
            f"grafana_dashboards: {path} is no directory with dashboards (*.json). Correct `path` in "
            "grafana_dashboards_extra, or take the entry away."
        )
    for file in files:
        yield file.name, file, file.read_text(encoding="utf-8")


def read_all(sources: list[Mapping[str, Any]], datasource: str) -> dict[str, str]:
    """Return all dashboards by relative path. Raises AnsibleLookupError for one that Grafana would not take."""
    found: dict[str, str] = {}
    owners: dict[str, Path] = {}
    for source in sources:
        for name, path, text in read_source(source, datasource):
            uid = parsed(path, text).get("uid")
            if not uid:
                raise AnsibleLookupError(f'grafana_dashboards: {path} has no uid. Add one that stays: "uid": "..."')
            if uid in owners:
                raise AnsibleLookupError(
                    f"grafana_dashboards: {path} and {owners[uid]} have the same uid {uid}; give one of them another."
                )
            owners[uid] = path
            found[f"{source['folder']}/{name}"] = text
    return found


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible's types are not looked at
    """Entry point for Ansible."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[dict[str, str]]:
        """Return one mapping."""
        self.set_options(var_options=variables, direct=kwargs)
        sources = [one for term in terms for one in (term if isinstance(term, list) else [term])]
        return [read_all(sources, str(self.get_option("datasource")))]
