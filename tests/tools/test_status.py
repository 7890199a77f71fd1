"""The table of what runs where: tools/status.py."""

import pytest

from tools import status

CADVISOR_METRICS = """\
# TYPE cadvisor_version_info gauge
cadvisor_version_info{cadvisorRevision="0.38.7+ds1-2+b7",cadvisorVersion="0.38.7+ds1",dockerVersion="Unknown",\
kernelVersion="6.1.0",osVersion="Debian GNU/Linux 13 (trixie)"} 1
"""


def test_cadvisors_version_is_its_own_and_not_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    [cadvisor] = [service for service in status.SERVICES if service.name == "cAdvisor"]
    monkeypatch.setattr(status, "fetch", lambda _: CADVISOR_METRICS)
    assert status.row(cadvisor, set())[1] == "0.38.7+ds1"


def test_a_service_that_does_not_say_its_version_has_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    [cadvisor] = [service for service in status.SERVICES if service.name == "cAdvisor"]
    monkeypatch.setattr(status, "fetch", lambda _: "process_start_time_seconds 1\n")
    assert status.row(cadvisor, set())[1] == "?"
