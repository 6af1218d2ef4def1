"""Conversations with the provider ``openai`` that change between its two APIs, through real processes.

The simulated provider refuses what the real models refuse, so that an answer proves the choice.
"""

from __future__ import annotations

import pytest

from headrace import Client, InvalidRequestError, Message, StreamResult
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate

MODEL = "gpt-5.6-sol"
WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def paths(provider: SimulatedProvider) -> list[str]:
    return [record.path for record in provider.requests()]


def test_a_conversation_goes_from_chat_completions_to_responses_and_back(
    client: Client, provider: SimulatedProvider
) -> None:
    messages: list[Message | dict[str, str]] = [*HELLO]
    first = client.run_local(model=MODEL, messages=messages, custom_options=simulate(text="Hello."))
    messages += [first.message, {"role": "user", "content": "What is the weather?"}]
    script = simulate(
        reasoning="They ask for weather.", text="Let me see.", tool_calls=[{"name": "get_weather", "arguments": {}}]
    )
    second = client.run_local(model=MODEL, messages=messages, tools=[WEATHER], stream=True, custom_options=script)
    asked = second.result.result()
    (call,) = asked.tool_calls
    messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    third = client.run_local(model=MODEL, messages=messages, tools=[WEATHER])
    messages += [third.message, {"role": "user", "content": "Thanks."}]
    fourth = client.run_local(model=MODEL, messages=messages, custom_options=simulate(text="Bye."))

    assert paths(provider) == [CHAT, RESPONSES, RESPONSES, CHAT]
    formats = [result.wire_format for result in (first, asked, third, fourth)]
    assert formats == ["openai-chat", "openai-responses", "openai-responses", "openai-chat"]
    assert {result.provider for result in (first, asked, third, fourth)} == {"openai"}
    assert asked.reasoning == "They ask for weather."
    assert third.text.startswith("The tool answered: sunny")
    assert all(result.cost for result in (first, asked, third, fourth))


def test_a_stream_that_was_aborted_knows_its_wire_format(client: Client) -> None:
    stream = client.run_local(
        model=MODEL, messages=HELLO, tools=[WEATHER], stream=True, custom_options=simulate(repeat=3, stall_after=2)
    )
    iterator = iter(stream)
    next(iterator)
    stream.abort()
    result = stream.result.result()

    assert isinstance(result, StreamResult)
    assert (result.aborted, result.wire_format) == (True, "openai-responses")


def test_a_wire_format_chosen_by_hand_and_one_that_cannot_be(client: Client, provider: SimulatedProvider) -> None:
    by_hand = client.run_local(model="openai-responses/gpt-4o", messages=HELLO)
    assert (by_hand.provider, by_hand.wire_format) == ("openai-responses", "openai-responses")
    assert client.run_local(model="openai-chat/gpt-4o", messages=HELLO).wire_format == "openai-chat"
    sent = len(paths(provider))

    with pytest.raises(InvalidRequestError, match=r"^tools: .* while it reasons"):
        client.run_local(model=f"openai-chat/{MODEL}", messages=HELLO, tools=[WEATHER])
    with pytest.raises(InvalidRequestError, match=r"refuses stop_sequences.*refuses tools"):
        client.run_local(model=MODEL, messages=HELLO, tools=[WEATHER], stop_sequences=["x"])

    assert len(paths(provider)) == sent


def test_the_simulated_provider_refuses_tools_on_chat_completions_in_openais_words(client: Client) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    with pytest.raises(InvalidRequestError) as caught:
        client.run_local(model=f"openai-chat/{MODEL}", messages=HELLO, custom_options={"tools": tools})

    assert caught.value.status_code == 400
    assert caught.value.reason.startswith(f"Function tools with reasoning_effort are not supported for {MODEL}")
