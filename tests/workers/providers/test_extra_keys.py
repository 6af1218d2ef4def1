"""Extra keys of a caller: sent if the wire format has them, else refused with their path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings
from tests.cases import each

JSON = dict[str, Any]
CACHE: JSON = {"cache_control": {"type": "ephemeral"}}
BREAK: JSON = {"prompt_cache_breakpoint": {"mode": "explicit"}}
URL = "https://x/y.png"

# provider: wire format, base URL, model
PROVIDERS = {
    "openai": ("openai-chat", "https://api.openai.com/v1", "gpt-4o"),
    "azure": ("openai-chat", "https://x.openai.azure.com/openai/v1", "gpt-4o"),
    "openrouter": ("openai-chat", "https://openrouter.ai/api/v1", "anthropic/claude"),
    "openai-responses": ("openai-responses", "https://api.openai.com/v1", "gpt-4o"),
    "litellm": ("openai-responses", "http://127.0.0.1:4000/v1", "claude"),
    "anthropic": ("anthropic", "https://api.anthropic.com", "claude-opus-4-6"),
    "google": ("google", "https://generativelanguage.googleapis.com", "gemini-3-pro"),
}


def send(provider: str, *messages: Message, **fields: Any) -> HttpRequest:
    api, url, model = PROVIDERS[provider]
    said = list(messages or [Message("user", "hi")])
    run = RunRequest(provider=provider, model=model, messages=said, stream=True, **fields)
    return WIRE_FORMATS[api].api.build_request(run, ProviderSettings(name=provider, api=api, base_url=url), "k")


def body_of(provider: str, *messages: Message, **fields: Any) -> Any:
    return json.loads(send(provider, *messages, **fields).body)


def refused(provider: str, *messages: Message, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(ProviderFailedError) as caught:
        send(provider, *messages, **fields)
    assert caught.value.failure.kind == "invalid_request"
    return caught.value.failure.argument, caught.value.failure.reason


def user(*parts: Part, **extra: Any) -> Message:
    return Message("user", list(parts), extra=extra or None)


def call(**extra: Any) -> list[Message]:
    part = ToolCallPart("c1", "f", {}, extra=extra or None)
    return [Message("user", "hi"), Message("assistant", [part]), Message("tool", "x", tool_call_id="c1")]


# Keys that a format has.


def test_anthropic_takes_cache_control_on_each_kind_of_block() -> None:
    system = Message("system", [TextPart("s"), TextPart("t", extra=CACHE)])
    asked = user(TextPart("a", extra=CACHE), ImagePart(url=URL, extra=CACHE))
    called = Message("assistant", [TextPart("b", extra=CACHE), ToolCallPart("c1", "f", {}, extra=CACHE)])
    result = Message("tool", [TextPart("x", extra=CACHE)], tool_call_id="c1", extra=CACHE | {"is_error": True})
    body = body_of("anthropic", system, asked, called, result, tools=[Tool("f", extra=CACHE)])
    assert body["system"] == [{"type": "text", "text": "s"}, {"type": "text", "text": "t"} | CACHE]
    assert [block.keys() & CACHE.keys() for turn in body["messages"] for block in turn["content"]] == [CACHE.keys()] * 5
    (block,) = body["messages"][2]["content"]
    assert block["is_error"] is True
    assert block["content"] == [{"type": "text", "text": "x"} | CACHE]
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}} | CACHE]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_cache_control_on_an_anthropic_message_is_sent_on_its_last_block(role: Any) -> None:
    contents: list[str | list[Part]] = ["b", [TextPart("a"), TextPart("b")]]
    for content in contents:
        body = body_of("anthropic", Message(role, content, extra=CACHE), Message("user", "hi"))
        blocks = body["system"] if role == "system" else body["messages"][0]["content"]
        marked = [block for block in blocks if "cache_control" in block]
        assert marked == [{"type": "text", "text": "b"} | CACHE]


def test_cache_control_that_no_block_can_have_is_refused() -> None:
    blank = user(TextPart("a"), TextPart(" ", extra=CACHE))
    assert refused("anthropic", blank)[0] == "messages[0].content[1].cache_control"
    empty = Message("assistant", "", extra=CACHE)
    assert refused("anthropic", Message("user", "hi"), empty)[0] == "messages[1].cache_control"


def test_openai_takes_the_detail_of_images_and_cache_breakpoints() -> None:
    asked = user(TextPart("a", extra=BREAK), ImagePart(url=URL, extra={"detail": "high"} | BREAK))
    for provider in ("openai", "azure", "openrouter"):
        assert body_of(provider, asked)["messages"][0]["content"] == [
            {"type": "text", "text": "a"} | BREAK,
            {"type": "image_url", "image_url": {"url": URL, "detail": "high"}} | BREAK,
        ]
    for provider in ("openai-responses", "litellm"):
        assert body_of(provider, asked)["input"][0]["content"] == [
            {"type": "input_text", "text": "a"} | BREAK,
            {"type": "input_image", "image_url": URL, "detail": "high"} | BREAK,
        ]


def test_openais_formats_keep_a_key_on_a_single_text() -> None:
    places: list[tuple[Any, int]] = [("system", 0), ("user", 0), ("assistant", 1), ("tool", 2)]
    for role, place in places:
        history = call() if role == "tool" else [Message("user", "hi")] * place
        given: Any = {"tool_call_id": "c1"} if role == "tool" else {}
        history = [*history[:place], Message(role, [TextPart("a", extra=BREAK)], **given)]
        assert body_of("openai", *history)["messages"][place]["content"] == [{"type": "text", "text": "a"} | BREAK]
        items = body_of("openai-responses", *history)["input"]
        said = items[-1].get("content") or items[-1]["output"]
        assert [part.keys() & BREAK.keys() for part in said] == [BREAK.keys()]


def test_openai_chat_takes_names_and_compatible_servers_take_more_keys() -> None:
    for provider in ("openai", "openrouter"):
        assert body_of(provider, Message("user", "hi", extra={"name": "Ann"}))["messages"][0]["name"] == "Ann"
    begun = Message("assistant", "So", extra={"prefix": True})
    assert body_of("openrouter", Message("user", "hi"), begun)["messages"][1]["prefix"] is True
    assert refused("openai", Message("user", "hi"), begun)[0] == "messages[1].prefix"


def test_compatible_servers_get_cache_control_unchanged() -> None:
    asked = user(TextPart("a", extra=CACHE), ImagePart(url=URL, extra=CACHE))
    body = body_of("openrouter", Message("system", "s", extra=CACHE), asked, tools=[Tool("f", extra=CACHE)])
    assert body["messages"][0] == {"role": "system", "content": "s"} | CACHE
    assert all("cache_control" in part for part in body["messages"][1]["content"])
    assert body["tools"][0] == body_of("openrouter", tools=[Tool("f")])["tools"][0] | CACHE
    items = body_of("litellm", Message("system", "s", extra=CACHE), asked, tools=[Tool("f", extra=CACHE)])
    assert "cache_control" in items["input"][0]
    assert "cache_control" in items["tools"][0]


def test_googles_keys_of_images_and_functions_are_sent() -> None:
    image = ImagePart(data="QQ==", media_type="image/png", extra={"mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"}})
    body = body_of("google", user(image), tools=[Tool("f", extra={"behavior": "NON_BLOCKING"})])
    assert "mediaResolution" in body["contents"][0]["parts"][0]
    assert body["tools"] == [{"functionDeclarations": [{"name": "f", "behavior": "NON_BLOCKING"}]}]


def test_each_formats_keys_of_a_function_are_sent() -> None:
    kept: JSON = {"eager_input_streaming": True, "defer_loading": True, "input_examples": [{}]}
    assert kept.items() <= body_of("anthropic", tools=[Tool("f", extra=kept)])["tools"][0].items()
    assert body_of("openai-responses", tools=[Tool("f", extra={"defer_loading": True})])["tools"][0]["defer_loading"]


# Keys that a format does not have.


@each("provider", PROVIDERS)
@each(
    ("messages", "fields", "place"),
    [
        ([Message("user", "hi", extra={"mood": 1})], {}, "messages[0].mood"),
        ([Message("system", "hi", extra={"mood": 1}), Message("user", "x")], {}, "messages[0].mood"),
        ([user(TextPart("a"), TextPart("b", extra={"mood": 1}))], {}, "messages[0].content[1].mood"),
        ([Message("system", [TextPart("a", extra={"mood": 1})]), user()], {}, "messages[0].content[0].mood"),
        ([user(ImagePart(url=URL, extra={"mood": 1}))], {}, "messages[0].content[0].mood"),
        ([user(ImagePart(url=URL, extra={"image_url": {"x": 1}}))], {}, "messages[0].content[0].image_url.x"),
        (call(mood=1), {}, "messages[1].content[0].mood"),
        (call(function={"mood": 1}), {}, "messages[1].content[0].function.mood"),
        ([*call()[:2], Message("tool", "x", "c1", extra={"mood": 1})], {}, "messages[2].mood"),
        ([*call()[:2], Message("tool", [TextPart("x", extra={"mood": 1})], "c1")], {}, "messages[2].content[0].mood"),
        (
            [Message("user", "a"), Message("assistant", [ReasoningPart("x", extra={"mood": 1}), TextPart("b")])],
            {},
            "messages[1].content[0].mood",
        ),
        ([], {"tools": [Tool("e"), Tool("f", extra={"mood": 1})]}, "tools[1].mood"),
        ([], {"tools": [Tool("f", extra={"function": {"mood": 1}})]}, "tools[0].function.mood"),
    ],
)
def test_a_key_that_a_format_does_not_have_is_refused_with_its_path(
    provider: str, messages: list[Message], fields: JSON, place: str
) -> None:
    assert refused(provider, *messages, **fields)[0] == place


@pytest.mark.parametrize(
    ("provider", "messages", "place", "hint"),
    [
        ("anthropic", [user(ImagePart(url=URL, extra={"detail": "low"}))], "messages[0].content[0].detail", "resize"),
        ("google", [user(ImagePart(url=URL, extra={"detail": "low"}))], "messages[0].content[0].detail", "mediaRes"),
        ("google", [Message("user", "a", extra=CACHE)], "messages[0].cache_control", "cachedContent"),
        ("openai", [user(TextPart("a", extra=CACHE))], "messages[0].content[0].cache_control", "prompt_cache_key"),
        ("openai-responses", [Message("user", "a", extra=CACHE)], "messages[0].cache_control", "prompt_cache_key"),
        ("anthropic", [user(TextPart("a", extra=BREAK))], "messages[0].content[0].prompt_cache_breakpoint", "cache_c"),
        ("anthropic", [Message("user", "a", extra={"name": "Ann"})], "messages[0].name", "cache_control"),
        ("google", [Message("user", "a", extra={"name": "Ann"})], "messages[0].name", "Google"),
        ("anthropic", [user(TextPart("a", extra={"cache_contrl": {}}))], "messages[0].content[0].cache_contrl", "mean"),
    ],
)
def test_a_refusal_says_what_to_do_instead(provider: str, messages: list[Message], place: str, hint: str) -> None:
    argument, reason = refused(provider, *messages)
    assert argument == place
    assert hint in reason


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_key_with_the_value_none_counts_as_absent(provider: str) -> None:
    nothing: Any = {"mood": None}
    message = Message("user", [TextPart("a", extra=nothing)], extra=nothing)
    tools = [Tool("f", extra=nothing)]
    assert body_of(provider, message, tools=tools) == body_of(provider, user(TextPart("a")), tools=[Tool("f")])
