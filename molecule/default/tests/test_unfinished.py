"""A deployment that was cut off between a file and the service that should have read it."""

from __future__ import annotations

from typing import Any

from estate import run_site

HOST = "allin-molecule"
# What a service reads when it starts or is reloaded, and not otherwise.
FILES = {
    "prometheus": "/etc/prometheus/rules/20-backend.rules.yml",
    "alertmanager": "/etc/alertmanager/alertmanager.yml",
    "allin-backend": "/etc/allin-backend-secrets/token-keys",
}


def test_the_next_run_has_it_read(host: Any) -> None:
    """Prevents: rules that are on the host since last month, in no Prometheus, and each run says that all is well."""

    def processes() -> dict[str, str]:
        return {unit: host.check_output(f"systemctl show --property MainPID --value {unit}") for unit in FILES}

    # To the service it is all the same whether the content is another: it was written after it was last read.
    before = processes()
    for path in FILES.values():
        host.check_output(f"test -f {path} && touch {path}")
    run = run_site("--tags", "prometheus,alertmanager,backend")
    assert run.code == 0, run.output[-3000:]
    after = processes()
    assert [unit for unit in FILES if after[unit] == before[unit]] == [], run.output[-3000:]
    again = run_site("--tags", "prometheus,alertmanager,backend")
    assert again.changed(HOST) == 0, again.output[-3000:]
    # What the other roles have prepared for later is missing where a tag leaves them out; that must disturb nothing.
    assert "fatal:" not in again.output, again.output
    assert processes() == after
