"""The filter newest_release, which chooses what the local stack deploys of an artifacts folder."""

from __future__ import annotations

import pytest

from plugins.filter.newest_release import newest_release

GRAFANA = "grafana(-VERSION[.]linux-|_VERSION_[0-9]+_linux_)amd64[.]tar[.]gz"
OLD, NEW = "grafana-9.5.2.linux-amd64.tar.gz", "grafana_12.4.3_24388279614_linux_amd64.tar.gz"


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        ([], ""),
        ([OLD, NEW], NEW),
        ([NEW, "grafana-12.10.0.linux-amd64.tar.gz", OLD], "grafana-12.10.0.linux-amd64.tar.gz"),
        ([OLD, NEW.replace("amd64", "arm64")], OLD),
        ([OLD, "grafana-enterprise-13.0.0.linux-amd64.tar.gz", "grafana-13.0.0-beta1.linux-amd64.tar.gz"], OLD),
        (["grafana-12.4.0.linux-amd64.tar.gz.part"], ""),
    ],
)
def test_the_newest_of_this_form_is_taken(names: list[str], newest: str) -> None:
    """Prevents: 9.5.2 taken for newer than 12.4.3, and an archive of another architecture."""
    for paths in (names, [f"/some/folder-13.0.0/{name}" for name in reversed(names)]):
        assert newest_release(paths, GRAFANA) == newest
