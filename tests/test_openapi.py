"""The description of the API is true: it names every route, and the server does what it says and nothing worse."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import CheckContext
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineEvent, FatalError, NonFatalError, ScenarioFinished
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.schemas import BaseSchema
from schemathesis.transport import SerializationContext

from tests.appliance import Appliance
from tests.peers import resident_bytes
from tests.repeats import repeated

EXAMPLES = int(os.environ.get("API_EXAMPLES", 2))
"""Random requests of a kind; there are some hundred kinds."""
SECONDS = float(os.environ.get("API_SECONDS", 40))
SEED = int(os.environ.get("API_SEED", 15))
MOST_GROWTH = 64 << 20
METHODS = {"get", "put", "post", "patch", "delete", "head", "options", "trace"}
STREAM = "/api/events/stream"
OF_LINES = ("/api/events", "/api/sessions/{session_id}/history")

TABLE = """
GET /health 200
GET /ready 200 503
GET /metrics 200
GET /api/webhooks 200
POST /api/sessions 200 201 400 409 413 415 422
PUT /api/sessions/{session_id} 200 201 400 404 413 415 422
GET /api/sessions 200 422
GET /api/sessions/{session_id} 200 404 422
GET /api/sessions/user/{user_id} 200
PATCH /api/sessions/{session_id}/metadata 200 400 404 413 415 422
POST /api/sessions/{session_id}/notes 200 400 404 413 415 422
GET /api/asks 200 422
POST /api/asks/{ask_id}/answer 200 400 404 409 413 415 422
GET /api/orders 200 422
POST /api/orders 201 400 413 415 422
GET /api/sessions/{session_id}/orders 200 404 422
POST /api/sessions/{session_id}/orders 201 400 404 409 413 415 422
POST /api/sessions/{session_id}/control 200 204 400 404 413 415 422
POST /api/sessions/{session_id}/finalize 200 400 404 413 415 422
DELETE /api/sessions/{session_id} 200 404
POST /api/sessions/{session_id}/history 200 404 409 413 415
GET /api/sessions/{session_id}/resume 200 404
GET /api/sessions/{session_id}/archive 200 404 503
POST /api/sessions/{session_id}/shares 201 400 404 409 413 415 422
GET /api/sessions/{session_id}/shares 200 404
DELETE /api/sessions/{session_id}/shares 200
GET /api/sessions/{session_id}/conversation 200 404 422
GET /api/sessions/{session_id}/events 200 404 422
POST /api/actions/{session_id} 200 400 404 413 415 422
POST /api/actions/{session_id}/responses 200 400 404 413 415 422
GET /api/actions/{session_id} 200 404 422
GET /api/actions/{session_id}/responses 200 404 422
GET /api/state/{session_id} 200 404 422
PATCH /api/state/{session_id} 200 400 404 412 413 415 422
GET /api/state/{session_id}/history 200 404 422
POST /api/state/{session_id}/goals 200 400 404 409 413 415 422
PATCH /api/state/{session_id}/goals/{goal_id} 200 400 404 413 415 422
POST /api/state/{session_id}/agents 200 400 404 409 413 415 422
PATCH /api/state/{session_id}/agents/{agent_id} 200 400 404 413 415 422
POST /api/state/{session_id}/agents/{agent_id}/complete 200 400 404 413 415 422
POST /api/events 200 413 415
GET /api/events 200 422
GET /api/events/stream 200
POST /api/transcripts/{folder}/{session} 200 404 409 412 413 415 422
GET /api/transcripts/{folder}/{session} 200 404 422
POST /api/import 200 400 409 412 413 415 422
DELETE /api/transcripts/{folder}/{session} 200 404 422
GET /api/transcripts/{folder} 200 422
GET /api/transcripts/{folder}/{session}/subkeys 200 422
GET /api/transcripts/{folder}/{session}/summary 200 404 422
PUT /api/transcripts/{folder}/{session}/summary 200 400 404 412 413 415 422
GET /api/checkpoints 200 422
DELETE /api/checkpoints 200 422
POST /api/checkpoints/{thread} 200 404 413 415 422
GET /api/checkpoints/{thread} 200 404 422
DELETE /api/checkpoints/{thread} 200 404 422
GET /api/checkpoints/{thread}/steps 200 404 422
POST /api/checkpoints/{thread}/copy 200 400 404 413 415 422
POST /api/checkpoints/{thread}/prune 200 400 404 413 415 422
GET /api/query/recent 200 422
GET /api/query/active 200
GET /api/query/stats 200
GET /api/query/summary 200
GET /api/query/usage 200 422
GET /api/budgets 200
GET /api/sessions/{session_id}/usage 200 404
GET /api/sessions/{session_id}/changes 200 404
GET /api/query/questions 200
GET /api/query/search 200 422
POST /v1/logs 200 400 413 415
POST /v1/traces 200 400 413 415
POST /v1/metrics 200 400 413 415
POST /api/hooks/claude-code 200 400 413 415 422
POST /api/login 200 400 401 413 415 422
GET /api/push 200
POST /api/push 200 400 409 413 415 422
DELETE /api/push 200 422
GET /api/login 200
DELETE /api/login 200
"""
CONTRACT = {(row.split()[0], row.split()[1]): set(row.split()[2:]) for row in TABLE.strip().splitlines()}
"""Every route and the statuses that are its own."""

# ------------------------------------------------------------------ the document


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> Any:
    answer = http.get("/schema/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            yield (method.upper(), path), item[method]


def test_the_document_is_valid_openapi(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_the_validator_finds_what_is_wrong(document: Any) -> None:
    broken = document | {"paths": {"/health": {"get": {"responses": {"200": {}}}}}}
    assert list(OpenAPIV31SpecValidator(broken).iter_errors()) != []


def test_the_document_names_every_route_and_no_other(document: Any) -> None:
    assert {route for route, _ in operations(document)} == set(CONTRACT)


def test_every_operation_names_its_statuses(document: Any) -> None:
    missing = {route: CONTRACT[route] - set(operation["responses"]) for route, operation in operations(document)}
    assert {route: statuses for route, statuses in missing.items() if statuses} == {}


def test_every_problem_is_described_as_one(document: Any) -> None:
    for route, operation in operations(document):
        for status, response in operation["responses"].items():
            if route[1] != STREAM and status >= "400":
                ((media_type, content),) = response["content"].items()
                assert media_type == "application/problem+json", (route, status)
                assert content["schema"]["$ref"] == "#/components/schemas/ProblemShape"


def test_what_needs_a_token_says_so(document: Any) -> None:
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for (method, path), operation in operations(document):
        if path not in ("/health", STREAM):
            assert "401" in operation["responses"], (method, path)


def test_every_operation_is_explained_and_has_its_own_name(document: Any) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(operation["description"] for _, operation in operations(document))


# ---------------------------------------------------------------------- the page


def test_the_documentation_page_loads_only_what_the_server_has(http: httpx.Client) -> None:
    page = http.get("/schema", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']""", page.text)
    assert len([address for address in loaded if address.startswith("/")]) >= 3
    for address in loaded:
        assert address.startswith(("/schema", "data:")), address
        if address.startswith("/"):
            assert http.get(address).status_code == 200, address
    assert re.findall(r"""["'(](?:https?:)?//[^"')]+""", re.sub(r"http://www\.w3\.org/\S+", "", page.text)) == []


