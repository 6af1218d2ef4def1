"""Server tools, which a provider runs itself: requests with them, data that is kept and sent back, and their counts."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from headrace.types import AudioPart, ImagePart, Message, ReasoningPart, RunEvent, TextPart, Tool, Usage
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError
from tests.workers.providers.test_extra_keys import PROVIDERS, body_of, refused, send

JSON = dict[str, Any]
FUNCTION = Tool("f", parameters={"type": "object"})
HI = Message("user", "hi")


def own(kind: str, name: str = "", **settings: Any) -> Tool:
    return Tool(name, type=kind, extra=settings or None)


def play(api: str, *events: JSON) -> Completion:
    """Map a stream of these events."""
    run = RunRequest(provider="p", model="m", messages=[HI], stream=True)
    mapper, parser = WIRE_FORMATS[api].api.open_stream(run), SSEParser()
    mapped: list[RunEvent] = []
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    for name, data in parser.feed(body):
        mapper.feed(name, data, mapped)
    return mapper.finish()


def whole(api: str, body: JSON) -> Completion:
    return WIRE_FORMATS[api].api.read_body(
        RunRequest(provider="p", model="m", messages=[HI], stream=False), json.dumps(body).encode()
    )


# Requests with server tools.

ANTHROPIC = [
    own("web_search_20250305", "web_search", max_uses=5, allowed_domains=["x"], cache_control={"type": "ephemeral"}),
    own("web_fetch_20260209", "web_fetch", allowed_callers=["direct"]),
    own("code_execution_20250825", "code_execution"),
    own("tool_search_tool_bm25_20251119", "tool_search_tool_bm25"),
    own("bash_20250124", "bash"),
    own("text_editor_20250728", "str_replace_based_edit_tool", max_characters=9),
    own("memory_20250818", "memory"),
]
OPENAI = [
    own("web_search", user_location={"type": "approximate", "country": "CH"}),
    own("file_search", vector_store_ids=["vs_1"]),
    own("code_interpreter", container={"type": "auto"}),
    own("image_generation"),
    own("mcp", server_label="s", server_url="https://s", require_approval="never"),
    own("custom", "sql", format={"type": "text"}),
]


def as_given(tool: Tool) -> JSON:
    named = {"name": tool.name} if tool.name else {}
    return {"type": tool.type} | named | (tool.extra or {})


def test_anthropics_server_tools_are_sent_unchanged() -> None:
    types = pytest.importorskip("anthropic.types")
    adapter = pytest.importorskip("pydantic").TypeAdapter(types.ToolUnionParam)
    body = body_of("anthropic", tools=[*ANTHROPIC, FUNCTION], tool_choice={"tool": "web_search"})
    assert body["tools"][:-1] == [as_given(tool) for tool in ANTHROPIC]
    assert body["tool_choice"] == {"type": "tool", "name": "web_search"}
    for sent in body["tools"]:
        adapter.validate_python(sent)


def test_openais_server_tools_are_sent_unchanged() -> None:
    types = pytest.importorskip("openai.types.responses")
    adapter = pytest.importorskip("pydantic").TypeAdapter(types.ToolParam)
    for provider in ("openai-responses", "litellm"):
        body = body_of(provider, tools=[*OPENAI, FUNCTION])
        assert body["tools"][:-1] == [as_given(tool) for tool in OPENAI]
        for sent in body["tools"]:
            adapter.validate_python(sent)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("web_search", {"type": "web_search"}),
        ("sql", {"type": "custom", "name": "sql"}),
        ("f", {"type": "function", "name": "f"}),
        ("mcp", {"type": "mcp", "server_label": "s"}),
    ],
)
def test_tool_choice_may_name_each_of_openais_tools(name: str, sent: JSON) -> None:
    assert body_of("openai-responses", tools=[*OPENAI, FUNCTION], tool_choice={"tool": name})["tool_choice"] == sent


def test_tool_choice_of_a_server_tool_is_sent_or_refused() -> None:
    custom = Tool("sql", type="custom")
    sent = body_of("openai", tools=[custom], tool_choice={"tool": "sql"})["tool_choice"]
    assert sent == {"type": "custom", "custom": {"name": "sql"}}
    inside = own("custom", custom={"name": "sql"})
    assert body_of("openai", tools=[inside], tool_choice={"tool": "sql"})["tool_choice"] == sent
    flat = body_of("openai-responses", tools=[inside], tool_choice={"tool": "sql"})["tool_choice"]
    assert flat == {"type": "custom", "name": "sql"}
    search = own("openrouter:web_search")
    sent = body_of("openrouter", tools=[search], tool_choice={"tool": "openrouter:web_search"})["tool_choice"]
    assert sent == {"type": "openrouter:web_search"}
    assert refused("google", tools=[own("google_search")], tool_choice={"tool": "google_search"})[0] == "tool_choice"


def test_googles_server_tools_are_sent_beside_the_functions() -> None:
    tools = [own("google_search"), FUNCTION, own("fileSearch", fileSearchStoreNames=["s"])]
    functions = {"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}
    store = {"fileSearch": {"fileSearchStoreNames": ["s"]}}
    assert body_of("google", tools=tools)["tools"] == [functions, {"googleSearch": {}}, store]
    assert body_of("google", tools=[own("url_context")])["tools"] == [{"urlContext": {}}]


@pytest.mark.parametrize("provider", ["openrouter", "openai-responses", "litellm", "anthropic"])
def test_no_key_of_a_server_tool_is_renamed(provider: str) -> None:
    given = {"type": "vendor:search", "name": "s", "parameters": {"max": 5}, "input_schema": {"type": "object"}}
    tool = Tool("s", parameters={"max": 5}, type="vendor:search", extra={"input_schema": {"type": "object"}})
    assert body_of(provider, tools=[tool])["tools"] == [given]


def test_a_custom_tool_has_the_meaning_of_its_format() -> None:
    schema: JSON = {"type": "object", "properties": {}}
    anthropics = Tool("f", parameters=schema, type="custom")
    for provider in PROVIDERS:
        assert (
            body_of(provider, tools=[anthropics])["tools"] == body_of(provider, tools=[Tool("f", "", schema)])["tools"]
        )
    flat = Tool("sql", "d", type="custom", extra={"format": {"type": "text"}})
    nested = Tool("", type="custom", extra={"custom": {"name": "sql", "description": "d", "format": {"type": "text"}}})
    inner = {"name": "sql", "description": "d", "format": {"type": "text"}}
    for tool in (flat, nested):
        assert body_of("openai", tools=[tool])["tools"] == [{"type": "custom", "custom": inner}]
        assert body_of("openai-responses", tools=[tool])["tools"] == [{"type": "custom", **inner}]


def test_compatible_servers_of_openai_chat_may_have_server_tools() -> None:
    tool = own("openrouter:web_search", engine="exa")
    assert body_of("openrouter", tools=[tool])["tools"] == [{"type": "openrouter:web_search", "engine": "exa"}]


@pytest.mark.parametrize(
    ("provider", "tool", "place", "hint"),
    [
        ("openai", own("web_search"), "tools[1].type", "web_search_options"),
        ("azure", own("web_search_20250305", "web_search"), "tools[1].type", "Anthropic"),
        ("azure", own("web_search"), "tools[1].type", "openai-responses"),
        ("openai-responses", own("web_search_20250305", "web_search"), "tools[1].type", "Anthropic"),
        ("openai-responses", own("google_search"), "tools[1].type", "Google"),
        ("anthropic", own("web_search"), "tools[1].type", "OpenAI"),
        ("anthropic", own("google_search"), "tools[1].type", "Google"),
        ("google", own("code_interpreter"), "tools[1].type", "OpenAI"),
        ("google", own("mcp_toolset"), "tools[1].type", "Anthropic"),
        ("google", own("google_search", "search"), "tools[1].name", "none"),
        ("google", Tool("sql", type="custom", extra={"format": {}}), "tools[1].format", "Google"),
    ],
)
def test_a_tool_that_a_provider_does_not_have_is_refused(provider: str, tool: Tool, place: str, hint: str) -> None:
    argument, reason = refused(provider, tools=[FUNCTION, tool])
    assert argument == place
    assert hint in reason


@pytest.mark.parametrize(
    ("tools", "options", "betas"),
    [
        (ANTHROPIC, {}, None),
        ([own("mcp_toolset", mcp_server_name="s")], {}, "mcp-client-2025-11-20"),
        ([], {"mcp_servers": [{"name": "s"}]}, "mcp-client-2025-11-20"),
        ([own("mcp_toolset")], {"betas": ["mcp-client-2026-09-15"]}, "mcp-client-2026-09-15"),
        ([own("computer_20251124", "computer")], {"betas": ["a-2025-01-01"]}, "a-2025-01-01,computer-use-2025-11-24"),
        ([], {"betas": ["context-1m-2025-08-07"]}, "context-1m-2025-08-07"),
    ],
)
def test_the_header_has_the_beta_words_of_the_tools_and_of_the_caller(
    tools: list[Tool], options: JSON, betas: str | None
) -> None:
    http = send("anthropic", tools=tools, custom_options=options)
    assert dict(http.headers).get("anthropic-beta") == betas
    assert "betas" not in json.loads(http.body)


def test_betas_that_are_no_list_of_texts_are_refused() -> None:
    assert refused("anthropic", custom_options={"betas": "x"})[0] == "custom_options.betas"


# Data that is kept and sent back.


def test_anthropics_container_is_sent_with_requests_that_have_server_tools() -> None:
    start = {"type": "message_start", "message": {"id": "m", "container": {"id": "c_0"}}}
    text = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    ]
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "container": {"id": "c_1"}}}
    body = {"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"}
    streamed = play("anthropic", start, *text, end, {"type": "message_stop"})
    for completion in (streamed, whole("anthropic", body | {"container": {"id": "c_1"}})):
        message = completion.message
        assert message is not None
        assert message.text == "x"
        assert body_of("anthropic", HI, message, HI, tools=[ANTHROPIC[2]])["container"] == "c_1"
        assert "container" not in body_of("anthropic", HI, message, HI, tools=[FUNCTION])
        options = {"container": "mine"}
        assert (
            body_of("anthropic", HI, message, HI, tools=[ANTHROPIC[2]], custom_options=options)["container"] == "mine"
        )


CODE: JSON = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s1"}
OUTPUT: JSON = {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "boom"}}
CALLED: JSON = {"toolCall": {"id": "t1", "toolType": "GOOGLE_SEARCH", "args": {}}, "thoughtSignature": "s2"}
ANSWERED: JSON = {"toolResponse": {"id": "t1", "toolType": "GOOGLE_SEARCH", "response": {}}}
SOURCES: JSON = {"webSearchQueries": ["q"], "groundingChunks": [{"web": {"uri": "https://x"}}]}


def google_events(*parts: JSON) -> list[JSON]:
    said = [{"candidates": [{"content": {"parts": [part]}, "groundingMetadata": {}}]} for part in parts]
    end = {"content": {"parts": []}, "finishReason": "STOP", "groundingMetadata": SOURCES}
    return [*said, {"candidates": [end]}]


def test_parts_of_googles_server_tools_are_sent_back_in_order() -> None:
    parts: list[JSON] = [{"text": "Let me "}, {"text": "see."}, CODE, OUTPUT, CALLED, ANSWERED, {"text": "Done."}]
    events = google_events(*parts)
    joined: list[JSON] = [{"text": "Let me see."}, CODE, OUTPUT, CALLED, ANSWERED, {"text": "Done."}]
    body = {"candidates": [{"content": {"parts": joined}, "finishReason": "STOP", "groundingMetadata": SOURCES}]}
    for completion in (play("google", *events), whole("google", body)):
        message = completion.message
        assert message is not None
        assert (completion.finish_reason, message.text) == ("stop", "Let me see.Done.")
        assert body_of("google", HI, message, HI)["contents"][1] == {"role": "model", "parts": joined}
        assert message.content[-1] == ReasoningPart("", {"api": "google", "groundingMetadata": SOURCES})
        returned = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)
        assert body_of("google", HI, returned, HI)["contents"][1]["parts"] == joined
        for provider in ("openai", "openai-responses", "anthropic"):
            assert "OUTCOME" not in send(provider, HI, message, HI).body.decode()


def test_an_image_of_gemini_is_sent_back_with_its_signature() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}, "thoughtSignature": "s"}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}}
    message = play("google", *google_events(picture, sound)).message
    assert message is not None
    signed = {"api": "google", "thoughtSignature": "s"}
    assert message.images == [ImagePart(data="QQ==", media_type="image/png", provider_data=signed)]
    assert message.audio == [AudioPart(data="QQ==", media_type="audio/wav")]
    assert body_of("google", HI, message, HI)["contents"][1]["parts"] == [picture, sound]


def test_a_draft_image_in_geminis_thoughts_is_no_image_of_the_answer() -> None:
    draft = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}, "thought": True, "thoughtSignature": "s"}
    picture = {"inlineData": {"mimeType": "image/png", "data": "Qg=="}}
    message = play("google", *google_events(draft, picture)).message
    assert message is not None
    assert [type(part) for part in message.content[:2]] == [ReasoningPart, ImagePart]
    assert body_of("google", HI, message, HI)["contents"][1]["parts"] == [draft, picture]


# Counts.


def test_server_tool_requests_are_counted_under_the_providers_names() -> None:
    counted: JSON = {"input_tokens": 1, "output_tokens": 2, "server_tool_use": {"web_search_requests": 2, "x": 0}}
    body = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": counted}
    assert whole("anthropic", body).usage.server_tool_requests == {"web_search_requests": 2}
    chat: JSON = {"prompt_tokens": 1, "completion_tokens": 2, "server_tool_use_details": {"web_search_requests": 1}}
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": chat}
    assert whole("openai-chat", answer).usage.server_tool_requests == {"web_search_requests": 1}
    xai: JSON = {"input_tokens": 1, "output_tokens": 2, "server_side_tool_usage_details": {"x_search_calls": 3}}
    response = {"status": "completed", "output": [], "usage": xai}
    assert whole("openai-responses", response).usage.server_tool_requests == {"x_search_calls": 3}


def test_usage_without_server_tools_takes_no_more_bytes() -> None:
    usage = Usage(1, 2, 3, source="provider")
    assert b"server_tool_requests" not in msgspec.msgpack.encode(usage)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(usage), type=Usage) == usage


@pytest.mark.parametrize(
    ("details", "figures"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 5}}, (7, 5)),
        ({"prompt_tokens_details": {"cached_tokens": 7, "cache_creation_input_tokens": 5}}, (7, 5)),
        ({"prompt_tokens_details": {"cached_tokens": 7, "cache_creation_tokens": 5}}, (7, 5)),
        ({"cache_read_input_tokens": 7, "cache_creation_input_tokens": 5}, (7, 5)),
        ({"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 2}, (7, 0)),
        ({"cached_tokens": 7}, (7, 0)),
    ],
)
def test_cache_reads_and_writes_are_found_under_each_servers_names(details: JSON, figures: tuple[int, int]) -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 2, **details}
    end = {"choices": [{"delta": {}, "finish_reason": "stop", "index": 0}], "usage": usage}
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    for completion in (play("openai-chat", end), whole("openai-chat", answer)):
        assert (completion.usage.cached_input_tokens, completion.usage.cache_write_tokens) == figures


def test_anthropics_cache_writes_are_summed_over_their_lifetimes() -> None:
    said: JSON = {"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}}
    body = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": said}
    usage = whole("anthropic", body).usage
    assert (usage.input_tokens, usage.cache_write_tokens) == (6, 5)


def test_a_message_with_server_tools_of_another_provider_can_be_sent() -> None:
    block = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    message = Message("assistant", [ReasoningPart("", {"api": "anthropic", "block": block}), TextPart("x")])
    for provider in PROVIDERS:
        assert ("srvtoolu_1" in send(provider, HI, message, HI).body.decode()) == (provider == "anthropic")


def test_a_container_of_another_type_is_ignored() -> None:
    body = {"type": "message", "content": [], "stop_reason": "end_turn", "container": "c"}
    assert whole("anthropic", body).message == Message("assistant", "")
    with pytest.raises(ProviderFailedError):
        whole("anthropic", {"container": {"id": "c"}})


# Calls that the caller must answer.


def answered(item: JSON, call_id: str, content: Any, **extra: Any) -> JSON:
    """Return the item that a tool message becomes, after a response with ``item``."""
    body = {"status": "completed", "model": "m", "output": [item, {"type": "message", "content": []}]}
    message = whole("openai-responses", body).message
    assert message is not None
    said = Message("tool", content, call_id, extra=extra or None)
    sent = body_of("openai-responses", HI, message, said)["input"]
    assert sent[1] == item
    types = pytest.importorskip("openai.types.responses")
    pytest.importorskip("pydantic").TypeAdapter(types.ResponseInputItemParam).validate_python(sent[-1])
    assert isinstance(sent[-1], dict)
    return sent[-1]


def test_a_tool_message_approves_an_mcp_request() -> None:
    item = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "f", "arguments": "{}"}
    sent = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False, "reason": "no"}
    assert answered(item, "mcpr_1", "", approve=False, reason="no") == sent


def test_each_of_openais_calls_is_answered_by_its_own_kind_of_item() -> None:
    ended = [{"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    shell = {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {"commands": ["ls"]}, "status": "completed"}
    assert answered(shell, "c1", "", output=ended) == {"type": "shell_call_output", "call_id": "c1", "output": ended}
    patch = {"type": "apply_patch_call", "id": "p_1", "call_id": "c1", "operation": {}, "status": "completed"}
    done = {"type": "apply_patch_call_output", "call_id": "c1", "status": "completed", "output": "ok"}
    assert answered(patch, "c1", "ok", status="completed") == done
    computer = {"type": "computer_call", "id": "cu_1", "call_id": "c1", "actions": [], "status": "completed"}
    seen = {"type": "computer_screenshot", "image_url": "https://x/y.png"}
    image = [ImagePart(url="https://x/y.png")]
    assert answered(computer, "c1", image) == {"type": "computer_call_output", "call_id": "c1", "output": seen}
    sharp = [ImagePart(url="https://x/y.png", extra={"detail": "original"})]
    assert answered(computer, "c1", sharp)["output"] == seen | {"detail": "original"}


def test_output_and_content_together_are_refused() -> None:
    call = {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {"commands": ["ls"]}, "status": "completed"}
    message = whole("openai-responses", {"status": "completed", "output": [call]}).message
    assert message is not None
    said = Message("tool", "x", "c1", extra={"output": []})
    assert refused("openai-responses", HI, message, said)[0] == "messages[2].output"


def test_a_key_of_another_kind_of_answer_is_refused() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
    message = whole("openai-responses", {"status": "completed", "output": [call]}).message
    assert message is not None
    said = Message("tool", "x", "c1", extra={"approve": True})
    assert refused("openai-responses", HI, message, said)[0] == "messages[2].approve"


def test_a_call_of_a_custom_tool_is_sent_back_to_chat_completions_as_one() -> None:
    called = [{"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": called}, "finish_reason": "tool_calls"}
    message = whole("openai-chat", {"choices": [choice]}).message
    assert message is not None
    assert body_of("openai", HI, message, Message("tool", "1", "c1"))["messages"][1]["tool_calls"] == called
    (function,) = body_of("anthropic", HI, message, Message("tool", "1", "c1"))["messages"][1]["content"]
    assert function["input"] == {"input": "SELECT 1"}


MIXED = {
    "type": "message",
    "stop_reason": "tool_use",
    "content": [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "tool_use", "id": "toolu_1", "name": "click", "input": {}, "toolset_name": "browser"},
    ],
}


def test_a_turn_with_a_pending_server_tool_takes_only_results_with_their_toolset() -> None:
    message = whole("anthropic", MIXED).message
    assert message is not None
    result = Message("tool", "x", "toolu_1")
    sent = body_of("anthropic", HI, message, result)["messages"]
    assert sent[1]["content"] == MIXED["content"]
    assert sent[2]["content"][0]["toolset_name"] == "browser"
    for history in ([result, HI], [HI, result]):
        argument, reason = refused("anthropic", HI, message, *history)
        assert argument == f"messages[{2 + history.index(HI)}]"
        assert "web_search has not ended" in reason
    ended = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    opened = Message("assistant", [ReasoningPart("", {"api": "anthropic", "block": ended}), TextPart("x")])
    assert len(body_of("anthropic", HI, message, result, opened, HI)["messages"]) == 5


def test_citations_of_chat_completions_are_kept_with_the_text() -> None:
    cited = {"type": "url_citation", "url_citation": {"url": "https://x", "title": "X"}}
    end = {"choices": [{"delta": {}, "finish_reason": "stop", "index": 0}]}
    pieces = [{"content": "It "}, {"content": "rains.", "annotations": [cited]}, {"annotations": [cited, 7]}]
    streamed = play("openai-chat", *({"choices": [{"delta": piece, "index": 0}]} for piece in pieces), end)
    said = {"content": "It rains.", "annotations": [cited, cited]}
    for completion in (
        streamed,
        whole("openai-chat", {"choices": [{"message": said, "finish_reason": "stop"}]}),
    ):
        kept = {"api": "openai-chat", "annotations": [cited, cited]}
        assert completion.message == Message("assistant", [TextPart("It rains.", kept)])
        assert completion.message is not None
        for provider in ("openai", "openrouter"):
            sent = body_of(provider, HI, completion.message, HI)["messages"][1]
            assert sent == {"role": "assistant", "content": "It rains."}
