"""Every route called with bodies and parameters made from the application's own OpenAPI document: no answer is a fault of ours."""

import json
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from distmark.partners.model import Role
from distmark.web.api.viewer import api_token
from tests import factories as make
from tests.depth import examples
from tests.web.conftest import SAME_SITE, PartnerPair
from tests.web.routes import SIGNED_OUT

pytestmark = [
    pytest.mark.filterwarnings("ignore:Duplicate Operation ID"),
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),  # Schemathesis does, where the order of its imports lets it
    pytest.mark.timeout(300),
]
FOR_EACH = {"api": 40, "public": 10, "page": 3}
QUICK = settings(
    deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)


def document(pair: PartnerPair) -> dict[str, Any]:
    """The OpenAPI document. The pair's own keys and ids stand in it beside the descriptions, so that some calls get past the lookups."""
    described: dict[str, Any] = json.loads(json.dumps(pair.app.openapi()))
    own: dict[str, Any] = {
        "key": pair.journey.key,
        "journey": pair.journey.key,
        "campaign": pair.campaign.key,
        "campaign_id": pair.campaign.id,
        "contact": pair.here.contact.id,
        "contact_id": pair.here.contact.id,
        "email": pair.here.contact.email,
        "id": pair.here.contact.id,
        "enrollment_id": pair.here.enrollment.id,
        "version_id": pair.version.id,
    }
    _put_in(described["paths"], own)
    return described


def _put_in(part: Any, own: dict[str, Any]) -> None:
    if isinstance(part, dict):
        if isinstance(part.get("in"), str) and part["name"] in own:
            part["schema"] = {"anyOf": [{"const": own[part["name"]]}, part["schema"]]}
        properties = part.get("properties")
        if isinstance(properties, dict):
            part["properties"] = {
                name: {"anyOf": [{"const": own[name]}, kind]} if name in own else kind for name, kind in properties.items()
            }
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _put_in(each, own)


def kind_of(path: str, name: str) -> str:
    if path.startswith("/api/"):
        return "api"
    return "public" if any(name.startswith(each) for each in SIGNED_OUT) else "page"


@pytest.mark.parametrize("kind", list(FOR_EACH))
def test_no_call_that_the_document_allows_or_forbids_is_a_fault(pair: PartnerPair, kind: str):
    with pair.db.writing() as session:
        user = make.make_user(session, Role.ops, session.get(type(pair.brand), pair.brand.id))
        bearer = api_token(pair.app.state.site, user.id)
    client = pair.as_(Role.ops)
    faults: dict[str, Any] = {}
    called, statuses = 0, set[int]()

    for found in schemathesis.openapi.from_dict(document(pair)).get_all_operations():
        operation = found.ok()
        if kind_of(operation.path, operation.definition.raw.get("operationId", "")) != kind:
            continue
        called += 1
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(QUICK, max_examples=examples(FOR_EACH[kind]))
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case: Case) -> None:
                status = answer_of(client, case, bearer)
                statuses.add(status)
                if status >= 500 and not case.path.endswith("/readyz"):
                    faults[f"{case.method} {case.path}"] = (status, case.path_parameters, case.query, str(case.body)[:300])

            with suppress(Unsatisfiable):  # a route without parameters has no call that its description forbids
                call()
    assert called >= {"api": 6, "public": 10, "page": 50}[kind]
    assert faults == {}
    assert statuses & {200, 201, 303}, "no call got past the lookups"
    assert kind != "api" or {404, 422} <= statuses


def answer_of(client: TestClient, case: Case, bearer: str) -> int:
    sent = case.as_transport_kwargs(base_url="http://testserver")
    headers = {**SAME_SITE, **dict(sent.get("headers") or {}), "authorization": f"Bearer {bearer}"}
    content = {name: sent[name] for name in ("json", "params") if sent.get(name) is not None}
    if sent.get("data") is not None:
        content["content" if isinstance(sent["data"], bytes | str) else "data"] = sent["data"]
    return client.request(case.method, sent["url"], headers=headers, **content).status_code
