"""Forty types go through each wire format to the strict simulated provider, and come back as objects."""

from __future__ import annotations

from typing import Any

import msgspec
import pydantic
import pytest

from headrace import Client, LocalStream
from headrace.schemas.type_reading import decoder_of
from headrace.testing import SimulatedProvider
from tests.answer_models import ANSWER_MODELS, Bill, Contact, ManyOptional
from tests.cases import case
from tests.conftest import HELLO
from tests.e2e.provider_runs import MODELS

ALL_MODELS = [*MODELS.items(), ("anthropic", "claude-sonnet-4-0")]
"""A model of each wire format, and a Claude that takes no schema."""


@pytest.mark.parametrize(("provider_name", "model"), ALL_MODELS)
def test_an_object_of_each_type_comes_back(
    client: Client, provider: SimulatedProvider, provider_name: str, model: str
) -> None:
    asked: dict[str, Any] = {"provider": provider_name, "model": model, "messages": HELLO}
    streams: dict[str, LocalStream] = {
        name: client.run_local(stream=True, response_type=kind, **asked) for name, kind in ANSWER_MODELS.items()
    }
    for name, stream in streams.items():
        with case(name):
            result = stream.result.result()
            assert result.finish_reason == "stop"
            assert result.tool_calls == []
            kind = ANSWER_MODELS[name]
            assert decoder_of(kind)(as_json(result.parsed)) == result.parsed  # sets have no order
            if isinstance(kind, type) and not is_typed_dict(kind):
                assert isinstance(result.parsed, kind)
    assert [record.status for record in provider.requests()] == [200] * len(ANSWER_MODELS)


def as_json(value: Any) -> Any:
    """Return an object as plain JSON values."""

    def plain(inner: Any) -> Any:
        return inner.model_dump(mode="json", by_alias=True) if isinstance(inner, pydantic.BaseModel) else str(inner)

    return msgspec.to_builtins(plain(value) if isinstance(value, pydantic.BaseModel) else value, enc_hook=plain)


def is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict)


def test_the_simulated_model_fills_all_fields(client: Client) -> None:
    bill = client.run_local(model="gpt-5", messages=HELLO, response_type=Bill).parsed
    assert isinstance(bill, Bill)
    assert len(bill.lines) == 2
    optional = client.run_local(model="claude-opus-5", messages=HELLO, response_type=ManyOptional).parsed
    assert None not in vars(optional).values()


class Noted(pydantic.BaseModel):
    note: str | None = None
    name: str


def test_the_simulated_claude_answers_with_required_properties_first(client: Client) -> None:
    texts = [
        client.run_local(model=model, messages=HELLO, response_type=Noted).text for model in ("claude-opus-5", "gpt-5")
    ]
    assert [list(msgspec.json.decode(text)) for text in texts] == [["name", "note"], ["note", "name"]]


def test_a_tool_is_called_before_an_old_claude_answers_with_an_object(client: Client) -> None:
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}
    asked = [{"role": "user", "content": "The weather?"}]
    settings: dict[str, Any] = {"provider": "anthropic", "model": "claude-3-7-sonnet-latest", "tools": [weather]}
    first = client.run_local(**settings, messages=asked, response_type=Contact)

    assert first.parsed is None
    assert [call.name for call in first.tool_calls] == ["weather"]
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "Sun."}
    last = client.run_local(**settings, messages=[*asked, first.message, result], response_type=Contact)

    assert isinstance(last.parsed, Contact)
    assert last.finish_reason == "stop"
