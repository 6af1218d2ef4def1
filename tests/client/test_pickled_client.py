"""A copy of a client is a client of its own: what it closes is its own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import Client, EngineUnavailableError

WAYS: dict[str, Callable[[Client], Client]] = {
    "pickle": lambda client: pickle.loads(pickle.dumps(client)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
def test_closing_a_copy_leaves_the_originals_streams(client: Client, way: str) -> None:
    options = {"simulate": {"repeat": 60, "pace": 0.005}}
    messages = [{"role": "user", "content": "Hello"}]
    stream = client.run_local(model="gpt-4o", messages=messages, stream=True, custom_options=options)
    iterator = iter(stream)
    first = next(iterator)

    with WAYS[way](client) as other:
        assert (
            other.run_local(model="gpt-4o", messages=messages, custom_options={"simulate": {"text": "Hi"}}).text == "Hi"
        )
    with pytest.raises(EngineUnavailableError, match="closed"):
        other.run_local(model="gpt-4o", messages=messages)

    assert first + "".join(iterator) == "".join(f"{number} " for number in range(60))
    assert not stream.result.result().aborted


def test_a_pickled_client_carries_no_key_and_nothing_of_earlier_calls(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-this-environment")

    class Answer(BaseModel):
        word: str

    messages = [{"role": "user", "content": "Hello"}]
    said: dict[str, Any] = {"simulate": {"text": '{"word": "hi"}'}}
    for _ in range(3):  # the first two of a shape are remembered
        client.run_local(model="gpt-4o", messages=messages, custom_options=said, response_type=Answer)
        client.run_local(model="gpt-4o", messages=messages, provider_api_key="sk-of-the-caller", custom_options=said)

    pickled = pickle.dumps(client)
    assert b"sk-of" not in pickled
    with pickle.loads(pickled) as other:
        assert other.run_local(model="gpt-4o", messages=messages, custom_options=said, response_type=Answer).parsed
