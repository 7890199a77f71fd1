"""The OpenAPI 3.1 description, made from the route table and the types that the handlers read and write."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from allin_backend.metrics.contract import PLATFORMS
from allin_backend.web.guard import OpenHandler, SignedInHandler
from allin_backend.web.requests import LARGEST_ID
from allin_backend.web.resources import Endpoint, Resource
from allin_backend.web.responses import PROBLEM, Problem

_REFERENCE: Final = "#/components/schemas/{name}"
_IDENTIFIER: Final = {"type": "integer", "minimum": 1, "maximum": LARGEST_ID}
_PATH_PARAMETERS: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "account_id": (_IDENTIFIER, "The account's id."),
    "platform": ({"type": "string", "enum": list(PLATFORMS)}, "The platform's name."),
    "post_id": (_IDENTIFIER, "The post's id."),
}
_RETRY_AFTER: Final = "Seconds after which to try again."
_BODY_PROBLEMS: Final = {
    HTTPStatus.BAD_REQUEST: "The body is not JSON.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not declared as JSON.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body does not have the form that is described here.",
}


def describe(resources: Iterable[Resource], *, version: str) -> dict[str, Any]:
    """The description of all ``resources``, ready to be encoded as JSON."""
    table = list(resources)
    types = {kind: None for resource in table for kind in _types(resource)}
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = dict(zip(types, schemas, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "AllIN backend", "version": version, "description": "Errors are RFC 9457 problems."},
        "servers": [{"url": "/"}],
        "paths": {
            resource.path: {
                method.lower(): _operation(resource, endpoint, by_type)
                for method, endpoint in resource.endpoints.items()
            }
            for resource in table
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "session": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token that POST /api/v1/sessions answered.",
                }
            },
        },
    }


def _types(resource: Resource) -> Iterator[Any]:
    yield Problem
    for endpoint in resource.endpoints.values():
        yield from (kind for kind in (endpoint.body, endpoint.answer) if kind is not None)
        yield from (parameter.kind for parameter in endpoint.query)


def _operation(resource: Resource, endpoint: Endpoint, schemas: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    handler = inspect.unwrap(endpoint.handler)
    text = inspect.getdoc(handler) or ""
    operation: dict[str, Any] = {
        "operationId": handler.__qualname__.replace(".", "_").lower(),
        "summary": text.partition("\n")[0],
        "description": text,
        "parameters": list(_parameters(resource, endpoint, schemas)),
        "responses": _responses(endpoint, schemas),
        "security": [{"session": []}] if isinstance(endpoint.handler, SignedInHandler) else [],
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[endpoint.body]}},
        }
    return operation


def _parameters(
    resource: Resource, endpoint: Endpoint, schemas: Mapping[Any, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for name in resource.path_parameters:
        schema, meaning = _PATH_PARAMETERS[name]
        yield {"name": name, "in": "path", "required": True, "description": meaning, "schema": schema}
    for parameter in endpoint.query:
        yield {
            "name": parameter.name,
            "in": "query",
            "required": False,
            "description": parameter.description,
            "schema": schemas[parameter.kind],
        }


def _responses(endpoint: Endpoint, schemas: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": HTTPStatus(endpoint.success).phrase}
    if endpoint.answer is not None:
        success["content"] = {endpoint.media_type: {"schema": schemas[endpoint.answer]}}
    if endpoint.headers:
        success["headers"] = {name: _header(meaning) for name, meaning in endpoint.headers.items()}
    responses = {str(endpoint.success): success}
    for status, reason in sorted(_problems(endpoint).items()):
        problem: dict[str, Any] = {"description": reason, "content": {PROBLEM: {"schema": schemas[Problem]}}}
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            problem["headers"] = {"Retry-After": _header(_RETRY_AFTER)}
        elif status == HTTPStatus.UNAUTHORIZED:
            problem["headers"] = {"WWW-Authenticate": _header("How to sign in.")}
        responses[str(int(status))] = problem
    return responses


def _header(meaning: str) -> dict[str, Any]:
    return {"description": meaning, "required": True, "schema": {"type": "string"}}


def _problems(endpoint: Endpoint) -> dict[HTTPStatus, str]:
    """Every status of a problem that the endpoint can answer, with its reason."""
    found = {
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The headers are too large.",
        HTTPStatus.INTERNAL_SERVER_ERROR: "An error of the service.",
    }
    if isinstance(endpoint.handler, OpenHandler | SignedInHandler):
        found[HTTPStatus.TOO_MANY_REQUESTS] = "Too many requests."
    if isinstance(endpoint.handler, SignedInHandler):
        found[HTTPStatus.UNAUTHORIZED] = "There is no session, or it has ended."
        found[HTTPStatus.SERVICE_UNAVAILABLE] = "The database does not answer."
    if endpoint.query:
        found[HTTPStatus.BAD_REQUEST] = "A parameter of the query string is not as described here."
    if endpoint.body is not None:
        found |= _BODY_PROBLEMS
    # What several parts can refuse has the reasons of all of them.
    for status, reason in endpoint.problems.items():
        found[status] = f"{found[status]} {reason}" if status in found else reason
    return found
