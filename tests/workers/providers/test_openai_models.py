"""Which OpenAI models refuse what, before anything is sent; the simulated provider refuses the same."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from headrace.testing.openai_chat.rules import refusal_of as refused_by_chat
from headrace.testing.openai_responses.rules import refusal_of as refused_by_responses
from headrace.types import Message, Tool
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.openai_models import facts_of, is_likely_on_responses_only, likely_reasons
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings
from tests.cases import each

CHAT, RESPONSES = "openai-chat", "openai-responses"
WEATHER = Tool("weather", "", {"type": "object", "properties": {}})
LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
ALL_LISTED = """
    gpt-6.1-sol gpt-6.1-terra gpt-6-astra gpt-6-sol gpt-6-luna gpt-5.6 gpt-5.6-sol gpt-5.6-terra gpt-5.6-luna gpt-5.5
    gpt-5.5-pro gpt-5.4 gpt-5.4-mini gpt-5.4-nano gpt-5.4-pro gpt-5.2 gpt-5.2-pro gpt-5.2-chat-latest gpt-5.1
    gpt-5.1-chat-latest gpt-5 gpt-5-mini gpt-5-nano gpt-5-pro gpt-5-codex gpt-5-chat-latest o1 o1-pro o3 o3-mini o3-pro
    o3-deep-research o4-mini o4-mini-deep-research gpt-4.1 gpt-4o gpt-4o-mini gpt-3.5-turbo
