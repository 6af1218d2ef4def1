"""Each value that a caller gives is in the request body, or the run is refused with the value's path.

Nothing vanishes.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings

from headrace.arguments.checked_request import build_request
from headrace.arguments.original_paths import OriginalPaths, original_path
from headrace.arguments.run_arguments import RunArguments
from headrace.errors import InvalidRequestError
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.codec import decode_request, encode_request
from headrace_workers.providers.shared.wire_format import ProviderFailedError
from headrace_workers.worker_settings import Providers
from tests.cases import each
from tests.repetition import repeated
from tests.workers.providers.marked_arguments import FURTHER_KEYS, arguments, is_path, marks_in, pairs_in

FORMATS = {
    "openai-chat": "https://api.openai.com/v1",
    "openai-responses": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
MODELS = {
    "openai-chat": "m",
    "openai-responses": "m",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
}
PROVIDERS = Providers(
    Settings(providers={name: ProviderConfig(api=name, base_url=url) for name, url in FORMATS.items()}), {}
)
NAMES = {key for keys in FURTHER_KEYS.values() for key in keys}


def sent(api: str, asked: dict[str, Any]) -> dict[str, Any] | str:
    """Return the request body, or the path in the refusal."""
    whole = cast("RunArguments", {"model": MODELS[api], "provider": api, **asked})
    original_paths: OriginalPaths = {}
    try:
        request = build_request(
            whole, stream=True, trace_id="tr_0123456789abcdef", providers=list(FORMATS), original_paths=original_paths
        )
        prepared = PROVIDERS.prepare(decode_request(encode_request(request)), "sk-1")
    except InvalidRequestError as error:
        return str(error.argument)
    except ProviderFailedError as error:
        return original_path(str(error.failure.argument), original_paths)
    body: dict[str, Any] = msgspec.json.decode(prepared.request.body)
    return body


@pytest.mark.parametrize("api", FORMATS)
def test_each_given_value_is_sent_or_refused_by_its_path(api: str) -> None:
    counts = {"sent": 0, "refused": 0}

    @settings(max_examples=repeated(60, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(asked=arguments())
    @example(asked={"messages": [{"role": "user", "content": [{"type": "file", "text": "mark1."}]}]})
    def check(asked: dict[str, Any]) -> None:
        result = sent(api, asked)
        if isinstance(result, str):
            counts["refused"] += 1
            assert is_path(asked, result), result
            return
        counts["sent"] += 1
        assert marks_in(asked) <= marks_in(result)
        further = {(key, value) for key, value in pairs_in(asked) if key in NAMES}
        if api == "google":  # strictness is a mode of all calls there, and False is how it is without
            further -= {("strict", True), ("strict", False)}
        assert further <= set(pairs_in(result))

    check()
    assert min(counts.values()) >= 3, counts


TOOLS = [{"name": "f", "parameters": {"type": "object"}}]
OPTIONS: dict[str, Any] = {
    "seed": 7,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "top_k": 40,
    "logprobs": True,
    "top_logprobs": 3,
    "parallel_tool_calls": False,
    "metadata": {"user_id": "u-1"},
    "service_tier": "tier",
    "verbosity": "low",
}
SENT: dict[str, dict[str, dict[str, Any]]] = {
    "openai-chat": {
        "seed": {"seed": 7},
        "frequency_penalty": {"frequency_penalty": 0.5},
        "presence_penalty": {"presence_penalty": -0.5},
        "logprobs": {"logprobs": True},
        "top_logprobs": {"logprobs": True, "top_logprobs": 3},
        "parallel_tool_calls": {"parallel_tool_calls": False},
        "metadata": {"metadata": {"user_id": "u-1"}},
        "service_tier": {"service_tier": "tier"},
        "verbosity": {"verbosity": "low"},
    },
    "openai-responses": {
        "logprobs": {"include": ["message.output_text.logprobs"]},
        "top_logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
        "parallel_tool_calls": {"parallel_tool_calls": False},
        "metadata": {"metadata": {"user_id": "u-1"}},
        "service_tier": {"service_tier": "tier"},
        "verbosity": {"text": {"verbosity": "low"}},
    },
    "anthropic": {
        "top_k": {"top_k": 40},
        "parallel_tool_calls": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        "metadata": {"metadata": {"user_id": "u-1"}},
    },
    "google": {
        "seed": {"generationConfig": {"seed": 7}},
        "frequency_penalty": {"generationConfig": {"frequencyPenalty": 0.5}},
        "presence_penalty": {"generationConfig": {"presencePenalty": -0.5}},
        "top_k": {"generationConfig": {"topK": 40}},
        "logprobs": {"generationConfig": {"responseLogprobs": True}},
        "top_logprobs": {"generationConfig": {"responseLogprobs": True, "logprobs": 3}},
        "metadata": {"labels": {"user_id": "u-1"}},
    },
}
"""Wire format → argument → the fields that it becomes. All other arguments of OPTIONS are refused."""


def asked(**options: Any) -> dict[str, Any]:
    return {"messages": "Hi", "tools": TOOLS, **options}


@each(("api", "name"), [(api, name) for api in FORMATS for name in OPTIONS])
def test_each_option_is_sent_where_the_format_has_it_and_refused_by_its_name_elsewhere(api: str, name: str) -> None:
    result, without = sent(api, asked(**{name: OPTIONS[name]})), sent(api, asked())
    assert isinstance(without, dict)
    expected = SENT[api].get(name)
    if expected is None:
        assert result == name
        return
    assert isinstance(result, dict)
    assert {key: value for key, value in result.items() if value != without.get(key)} == expected


@each(
    ("api", "options", "fields"),
    [
        ("anthropic", {"service_tier": "standard_only"}, {"service_tier": "standard_only"}),
        ("google", {"service_tier": "flex"}, {"serviceTier": "flex"}),
        ("google", {"parallel_tool_calls": True}, {}),
        ("google", {"parallel_tool_calls": False, "tool_choice": "none"}, {}),
        ("google", {"logprobs": False}, {}),
        ("anthropic", {"logprobs": False}, {}),
        ("anthropic", {"parallel_tool_calls": True, "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        ("anthropic", {"parallel_tool_calls": False, "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        (
            "anthropic",
            {"parallel_tool_calls": False, "tool_choice": {"tool": "f"}},
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
        ),
        (
            "openai-responses",
            {"verbosity": "high", "response_format": {"type": "json_object"}},
            {"text": {"format": {"type": "json_object"}, "verbosity": "high"}},
        ),
        (
            "openai-responses",
            {"logprobs": True, "reasoning_effort": "low"},
            {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
        ),
        ("openai-chat", {"seed": 7, "custom_options": {"seed": 8}}, {"seed": 8}),
        ("google", {"seed": 7, "custom_options": {"generationConfig": {"seed": 8}}}, {"generationConfig": {"seed": 8}}),
    ],
)
def test_an_option_is_sent_beside_what_else_was_asked_for(
    api: str, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    result = sent(api, asked(**options))
    assert isinstance(result, dict), result
    assert {key: result[key] for key in fields} == fields
    assert fields or "toolConfig" not in result or result["toolConfig"]["functionCallingConfig"]["mode"] == "NONE"


@each(
    ("api", "options", "argument"),
    [
        ("anthropic", {"metadata": {"user_id": "u", "team": "a"}}, "metadata.team"),
        ("anthropic", {"service_tier": "flex"}, "service_tier"),
        ("google", {"service_tier": "auto"}, "service_tier"),
        ("google", {"seed": 2**31}, "seed"),
        ("google", {"metadata": {"Team": "a"}}, "metadata.Team"),
        ("google", {"metadata": {"team": "a" * 64}}, "metadata.team"),
    ],
)
def test_a_value_that_a_format_does_not_take_is_refused(api: str, options: dict[str, Any], argument: str) -> None:
    assert sent(api, asked(**options)) == argument


@pytest.mark.parametrize("api", ["anthropic", "google"])
def test_system_messages_alone_are_refused_where_the_format_has_them_apart(api: str) -> None:
    assert sent(api, {"messages": [{"role": "system", "content": "Be brief."}]}) == "messages"
