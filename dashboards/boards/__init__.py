"""All dashboards."""

from __future__ import annotations

from typing import Final

from dashboards.board import Board
from dashboards.boards import alerts, business, containers, hosts, monitoring, overview, third_party

BOARDS: Final[tuple[Board, ...]] = (
    overview.BOARD,
    business.BOARD,
    third_party.BOARD,
    alerts.BOARD,
    hosts.BOARD,
    containers.BOARD,
    monitoring.BOARD,
)
