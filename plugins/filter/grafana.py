"""Filters of the role grafana: what Grafana reads, from what an inventory says, and what is wrong with that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

try:  # Ansible's vaults need it; where somebody has Ansible without it, certificates are not looked at.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
except ImportError:
    x509 = None  # type: ignore[assignment]

DOCUMENTATION = r"""
name: grafana
author: AllIN operations
short_description: What Grafana reads, from what an inventory says
description:
  - C(grafana_ini) writes a mapping of sections to settings as Grafana's configuration file. A setting that is null is
    left out, so that Grafana's own default holds. Values with characters that mean something to the format are quoted.
  - C(grafana_role_path) writes a mapping of roles to groups of people as the JMESPath expression by which Grafana finds
    the role of who signs in. The strongest role of somebody's groups counts.
  - C(grafana_repeated) returns what a list has more than once, with C(fold) whatever the case.
  - C(grafana_tls_mistakes) returns, a sentence each, what is wrong with a certificate as PEM text and its key, which
    may be empty. What they say is never repeated. Where Python has no package cryptography, it only warns.
options:
  _input:
    description: The mapping, the list or the certificate.
    type: raw
    required: true
"""

EXAMPLES = r"""
ini: "{{ {'server': {'http_port': 3001}} | grafana_ini }}"
path: "{{ {'Admin': ['platform-team']} | grafana_role_path }}"
twice: "{{ ['Anna', 'anna'] | grafana_repeated(fold=true) }}"
wrong: "{{ grafana_tls_certificate | grafana_tls_mistakes(grafana_tls_key) }}"
"""

RETURN = r"""
_value:
  description: The text; a list of texts from C(grafana_repeated) and C(grafana_tls_mistakes).
  type: raw
"""

TOP = "DEFAULT"
"""Settings above the first section."""
ROLES = ("GrafanaAdmin", "Admin", "Editor", "Viewer")
"""From strong to weak."""
QUOTED = set('#;`"\\')


def value_text(section: str, key: str, value: object) -> str:
    """Return a value as the file has it. Raises AnsibleFilterError for what it cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, Mapping)):
        raise AnsibleFilterError(f"grafana_settings: {section}.{key} is a list or a mapping; Grafana wants a text.")
    text = str(value)
    if "\n" in text or "\r" in text or '"""' in text:
        raise AnsibleFilterError(f"grafana_settings: {section}.{key} must be one line without three quotes in a row.")
    # ; and # would begin a comment, and ` and " end at the next of their kind.
    return f'"""{text}"""' if set(text) & QUOTED or text != text.strip() else text


def grafana_ini(settings: Mapping[str, Any]) -> str:
    """Return sections and settings as Grafana's configuration file."""
    blocks = []
    for section, entries in settings.items():
        if entries is None:
            continue
        if not isinstance(entries, Mapping):
            raise AnsibleFilterError(f"grafana_settings: {section} must be a mapping of settings to values.")
        lines = [
            f"{key} = {value_text(section, key, value)}".rstrip() for key, value in entries.items() if value is not None
        ]
        if lines:
            blocks.append("\n".join(lines if section == TOP else [f"[{section}]", *lines]))
    blocks.sort(key=lambda block: block.startswith("["))  # what has no section stands first
    return "\n\n".join(blocks)


def literal(text: str) -> str:
    """Return a text as JMESPath's raw string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def grafana_role_path(roles: Mapping[str, Sequence[str]], groups: str = "groups") -> str:
    """Return the JMESPath expression that gives the strongest role of somebody's groups."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise AnsibleFilterError(f"grafana_oidc: roles has {', '.join(unknown)}; there are {', '.join(ROLES)}.")
    parts = []
    for role in ROLES:
        names = roles.get(role) or ()
        if isinstance(names, str):
            raise AnsibleFilterError(
                f"grafana_oidc: roles.{role} must be a list of groups, as in {{{role}: [{names}]}}."
            )
        tests = [f"contains({groups}[*], {literal(str(name))})" for name in names]
        if tests:
            parts.append(f"({' || '.join(tests)}) && {literal(role)}")
    return " || ".join(parts)


def grafana_repeated(values: Iterable[object], fold: bool = False) -> list[str]:
    """Return what is there more than once, each once; empty texts do not count."""
    texts = [str(value).lower() if fold else str(value) for value in values]
    return sorted({text for text in texts if text and texts.count(text) > 1})


# Grafana wants them in lines.
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[ \t\r]*\n.+?\n-----END CERTIFICATE-----", re.DOTALL)
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY)-----[ \t\r]*\n.+?\n-----END (?P=kind)-----", re.DOTALL
)


def grafana_tls_mistakes(certificate: str, key: str = "") -> list[str]:
    """Return what is wrong with a certificate and its key as PEM texts; an empty key is not looked at."""
    if x509 is None:
        Display().warning("grafana_tls_certificate is not looked at: Python has no package cryptography here.")
        return []
    chain = []
    mistakes = []
    try:
        chain = [x509.load_pem_x509_certificate(one.encode()) for one in CERTIFICATE.findall(str(certificate))]
    except (ValueError, UnsupportedAlgorithm):
        chain = []
    if not chain or len(chain) != str(certificate).count("BEGIN CERTIFICATE"):
        mistakes.append(
            "grafana_tls_certificate is not a certificate as PEM text, from -----BEGIN CERTIFICATE----- to "
            "-----END CERTIFICATE-----, in lines. Write for example grafana_tls_certificate: "
            "\"{{ lookup('ansible.builtin.file', '/srv/certificates/grafana.pem') }}\""
        )
    if not key:
        return mistakes
    block = PRIVATE_KEY.search(str(key))
    try:
        private = load_pem_private_key((block[0] if block else "").encode(), password=None)
    except TypeError:
        return [
            *mistakes,
            "grafana_tls_key is encrypted, and Grafana cannot ask for the passphrase. Take the passphrase away "
            "(openssl pkey -in grafana.key), and keep what comes out in a vault",
        ]
    except (ValueError, UnsupportedAlgorithm):
        return [
            *mistakes,
            "grafana_tls_key is not a private key as PEM text, from -----BEGIN PRIVATE KEY----- to "
            '-----END PRIVATE KEY-----, in lines. Write for example grafana_tls_key: "{{ vault_grafana_tls_key }}"',
        ]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fits = [one.public_key().public_bytes(*form) == private.public_key().public_bytes(*form) for one in chain]
    if any(fits) and not fits[0]:
        mistakes.append("grafana_tls_certificate does not begin with the certificate of grafana_tls_key. Put it first")
    elif fits and not fits[0]:
        mistakes.append(
            "grafana_tls_key is not the key of grafana_tls_certificate. Write the two that were made together: "
            "openssl x509 -noout -pubkey -in grafana.pem and openssl pkey -pubout -in grafana.key print the same"
        )
    return mistakes


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "grafana_ini": grafana_ini,
            "grafana_role_path": grafana_role_path,
            "grafana_repeated": grafana_repeated,
            "grafana_tls_mistakes": grafana_tls_mistakes,
        }