def test_there_is_no_other_asset(http: httpx.Client) -> None:
    for name in ("app.py", "..%2fapp.py", "%2e%2e", "index.html"):
        assert http.get(f"/schema/assets/{name}").status_code == 404


# ------------------------------------------------------------ the server as described


@schemathesis.check
def problems_are_problems(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Every refusal has the members of the contract."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["error"] == problem["detail"] != ""
        assert {"type", "title"} <= set(problem)


@schemathesis.serializer("application/x-ndjson")
def serialize_lines(ctx: SerializationContext, value: object) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def before_call(ctx: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Nobody waits for long."""
    if isinstance(case.body, dict) and isinstance(wait := case.body.get("wait"), int | float) and 0 <= wait <= 50:
        case.body["wait"] = 0


def described_by(url: str) -> BaseSchema:
    """What is to be tried: everything but the stream, which does not end."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "continue-on-failure": True,
            "max-time": SECONDS + 100,
            "output": {"sanitization": {"enabled": False}},
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "no-shrink": True},
            "checks": {
                "positive_data_acceptance": {"enabled": False},  # ids that are taken, times that never were
                "allow_header_conformance": {"enabled": False},  # OPTIONS is the framework's own
            },
            "operations": [  # any text is a batch: bad lines are told in its answer; in a URL everything is text
                {"include-path": path, "checks": {"negative_data_rejection": {"enabled": False}}} for path in OF_LINES
            ]
            + [
                {"include-method": "GET", "checks": {"negative_data_rejection": {"enabled": False}}},
            ],
        }
    )
    return schemathesis.openapi.from_url(f"{url}/schema/openapi.json", config=config).exclude(path=STREAM)


class Tried:
    """Requests over all phases: examples, edges, random and negative data, sequences."""

    def __init__(self, schema: BaseSchema, seconds: float) -> None:
        """For so long, and until there were some requests: the first of all takes long on a busy machine."""
        self.requests, until = 0, time.monotonic() + seconds
        self.failures: list[str] = []
        """What is not as it is described."""
        events = from_schema(schema).execute()
        for event in events:
            self.failures += failures_in(event)
            if isinstance(event, ScenarioFinished):
                self.requests += len(event.recorder.interactions)
            if self.requests > 5 * seconds and time.monotonic() > until:
                events.stop()
                return


def failures_in(event: EngineEvent) -> Iterator[str]:
    if isinstance(event, NonFatalError | FatalError):
        yield f"{event}"
    if isinstance(event, ScenarioFinished):
        yield from failed_checks(event.recorder)


def failed_checks(recorder: ScenarioRecorder) -> Iterator[str]:
    for checks in recorder.checks.values():
        for check in checks:
            if (info := check.failure_info) is not None:
                yield f"{recorder.label}: {check.name}: {info.failure.message}\n{info.code_sample}"


@pytest.mark.timeout(120 + 2 * SECONDS)
@repeated("seconds", few=3.0, many=SECONDS, variable="API_SECONDS")
def test_the_server_answers_as_it_is_described(appliance: Appliance, seconds: float) -> None:
    memory = resident_bytes(appliance.process.pid)
    tried = Tried(described_by(appliance.url), seconds)
    growth = resident_bytes(appliance.process.pid) - memory
    print(f"{tried.requests:,} requests; memory {memory >> 20} MiB, grown by {growth >> 20} MiB")
    assert tried.failures == [], "\n\n".join(tried.failures)
    assert tried.requests > 5 * seconds
    assert appliance.running
    assert growth < MOST_GROWTH


def test_an_untrue_description_is_found_out(appliance: Appliance) -> None:
    schema = described_by(appliance.url).include(path="/health")
    health = schema.raw_schema["paths"]["/health"]["get"]["responses"]["200"]
    health["content"]["application/json"]["schema"] = {"type": "array"}
    tried = from_schema(schema).execute()
    assert any("/health" in failure for event in tried for failure in failures_in(event))
    tried.stop()
