"""The Grafana dashboards, as code: `make dashboards` builds roles/grafana/files/dashboards from this package.

names.py has what other parts refer to (uids, folders, the data source), targets.py the numbers that are drawn in,
queries.py and panels.py the pieces, board.py puts them together, and boards/ has one module for each dashboard.
"""
