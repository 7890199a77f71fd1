"""What somebody on call types first, on the host that the roles made."""

from __future__ import annotations

import runbooks
from conftest import HOST, ROOT


def test_the_first_commands_of_every_runbook_work_here() -> None:
    """Prevents: a path, a unit, a port or a tool that the page names and the host does not have."""
    ran = runbooks.run(HOST, ROOT / "docs" / "runbooks")
    assert len(ran) > 150
    troubles = [f"{one.page}: {one.command}\n    {one.trouble}" for one in ran if one.trouble]
    assert not troubles, "\n".join(troubles)
