"""Builds the dashboards: `python -m dashboards`. Files of dashboards that are gone are removed."""

from __future__ import annotations

from dashboards.board import JSON
from dashboards.boards import BOARDS


def main() -> None:
    """Write every dashboard's JSON, and say what changed."""
    wanted = {board.path: board.json() for board in BOARDS}
    for path in sorted({*JSON.glob("*/*.json"), *wanted}):
        if path not in wanted:
            path.unlink()
        elif not path.exists() or path.read_text() != wanted[path]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            continue
        print(path)


if __name__ == "__main__":
    main()
