"""Without a script, the simulated model gives what a request asks for, on every wire format."""

from __future__ import annotations

import jsonschema
import pytest

from headrace import Client, LocalStream
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.provider_runs import MODELS, PROVIDERS

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "visits": {"type": "array", "items": {"type": "integer"}},
        "host": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
    "required": ["city", "visits", "host"],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_request_with_a_json_schema_gets_an_instance_of_it(
    client: Client, provider: SimulatedProvider, name: str, stream: bool
) -> None:
    run = client.run_local(provider=name, model=MODELS[name], messages=HELLO, response_type=SCHEMA, stream=stream)
    result = run.result.result() if isinstance(run, LocalStream) else run

    jsonschema.validate(result.parsed, SCHEMA)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_tool_that_must_be_called_gets_arguments_that_fit_its_schema(
    client: Client, provider: SimulatedProvider, name: str
) -> None:
    tool = {"name": "visit", "parameters": SCHEMA}
    result = client.run_local(provider=name, model=MODELS[name], messages=HELLO, tools=[tool], tool_choice="required")

    (call,) = result.tool_calls
    jsonschema.validate(call.arguments, SCHEMA)
