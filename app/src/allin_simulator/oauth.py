"""The platforms' OAuth: authorization codes with PKCE, refreshing and revoking."""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import unquote_plus, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from allin_simulator import people
from allin_simulator.platforms.base import Reason, Refusal
from allin_simulator.recent import Recent
from allin_simulator.requests import json_response, read_body, read_form
from allin_simulator.settings import Settings
from allin_simulator.site import Site
from allin_simulator.tokens import Signer, Token

CODE_SECONDS: Final = 60
_NOT_STORED: Final = {"Cache-Control": "no-store"}


@dataclass(slots=True)
class _Code:
    platform: str
    client_id: str
    redirect_uri: str
    challenge: str
    scope: str
    person: str
    grant: str
    expires_at: float
    used: bool = False


class _OAuthError(Exception):
    def __init__(self, error: str, description: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(description)
        self.error = error
        self.status = status


class Authority:
    """Gives, checks and takes back the tokens of all platforms."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._signer = Signer(settings.secret)
        self._codes: Recent[str, _Code] = Recent(settings.remembered)
        self._used: Recent[str, None] = Recent(settings.remembered)
        self._revoked: Recent[str, None] = Recent(settings.remembered)

    def clear(self) -> None:
        self._codes.clear()
        self._used.clear()
        self._revoked.clear()

    def read(self, platform: str, text: str, kind: Literal["access", "refresh"]) -> Token | None:
        """The token, if it is good now."""
        token = self._signer.read(text)
        if token is None or token.platform != platform or token.kind != kind or token.expires_at <= self._clock():
            return None
        return None if token.grant in self._revoked or token.serial in self._used else token

    def access(self, platform: str, text: str) -> Token | None:
        return self.read(platform, text, "access")

    def new_code(
        self, platform: str, client_id: str, redirect_uri: str, challenge: str, scope: str, person: str
    ) -> str:
        code = secrets.token_urlsafe(24)
        expires_at = self._clock() + CODE_SECONDS
        grant = secrets.token_hex(8)
        self._codes.put(code, _Code(platform, client_id, redirect_uri, challenge, scope, person, grant, expires_at))
        return code

    def redeem(self, platform: str, client_id: str, form: Mapping[str, str]) -> tuple[Token, Token]:
        """The access and the refresh token for a code, which is then used up even if it was not redeemed rightly.

        Raises:
            _OAuthError: the code is not good, or the verifier not the one that belongs to it.
        """
        code = self._codes.get(form.get("code", ""))
        if code is None or code.platform != platform or code.client_id != client_id:
            raise _OAuthError("invalid_grant", "The code is not known.")
        if code.used:
            # Somebody else may have it: what was given for it is taken back.
            self._revoked.put(code.grant, None)
            raise _OAuthError("invalid_grant", "The code was used before.")
        code.used = True
        if code.expires_at <= self._clock():
            raise _OAuthError("invalid_grant", "The code has ended.")
        if form.get("redirect_uri") != code.redirect_uri:
            raise _OAuthError("invalid_grant", "redirect_uri is not the one of the authorization.")
        if not hmac.compare_digest(_challenge(form.get("code_verifier", "")), code.challenge.encode()):
            raise _OAuthError("invalid_grant", "code_verifier does not belong to the code_challenge.")
        return self._pair(platform, client_id, code.person, code.scope, code.grant)

    def refresh(self, platform: str, client_id: str, text: str, *, rotate: bool) -> tuple[Token, Token | None]:
        """A new access token, and a new refresh token where the old one is used up.

        Raises:
            _OAuthError: the refresh token is not good.
        """
        token = self.read(platform, text, "refresh")
        if token is None or token.client_id != client_id:
            raise _OAuthError("invalid_grant", "The refresh token is not good, or has ended.")
        if rotate:
            self._used.put(token.serial, None)
        access, refresh = self._pair(platform, client_id, token.person, token.scope, token.grant)
        return access, refresh if rotate else None

    def revoke(self, platform: str, client_id: str, text: str) -> None:
        """Take back all tokens of the grant that a token is of. A token that is not good is no error (RFC 7009)."""
        token = self._signer.read(text)
        if token is not None and (token.platform, token.client_id) == (platform, client_id):
            self._revoked.put(token.grant, None)

    def write(self, token: Token) -> str:
        return self._signer.write(token)

    def _pair(self, platform: str, client_id: str, person: str, scope: str, grant: str) -> tuple[Token, Token]:
        now = self._clock()

        def token(kind: Literal["access", "refresh"], seconds: float) -> Token:
            return Token(kind, platform, client_id, person, scope, grant, secrets.token_hex(8), now + seconds)

        return token("access", self._settings.token_seconds), token("refresh", self._settings.refresh_seconds)


class OAuth:
    """The OAuth addresses of one platform."""

    def __init__(self, site: Site, authority: Authority, settings: Settings) -> None:
        self._site = site
        self._platform = site.platform
        self._authority = authority
        self._settings = settings

    async def authorize(self, request: Request) -> Response:
        """The page on which a person decides; ``decision`` decides for them, and ``login_hint`` says who they are."""
        try:
            await self._site.suffer("authorize", request)
            return self._decide(request.query_params)
        except Refusal as refusal:
            return HTMLResponse(f"<h1>Error</h1><p>{html.escape(refusal.message)}</p>", refusal.status)

    async def token(self, request: Request) -> Response:
        return await self._answer("token", request, self._token)

    async def revoke(self, request: Request) -> Response:
        return await self._answer("revoke", request, self._revoke)

    async def _answer(
        self, operation: str, request: Request, work: Callable[[str, Mapping[str, str]], dict[str, object]]
    ) -> Response:
        try:
            await self._site.suffer(operation, request)
            form = read_form(await read_body(request))
            return json_response(work(self._client(request.headers, form), form), headers=_NOT_STORED)
        except Refusal as refusal:
            broken = refusal.reason in (Reason.BROKEN, Reason.RATE_LIMITED)
            error, status = "temporarily_unavailable" if broken else "invalid_request", refusal.status
            description = refusal.message
        except _OAuthError as refused:
            error, status, description = refused.error, refused.status, str(refused)
        return json_response({"error": error, "error_description": description}, status, _NOT_STORED)

    def _decide(self, query: Mapping[str, str]) -> Response:
        # Before these two are known to be good, nobody is sent anywhere.
        client_id = query.get(self._platform.client_id_name) or query.get("client_id", "")
        redirect_uri = query.get("redirect_uri", "")
        if not self._is_client(client_id):
            raise _bad_page("This application is not known here.")
        if not _is_redirect(redirect_uri):
            raise _bad_page("redirect_uri must be a web address without a fragment.")

        def back(**members: str) -> Response:
            joint = "&" if urlsplit(redirect_uri).query else "?"
            state = {"state": query["state"]} if "state" in query else {}
            return RedirectResponse(f"{redirect_uri}{joint}{urlencode(members | state)}", HTTPStatus.FOUND)

        challenge = query.get("code_challenge", "")
        person = query.get("login_hint") or people.DEFAULT_PERSON
        scope = query.get("scope", "")
        if query.get("response_type") != "code":
            return back(error="unsupported_response_type", error_description="response_type must be code.")
        if query.get("code_challenge_method") != "S256" or len(challenge) != 43:
            return back(error="invalid_request", error_description="A code_challenge by the method S256 is needed.")
        if not people.is_person(person) or len(scope) > 1000:
            return back(error="invalid_request", error_description="login_hint or scope is not usable.")
        decision = query.get("decision", "allow")
        if decision == "ask":
            return HTMLResponse(_page(self._platform.name, client_id, person, query))
        if decision != "allow":
            return back(error="access_denied", error_description="The person said no.")
        return back(
            code=self._authority.new_code(self._platform.name, client_id, redirect_uri, challenge, scope, person)
        )

    def _token(self, client_id: str, form: Mapping[str, str]) -> dict[str, object]:
        platform, refresh = self._platform, None
        match form.get("grant_type"):
            case "authorization_code":
                access, refresh = self._authority.redeem(platform.name, client_id, form)
                if platform.refresh_scope is not None and platform.refresh_scope not in access.scope.split():
                    refresh = None
            case "refresh_token":
                if denied := self._site.token_refusal():
                    raise _OAuthError("invalid_grant", denied.message)
                access, refresh = self._authority.refresh(
                    platform.name, client_id, form.get("refresh_token", ""), rotate=platform.rotates_refresh_tokens
                )
            case _:
                raise _OAuthError("unsupported_grant_type", "grant_type must be authorization_code or refresh_token.")
        members: dict[str, object] = {
            "access_token": self._authority.write(access),
            "token_type": "bearer",
            "expires_in": int(self._settings.token_seconds),
            "scope": access.scope,
            **platform.token_members(access, self._settings.refresh_seconds),
        }
        if refresh is not None:
            members["refresh_token"] = self._authority.write(refresh)
        return members

    def _revoke(self, client_id: str, form: Mapping[str, str]) -> dict[str, object]:
        self._authority.revoke(self._platform.name, client_id, form.get("token", ""))
        return {"revoked": True}

    def _client(self, headers: Headers, form: Mapping[str, str]) -> str:
        """The id of the client that asks.

        Raises:
            _OAuthError: it is not known, or its secret is wrong.
        """
        if self._platform.basic_authentication:
            client_id, secret = _basic(headers.get("authorization", ""))
        else:
            client_id, secret = form.get(self._platform.client_id_name, ""), form.get("client_secret", "")
        if not self._is_client(client_id) or not secret:
            raise _OAuthError("invalid_client", "The client is not known.", HTTPStatus.UNAUTHORIZED)
        if self._settings.clients is not None:
            known = self._settings.clients[self._platform.name].client_secret
            if not hmac.compare_digest(secret.encode(), known.encode()):
                raise _OAuthError("invalid_client", "The client's secret is wrong.", HTTPStatus.UNAUTHORIZED)
        return client_id

    def _is_client(self, client_id: str) -> bool:
        if self._settings.clients is None:
            return 0 < len(client_id) <= 200
        client = self._settings.clients.get(self._platform.name)
        return client is not None and client.client_id == client_id


def _challenge(verifier: str) -> bytes:
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        client_id, _, secret = b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    # RFC 6749, section 2.3.1: both are encoded as in a form first.
    return (unquote_plus(client_id), unquote_plus(secret)) if scheme.lower() == "basic" else ("", "")


def _is_redirect(address: str) -> bool:
    if len(address) > 2000:
        return False
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "#" not in address
    except ValueError:
        return False


def _bad_page(message: str) -> Refusal:
    return Refusal(Reason.REJECTED, HTTPStatus.BAD_REQUEST, message)


def _page(platform: str, client_id: str, person: str, query: Mapping[str, str]) -> str:
    kept = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(text)}">'
        for name, text in query.items()
        if name not in ("decision", "login_hint")
    )
    return (
        f'<!doctype html><html lang="en"><title>{platform} (simulated)</title><h1>{platform} (simulated)</h1>'
        f"<p>{html.escape(client_id)} asks for: {html.escape(query.get('scope', ''))}</p><form>{kept}"
        f'<p><label>Account <input name="login_hint" value="{html.escape(person)}"></label></p>'
        '<button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>'
    )
