"""TLS of Grafana's own: what is encrypted, with which certificate, what replaces it, and how Prometheus asks."""

from __future__ import annotations

import http.cookiejar
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from apis import Prometheus, get
from estate import run_playbook
from waiting import eventually

HOST = "allin-grafana"


ELLIPTIC_CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def certificate(folder: Path, known: str, algorithm: Sequence[str] = ELLIPTIC_CURVE) -> dict[str, str]:
    """Make a certificate for `IP:<address>` or `DNS:<name>`, signed by itself; return the role's variables."""
    folder.mkdir()
    key, pem = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", *algorithm, "-nodes"),
            *("-days", "2", "-subj", f"/CN={folder.name}", "-addext", f"subjectAltName={known}"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
    )
    return {
        "grafana_root_url": f"https://{known.partition(':')[2]}:3001/",
        "grafana_tls_certificate": pem.read_text(),
        "grafana_tls_key": key.read_text(),
    }


def sign_in(url: str, trusted: str) -> http.cookiejar.Cookie:
    """Sign in as somebody who trusts one certificate alone; return the session's cookie. Raises URLError."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(jar),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=trusted)),
    )
    body = json.dumps({"user": "victor", "password": "molecule-victor-password"}).encode()
    request = urllib.request.Request(f"{url}/login", data=body, headers={"Content-Type": "application/json"})
    with opener.open(request, timeout=10) as answer:
        assert "max-age=" in answer.headers["Strict-Transport-Security"]
    (session,) = [one for one in jar if one.name == "grafana_session"]
    return session


def test_a_certificate_is_served_and_so_is_the_next_one(deploy: Any, host: Any, url: str, tmp_path: Path) -> None:
    """Prevents: cookies that travel in the clear, and a renewed certificate that nobody gets to see."""
    secure = url.replace("http:", "https:")
    address = secure.removeprefix("https://").partition(":")[0]
    first, second = (certificate(tmp_path / name, f"IP:{address}") for name in ("first", "second"))

    run = deploy("--diff", **first)
    assert run.code == 0, run.output
    assert first["grafana_tls_key"].splitlines()[1] not in run.output
    assert sign_in(secure, first["grafana_tls_certificate"]).secure
    file = host.file("/etc/grafana-secrets/tls-key.pem")
    assert (file.user, file.group, file.mode) == ("root", "grafana", 0o640)
    # Whoever still comes without TLS gets no page, and no form for a password.
    with pytest.raises(OSError, match=r"400|reset|closed"):
        get(url)

    assert deploy(**second).code == 0
    assert sign_in(secure, second["grafana_tls_certificate"]).secure
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        sign_in(secure, first["grafana_tls_certificate"])
    assert deploy(**second).changed(HOST) == 0

    # A renewed certificate with the key of the one before.
    mixed = deploy(**{**first, "grafana_tls_key": second["grafana_tls_key"]})
    assert mixed.code != 0
    assert mixed.changed(HOST) == 0
    assert sign_in(secure, second["grafana_tls_certificate"]).secure

    # A pair that is one, of a kind that Go does not know.
    unknown = certificate(tmp_path / "unknown", f"IP:{address}", ["ed448"])
    broken = deploy("--diff", "-vvv", grafana_ready_timeout_seconds=20, **unknown)
    assert broken.code != 0
    assert "What ran before was put back and answers" in broken.output
    assert "Put back: the former secrets." in broken.output
    assert "molecule-admin-password" not in broken.output
    for name in ("second", "unknown"):
        assert (tmp_path / name / "key.pem").read_text().splitlines()[1] not in broken.output
    assert sign_in(secure, second["grafana_tls_certificate"]).secure
    assert not host.file("/etc/.grafana-secrets.config_tree").exists
    assert deploy(**second).changed(HOST) == 0

    assert deploy().code == 0
    assert not host.file("/etc/grafana-secrets/tls-key.pem").exists


def test_prometheus_scrapes_a_grafana_with_tls_and_a_path(
    deploy: Any, host: Any, prometheus: Prometheus, tmp_path: Path
) -> None:
    """Prevents: GrafanaDown for ever. The certificate has a name, Prometheus asks an address, all is below a path."""

    def scraped_from() -> str:
        """Where a scrape has just succeeded."""
        (one,) = [one for one in prometheus.api("targets")["activeTargets"] if one["labels"]["job"] == "grafana"]
        return str(one["scrapeUrl"]) if one["health"] == "up" else one["lastError"]

    def comes_to_be_scraped_from(end: str, **settings: str) -> None:
        assert deploy(**settings).code == 0
        rewired = run_playbook("playbooks/monitoring.yml", "--tags", "prometheus", "--extra-vars", json.dumps(settings))
        assert rewired.code == 0, rewired.output
        eventually(scraped_from, lambda url: url.endswith(end), within=30, what=f"a scrape of {end}")
        eventually(lambda: prometheus.scalar('up{job="grafana"}'), lambda up: up == 1, within=30, what="a sample")

    named = certificate(tmp_path / "named", "DNS:grafana.test")
    named["grafana_root_url"] = "https://grafana.test/monitoring/"
    comes_to_be_scraped_from(":3001/monitoring/metrics", **named)

    authority = "/etc/ssl/certs/molecule-ca.pem"
    host.check_output("echo %s > %s", named["grafana_tls_certificate"], authority)
    comes_to_be_scraped_from(":3001/monitoring/metrics", grafana_tls_ca_file=authority, **named)

    comes_to_be_scraped_from(":3001/metrics")
    host.check_output("rm %s", authority)
