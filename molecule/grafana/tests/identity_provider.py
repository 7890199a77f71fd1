"""A small OpenID provider: it lets in whom a test names, and holds Grafana to the protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLIENT = "grafana-molecule"
CLIENT_SECRET = "molecule-client-secret"


@dataclass
class Grant:
    """What a code or a token stands for."""

    person: dict[str, Any]
    challenge: str
    redirect: str


@dataclass
class Provider:
    """Authorization code flow with PKCE (RFC 6749 section 4.1, RFC 7636) and a user info endpoint.

    Attributes:
        refusals: what Grafana asked for that the protocol forbids; empty when all is well.
        in_id_token: what the ID token says of a person; the user info says all. Without a name there is no ID token.
    """

    address: str
    codes: dict[str, Grant] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    in_id_token: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.answer(*provider.token(dict(urllib.parse.parse_qsl(body)), self.headers.get("Authorization", "")))

            def do_GET(self) -> None:
                person = provider.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
                self.answer(200 if person else 401, person or {})

            def answer(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer((self.address, 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        """Its address as Grafana reaches it."""
        return f"http://{self.address}:{self.server.server_port}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return grafana_oidc."""
        paths = {"auth_url": "authorize", "token_url": "token", "api_url": "userinfo"}
        return {
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
            **{name: f"{self.url}/{path}" for name, path in paths.items()},
            **more,
        }

    def authorize(self, location: str, person: dict[str, Any]) -> dict[str, str]:
        """Sign a person in where Grafana has sent them; return the parameters with which they go back."""
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))
        expected = {"client_id": CLIENT, "response_type": "code", "code_challenge_method": "S256"}
        for name, value in expected.items():
            if asked.get(name) != value:
                self.refusals.append(f"{name} is {asked.get(name)}")
        code = secrets.token_urlsafe()
        self.codes[code] = Grant(person, asked.get("code_challenge", ""), asked.get("redirect_uri", ""))
        return {"code": code, "state": asked.get("state", "")}

    def token(self, asked: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Give a token for a code, once, to who has the secret and the challenge's answer."""
        basic = base64.b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()
        grant = self.codes.pop(asked.get("code", ""), None)
        digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        checks = {
            "an unknown code": grant is None,
            "a wrong secret": asked.get("client_secret") != CLIENT_SECRET and authorization != f"Basic {basic}",
            "a wrong answer to the challenge": grant is not None
            and base64.urlsafe_b64encode(digest).decode().rstrip("=") != grant.challenge,
            "another redirect": grant is not None and asked.get("redirect_uri") != grant.redirect,
        }
        wrong = [what for what, is_so in checks.items() if is_so]
        if wrong or grant is None:
            self.refusals += wrong
            return 400, {"error": "invalid_grant", "error_description": ", ".join(wrong)}
        token = secrets.token_urlsafe()
        self.tokens[token] = grant.person
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": 600}
        if self.in_id_token:
            claims = {name: value for name, value in grant.person.items() if name in self.in_id_token}
            parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims, "unsigned"))
            answer["id_token"] = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        return 200, answer