"""
SIMULATED = ALL_LISTED.split()


def asked(model: str, **fields: Any) -> RunRequest:
    return RunRequest(provider="openai", model=model, messages=[Message("user", "hi")], stream=True, **fields)


def built(api: str, request: RunRequest, name: str | None = None) -> dict[str, Any]:
    """Return the body in one wire format. A provider with another ``name`` is not checked by the table."""
    settings = ProviderSettings(name=name or api, api=api, base_url="https://api.openai.com/v1")
    body: dict[str, Any] = json.loads(WIRE_FORMATS[api].api.build_request(request, settings, None).body)
    return body


def refusal(api: str, request: RunRequest) -> tuple[str, str] | None:
    """Return the argument that Headrace refuses, and why; None if it refuses nothing."""
    try:
        built(api, request)
    except ProviderFailedError as error:
        return str(error.failure.argument), error.failure.reason
    return None


@each(
    ("model", "levels"),
    [
        ("gpt-6-astra", "low medium high xhigh max"),
        ("gpt-6.2-astra", "low medium high xhigh max"),
        ("gpt-6.1-sol", "low medium high xhigh max"),
        ("gpt-6.1-terra", "none low medium high xhigh max"),
        ("gpt-6-luna", "none low medium high xhigh max"),
        ("gpt-5.6-terra", "none low medium high xhigh max"),
        ("gpt-5.5", "none low medium high xhigh"),
        ("gpt-5.5-pro", "medium high xhigh"),
        ("gpt-5.4-nano", "none low medium high xhigh"),
        ("gpt-5.3-codex", "none low medium high xhigh"),
        ("gpt-5.2", "none low medium high xhigh"),
        ("gpt-5.2-codex", "low medium high xhigh"),
        ("gpt-5.2-chat-latest", "medium"),
        ("gpt-5.1", "none low medium high"),
        ("gpt-5.1-codex-mini", "none low medium high"),
        ("gpt-5-2025-08-07", "minimal low medium high"),
        ("gpt-5-pro", "high"),
        ("gpt-5-codex", "low medium high"),
        ("o3-mini", "low medium high"),
        ("o4-mini-deep-research", "medium"),
        ("ft:o4-mini-2025-04-16:org::id", "low medium high"),
        ("computer-use-preview", "medium"),
        ("gpt-4o", ""),
        ("gpt-5-chat-latest", ""),
        ("ft:gpt-4.1-mini:org::id", ""),
        ("gpt-7", " ".join(LEVELS)),
        ("gpt-5.6-cyber", " ".join(LEVELS)),
        ("llama-3", " ".join(LEVELS)),
    ],
)
def test_a_level_of_effort_that_the_model_lacks_is_refused_by_name(model: str, levels: str) -> None:
    taken = [level for level in LEVELS if refusal(RESPONSES, asked(model, reasoning_effort=level)) is None]

    assert taken == levels.split()


def test_the_refusal_of_a_level_names_the_levels_the_date_and_the_way_around() -> None:
    assert refusal(CHAT, asked("gpt-5.6", reasoning_effort="minimal")) == (
        "reasoning_effort",
        "gpt-5.6 takes none, low, medium, high, xhigh, max, not minimal "
        "(as of 2026-11; custom_options={'reasoning_effort': 'minimal'} is sent unchecked)",
    )
    sent = built(CHAT, asked("gpt-5.6", custom_options={"reasoning_effort": "minimal"}))
    assert sent["reasoning_effort"] == "minimal"
    assert refusal(RESPONSES, asked("gpt-4o", reasoning_effort="low")) == (
        "reasoning_effort",
        "gpt-4o does not take it, because it does not reason "
        "(as of 2026-11; custom_options={'reasoning': {'effort': 'low'}} is sent unchecked)",
    )


SAMPLING: dict[str, Any] = {"temperature": 0.3, "top_p": 0.5, "top_logprobs": 2, "logprobs": True}
PENALTIES: dict[str, Any] = {"frequency_penalty": 0.5, "presence_penalty": -0.5}


@each(
    ("model", "effort", "is_refused"),
    [
        ("gpt-6-astra", None, True),
        ("gpt-5.6", None, True),
        ("gpt-5.6", "none", False),
        ("gpt-5.5", None, True),
        ("gpt-5.4", None, False),
        ("gpt-5.4", "low", True),
        ("gpt-5.1", None, False),
        ("gpt-5.1-chat-latest", None, True),
        ("gpt-5", None, True),
        ("o3", "low", True),
        ("gpt-4o", None, False),
        ("gpt-7", "high", False),
        ("m", "high", False),
    ],
)
def test_sampling_is_refused_while_the_model_reasons(model: str, effort: str | None, *, is_refused: bool) -> None:
    for api, options in ((CHAT, SAMPLING | PENALTIES), (RESPONSES, SAMPLING)):
        for name, value in options.items():
            said = refusal(api, asked(model, reasoning_effort=effort, **{name: value}))
            assert (said is not None) == is_refused, (api, name, said)
            assert said is None or said[0] == name
            assert "sent unchecked" in (said or ("", "sent unchecked"))[1]


def test_default_values_of_sampling_are_let_through_and_an_effort_in_the_options_counts() -> None:
    assert refusal(CHAT, asked("o3", temperature=1, top_p=1.0)) is None
    cool = {"temperature": 0.3}
    assert refusal(CHAT, asked("gpt-5.6", **cool, custom_options={"reasoning_effort": "none"})) is None
    assert refusal(RESPONSES, asked("gpt-5.4", **cool, custom_options={"reasoning": {"effort": "low"}})) is not None
    assert refusal(CHAT, asked("o3", custom_options={"temperature": 0.3})) is None


@each(
    ("model", "fields", "argument"),
    [
        ("o3", {"stop_sequences": ["x"]}, "stop_sequences"),
        ("o4-mini-2025-04-16", {"stop_sequences": ["x"]}, "stop_sequences"),
        ("gpt-5-nano", {"stop_sequences": ["x"]}, "stop_sequences"),
        ("gpt-5.2", {"stop_sequences": ["x"]}, "stop_sequences"),
        ("gpt-5.6", {"stop_sequences": ["x"]}, None),
        ("o1", {"stop_sequences": ["x"]}, None),
        ("gpt-4o", {"stop_sequences": ["x"]}, None),
        ("o3-mini", {"parallel_tool_calls": False}, "parallel_tool_calls"),
        ("gpt-5", {"parallel_tool_calls": False}, None),
        ("gpt-4.1", {"verbosity": "low"}, "verbosity"),
        ("gpt-4.1", {"verbosity": "medium"}, None),
        ("gpt-5", {"verbosity": "low"}, None),
        ("gpt-5-pro", {}, "model"),
        ("gpt-5.1-codex-max", {}, "model"),
        ("codex-mini-latest", {}, "model"),
        ("o3-deep-research", {}, "model"),
        ("computer-use-preview-2025-03-11", {}, "model"),
        ("gpt-8-pro", {}, None),
        ("gpt-5.6-sol", {"tools": [WEATHER]}, "tools"),
        ("gpt-6-luna", {"tools": [WEATHER]}, "tools"),
        ("gpt-6-luna", {"tools": [WEATHER], "reasoning_effort": "none"}, None),
        ("gpt-6.1-terra", {"tools": [WEATHER], "reasoning_effort": "none"}, "tools"),
        ("gpt-6-astra", {"tools": [WEATHER], "reasoning_effort": "low"}, "tools"),
        ("gpt-5.4", {"tools": [WEATHER]}, None),
        ("gpt-5.4", {"tools": [WEATHER], "reasoning_effort": "low"}, "tools"),
        ("gpt-5.5", {"tools": [WEATHER], "reasoning_effort": "high"}, "tools"),
        ("gpt-5.5", {"tools": [WEATHER], "reasoning_effort": "none"}, None),
        ("gpt-5.2", {"tools": [WEATHER], "reasoning_effort": "low"}, None),
        ("gpt-5.6", {"tools": [Tool("sql", type="custom")]}, None),
        ("gpt-9", {"tools": [WEATHER], "reasoning_effort": "low"}, None),
    ],
)
def test_what_chat_completions_refuses_of_a_model(model: str, fields: dict[str, Any], argument: str | None) -> None:
    said = refusal(CHAT, asked(model, **fields))

    assert (said and said[0]) == argument


def test_the_refusal_of_tools_says_what_to_do() -> None:
    assert refusal(CHAT, asked("gpt-5.6", tools=[WEATHER])) == (
        "tools",
        "gpt-5.6 calls no functions on Chat Completions while it reasons (as of 2026-11): "
        'give reasoning_effort="none", or use the provider openai-responses',
    )
    said = refusal(CHAT, asked("gpt-6-astra", tools=[WEATHER]))
    assert said is not None
    assert said[1].endswith("(as of 2026-11): leave tools out, or use the provider openai-responses")


@pytest.mark.parametrize("name", ["azure", "openrouter", "mine"])
def test_other_providers_are_not_judged_by_openais_table(name: str) -> None:
    request = asked("gpt-5", reasoning_effort="none", temperature=0.3, tools=[WEATHER], stop_sequences=["x"])

    assert built(CHAT, request, name)["temperature"] == 0.3


def test_unknown_models_are_judged_by_their_names_for_the_first_try_only() -> None:
    assert [facts_of(model) for model in ("gpt-7", "gpt-6-cyber", "m", "openai/gpt-5")] == [None] * 4
    assert is_likely_on_responses_only("gpt-7-pro")
    assert is_likely_on_responses_only("gpt-7-codex-max")
    assert is_likely_on_responses_only("o5-mini-deep-research")
    assert not any(map(is_likely_on_responses_only, ("gpt-7-profile", "gemini-2.5-pro", "qwen-pro", "gpt-oss-pro")))
    assert not is_likely_on_responses_only("gpt-5-pro")
    assert likely_reasons("gpt-7")
    assert not likely_reasons("llama-5")


def test_the_simulated_provider_refuses_a_request_if_and_only_if_headrace_does() -> None:
    tried = 0
    options: list[dict[str, Any]] = [
        {},
        {"temperature": 0.3},
        {"verbosity": "low"},
        {"parallel_tool_calls": True, "tools": [WEATHER]},
        {"tools": [WEATHER]},
    ]
    for model, effort, extra in product(SIMULATED, (None, *LEVELS), options):
        # gpt-5.5 reasons by default; whether it then calls functions on Chat Completions, the sources do not say.
        if model == "gpt-5.5" and effort is None and "tools" in extra:
            continue
        request = asked(model, reasoning_effort=effort, **extra)
        for api, refused in ((CHAT, refused_by_chat), (RESPONSES, refused_by_responses)):
            simulated = refused(built(api, request, "mine"))
            told = refusal(api, request)
            assert (simulated is None) == (told is None), (model, effort, extra, api, simulated, told)
            tried += 1
    assert tried > 2000
