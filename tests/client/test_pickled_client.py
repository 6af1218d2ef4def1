"""A copy of a client is a client of its own: what it closes is its own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

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
