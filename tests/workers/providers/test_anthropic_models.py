"""What Claude models refuse, before anything is sent; the simulated provider refuses the same."""

from __future__ import annotations

from itertools import product
from typing import Any

from headrace.testing.anthropic.rules import VERSIONS
from headrace.testing.anthropic.rules import refusal_of as refused_by_anthropic
from headrace.types import Message, ReasoningPart, TextPart, Tool
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.anthropic.models import facts_of
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.cases import each
from tests.workers.providers.model_requests import HI, body_sent, refusal_of

SETTINGS = ProviderSettings(name="anthropic", api="anthropic", base_url="https://api.anthropic.com")
WEATHER = Tool("weather", "", {"type": "object", "properties": {}})
SAID = Message("assistant", "Once upon a time")
ADAPTIVE = """
    claude-fable-5 claude-fable-5-1 claude-mythos-5 claude-opus-5-5 claude-sonnet-5-5 claude-haiku-5-5 claude-opus-5
    claude-sonnet-5 claude-opus-4-8 claude-opus-4-7 claude-opus-4-7-20260416 claude-opus-4-6 claude-sonnet-4-6
"""
BUDGET = "claude-opus-4-5 claude-sonnet-4-5-20250929 claude-haiku-4-5 claude-3-7-sonnet-20250219 claude-opus-4-20250514"
OLD = "claude-3-5-sonnet-20241022 claude-3-haiku-20240307"
MODELS = f"{ADAPTIVE} {BUDGET} {OLD}".split()
LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def sent(model: str, *messages: Message, **fields: Any) -> dict[str, Any]:
    return body_sent(API, SETTINGS, model, *messages, **fields)


def refusal(model: str, *messages: Message, **fields: Any) -> tuple[str, str] | None:
    return refusal_of(lambda: sent(model, *messages, **fields))


@each(
    ("model", "levels"),
    [
        ("claude-fable-5", "minimal low medium high xhigh max"),
        ("claude-opus-5-5", "minimal low medium high xhigh max"),
        ("claude-sonnet-5-5", "none minimal low medium high xhigh max"),
        ("claude-opus-5", "none minimal low medium high xhigh max"),
        ("claude-opus-4-6", "none minimal low medium high max"),
        ("claude-sonnet-4-5", "none minimal low medium high xhigh max"),
        ("claude-3-haiku-20240307", "none"),
        ("claude-opus-9", "none minimal low medium high xhigh max"),
    ],
)
def test_a_level_of_effort_that_the_model_lacks_is_refused_by_name(model: str, levels: str) -> None:
    assert [level for level in LEVELS if refusal(model, reasoning_effort=level) is None] == levels.split()


def test_the_refusal_of_a_level_names_the_levels_the_date_and_the_way_around() -> None:
    assert refusal("claude-opus-4-6", reasoning_effort="xhigh") == (
        "reasoning_effort",
        "claude-opus-4-6 takes none, minimal, low, medium, high, max, not xhigh "
        "(as of 2026-11; custom_options={'output_config': {'effort': 'xhigh'}} is sent unchecked)",
    )
    assert refusal("claude-fable-5", reasoning_effort="none") == (
        "reasoning_effort",
        "claude-fable-5 always thinks, so it takes no none: use low "
        "(as of 2026-11; custom_options={'thinking': {'type': 'disabled'}} is sent unchecked)",
    )


def test_thinking_is_turned_off_in_the_models_own_way() -> None:
    assert sent("claude-sonnet-5-5", reasoning_effort="none")["thinking"] == {"type": "between_tools"}
    assert sent("claude-opus-5", reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert sent("claude-haiku-4-5", reasoning_effort="none")["thinking"] == {"type": "disabled"}


@each(
    ("model", "is_refused"),
    [
        ("claude-fable-5-1", True),
        ("claude-opus-5-5", True),
        ("claude-sonnet-5-5", True),
        ("claude-mythos-preview", True),
        ("claude-haiku-5-5", False),
        ("claude-opus-5", False),
        ("claude-sonnet-4-6", False),
        ("claude-haiku-4-5", False),
        ("claude-opus-9", False),
    ],
)
def test_a_forced_call_is_refused_by_models_that_cannot_be_forced(model: str, *, is_refused: bool) -> None:
    for choice in ("required", {"tool": "weather"}):
        said = refusal(model, tools=[WEATHER], tool_choice=choice)
        assert (said is not None) == is_refused
        assert said is None or (said[0], "sent unchecked" in said[1]) == ("tool_choice", True)
    assert refusal(model, tools=[WEATHER], tool_choice="auto") is None


@each(
    ("model", "is_refused"),
    [
        ("claude-opus-5-5", True),
        ("claude-sonnet-4-6", True),
        ("claude-opus-4-7", True),
        ("claude-sonnet-4-5", False),
        ("claude-3-haiku-20240307", False),
        ("claude-opus-9", False),
        ("kimi-k3", False),
    ],
)
def test_a_last_message_of_the_assistant_is_refused_by_models_that_do_not_go_on(
    model: str, *, is_refused: bool
) -> None:
    for said in (SAID, Message("assistant", [TextPart("Once")])):
        told = refusal(model, HI, said)
        assert (told is not None) == is_refused
        assert told is None or (told[0], "sent unchecked" in told[1]) == ("messages[1]", True)
    block = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    paused = Message("assistant", [TextPart("Let me see."), ReasoningPart("", {"api": "anthropic", "block": block})])
    assert refusal(model, HI, paused) is None


def test_nothing_is_refused_in_the_name_of_an_unknown_claude() -> None:
    for model in ("claude-opus-9", "claude-next", "claude-opus-5-7"):
        assert facts_of(model).thinking == "adaptive"
        assert refusal(model, HI, SAID, temperature=0.3, top_k=4, tools=[WEATHER], tool_choice="required") is None


def test_the_simulated_provider_takes_what_headrace_sends_and_refuses_what_it_refuses() -> None:
    tried = 0
    choices: list[dict[str, Any]] = [{}, {"tools": [WEATHER]}, {"tools": [WEATHER], "tool_choice": "required"}]
    for model, effort, tools, temperature, messages in product(
        MODELS, (None, *LEVELS), choices, (None, 1.0), ([HI], [HI, SAID])
    ):
        fields = {"reasoning_effort": effort, "temperature": temperature, **tools}
        if refusal(model, *messages, **fields) is None:
            version = VERSIONS[1] if temperature is None else VERSIONS[0]
            assert refused_by_anthropic(sent(model, *messages, **fields), version) is None, (model, fields)
            tried += 1
    assert tried > 600
    for model in MODELS:
        for arguments, options in (
            ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
            ({"reasoning_effort": "xhigh"}, {"output_config": {"effort": "xhigh"}}),
            ({"temperature": 0.5}, {"temperature": 0.5}),
            ({"tools": [WEATHER], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ):
            said = refusal(model, **arguments)
            if said is not None:
                tools = arguments.get("tools", [])
                unchecked = sent(model, tools=tools, custom_options=options)
                assert refused_by_anthropic(unchecked, VERSIONS[0]) is not None, (model, arguments)
