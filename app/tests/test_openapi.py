"""The API's description is complete, and made from what the handlers use."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    described: dict[str, Any] = response.json()
    return described


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_and_method_is_described(document: dict[str, Any], app: Starlette) -> None:
    served = {
        (method.lower(), route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }

    assert document["openapi"] == "3.1.0"
    assert set(operations(document)) == served


def test_operations_have_names_of_their_own_and_sentences(document: dict[str, Any]) -> None:
    found = operations(document)

    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    for key, operation in found.items():
        assert operation["summary"].endswith("."), key


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for (_, path), operation in operations(document).items():
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == {part.strip("{}") for part in path.split("/") if part.startswith("{")}


def test_every_problem_is_declared_as_one(document: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for key, operation in operations(document).items():
        for status, response in operation["responses"].items():
            assert (int(status) < 400) != (response.get("content") == problem), (key, status)
            assert ("Retry-After" in response.get("headers", {})) == (status in ("429", "503")), (key, status)
        expected = {"431", "500"}
        if key[1].startswith("/api/"):
            expected |= {"429", "503"}
        if operation["security"]:
            expected |= {"401"}
        if "requestBody" in operation:
            expected |= {"400", "413", "415", "422"}
        assert expected <= operation["responses"].keys(), key


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*(references(value) for value in part.values()))
        if isinstance(part, list):
            return set().union(*(references(value) for value in part))
        return set()

    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) == schemas


def test_bodies_show_their_limits(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    new_user = schemas["NewUser"]
    assert new_user["required"] == ["email", "name", "password"]
    assert new_user["additionalProperties"] is False
    assert (new_user["properties"]["password"]["minLength"], new_user["properties"]["name"]["maxLength"]) == (12, 200)
    assert "password" not in schemas["User"]["properties"]
