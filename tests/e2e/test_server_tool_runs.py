"""Tools that the provider runs itself, and prompt caching, from the caller to a provider that checks what comes back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace import Client, InvalidRequestError, Message, RunLocalResult
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.provider_runs import WAYS, last_body, run

SEARCH: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
WEATHER: dict[str, Any] = {"name": "get_weather", "input_schema": {"type": "object", "properties": {}}}
USE = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Zürich today"}}
FOUND = {"type": "web_search_result", "url": "https://x", "title": "X", "page_age": None}
RESULT = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [FOUND]}
ERROR = RESULT | {"content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}}
CITED = {
    "type": "web_search_result_location",
    "url": "https://x",
    "title": "X",
    "encrypted_index": "e",
    "cited_text": "c",
}
SAID = {"type": "text", "text": "It rains.", "citations": [CITED]}

WEB_SEARCH_CALL = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
MCP_FAILED = {
    "type": "mcp_call",
    "status": "failed",
    "server_label": "s",
    "name": "f",
    "arguments": "{}",
    "error": {"type": "mcp_tool_execution_error", "content": "boom"},
}


def blocks_of(result: RunLocalResult, key: str = "block") -> list[dict[str, Any]]:
    """Return what the message keeps of the provider's own tools."""
    parts = result.message.content
    said = [part.provider_data or {} for part in parts if not isinstance(part, str) and hasattr(part, "provider_data")]
    return [data[key] for data in said if key in data]


@pytest.mark.parametrize("way", WAYS)
def test_a_turn_with_anthropics_search_is_kept_whole_and_goes_back_as_it_came(
    client: Client, provider: SimulatedProvider, way: str
) -> None:
    steps = [USE, RESULT, SAID]
    script = {"reasoning": "I search.", "server_steps": steps, "text": " Take a coat.", "container": "c_1"}
    first = run(client, "anthropic", HELLO, way, script, tools=[SEARCH])

    assert last_body(provider)["tools"] == [SEARCH]
    assert (first.text, first.finish_reason, first.tool_calls) == ("It rains. Take a coat.", "stop", [])
    assert first.usage.server_tool_requests == {"web_search_requests": 1}
    kept = blocks_of(first)
    assert kept[1] == USE
    assert kept[2]["content"][0].keys() == FOUND.keys() | {"encrypted_content"}
    assert kept[3] == {"citations": [CITED]}

    history = [*HELLO, first.message, {"role": "user", "content": "And tomorrow?"}]
    second = run(client, "anthropic", history, way, {"text": "Sun."}, tools=[SEARCH])

    assert second.text == "Sun."
    sent = last_body(provider)
    kinds = [block["type"] for block in sent["messages"][1]["content"]]
    assert kinds == ["thinking", "server_tool_use", "web_search_tool_result", "text", "text"]
    assert sent["messages"][1]["content"][3] == SAID
    assert sent["container"] == "c_1"

    again = run(client, "anthropic", history, way, {"text": "Sun."})
    assert again.text == "Sun."
    assert "container" not in last_body(provider)


@pytest.mark.parametrize("way", WAYS)
def test_a_paused_turn_says_so_and_goes_on_when_it_is_sent_back(
    client: Client, provider: SimulatedProvider, way: str
) -> None:
    script = {"server_steps": [USE, RESULT], "text": "", "finish_reason": "pause_turn"}
    paused = run(client, "anthropic", HELLO, way, script, tools=[SEARCH])

    assert (paused.finish_reason, paused.provider_finish_reason, paused.text) == ("stop", "pause_turn", "")

    script = {"server_steps": [USE | {"id": "srvtoolu_2"}, RESULT | {"tool_use_id": "srvtoolu_2"}], "text": "Rain."}
    rest = run(client, "anthropic", [*HELLO, paused.message], way, script, tools=[SEARCH])

    assert (rest.text, rest.provider_finish_reason) == ("Rain.", "end_turn")
    sent = last_body(provider)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant"]
    assert [block["type"] for block in sent[1]["content"]] == ["server_tool_use", "web_search_tool_result"]

    thanks = [*HELLO, paused.message, rest.message, {"role": "user", "content": "Thanks"}]
    assert run(client, "anthropic", thanks, way, {"text": "Bye."}, tools=[SEARCH]).text == "Bye."


@pytest.mark.parametrize("way", WAYS)
def test_a_mixed_turn_is_answered_with_results_and_the_providers_own_comes_next(client: Client, way: str) -> None:
    tools = [SEARCH, WEATHER]
    script = {"server_steps": [USE], "text": "", "tool_calls": [{"name": "get_weather"}]}
    mixed = run(client, "anthropic", HELLO, way, script, tools=tools)

    assert mixed.finish_reason == "tool_calls"
    assert [call.name for call in mixed.tool_calls] == ["get_weather"]

    answer = {"role": "tool", "tool_call_id": mixed.tool_calls[0].id, "content": "rain"}
    script = {"server_steps": [RESULT], "text": "Rain, they say too."}
    rest = run(client, "anthropic", [*HELLO, mixed.message, answer], way, script, tools=tools)

    assert rest.text == "Rain, they say too."
    thanks = [*HELLO, mixed.message, answer, rest.message, {"role": "user", "content": "Thanks"}]
    assert run(client, "anthropic", thanks, way, {"text": "Bye."}, tools=tools).text == "Bye."


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_anthropics_own_tool_is_in_the_message(client: Client, way: str) -> None:
    result = run(client, "anthropic", HELLO, way, {"server_steps": [USE, ERROR], "text": "No idea."}, tools=[SEARCH])

    assert result.text == "No idea."
    assert blocks_of(result)[1]["content"]["error_code"] == "max_uses_exceeded"


def test_what_was_altered_is_refused_by_the_provider(client: Client) -> None:
    first = run(client, "anthropic", HELLO, "sync", {"server_steps": [USE, RESULT], "text": "x"}, tools=[SEARCH])
    forged = msgspec.convert(msgspec.to_builtins(first.message), Message)
    blocks_of(msgspec.structs.replace(first, message=forged))[1]["content"][0]["title"] = "Y"

    with pytest.raises(InvalidRequestError, match="encrypted_content"):
        run(client, "anthropic", [*HELLO, forged, *HELLO], "sync", {"text": "y"}, tools=[SEARCH])


@pytest.mark.parametrize("way", WAYS)
def test_items_of_openais_own_tools_go_back_in_their_order(
    client: Client, provider: SimulatedProvider, way: str
) -> None:
    tools: list[dict[str, Any]] = [
        {"type": "web_search", "filters": {"allowed_domains": ["x"]}},
        {"type": "mcp", "server_label": "s", "server_url": "https://s", "require_approval": "never"},
    ]
    script = {"reasoning": "Look.", "server_steps": [WEB_SEARCH_CALL, MCP_FAILED], "text": "It rains."}
    first = run(client, "openai-responses", HELLO, way, script, tools=tools)

    assert last_body(provider)["tools"] == tools
    assert (first.text, first.finish_reason) == ("It rains.", "stop")
    items = blocks_of(first, "item")
    assert [item["type"] for item in items] == ["reasoning", "web_search_call", "mcp_call", "message"]
    assert items[2]["error"] == MCP_FAILED["error"]

    history = [*HELLO, first.message, {"role": "user", "content": "And tomorrow?"}]
    second = run(client, "openai-responses", history, way, {"text": "Sun."}, tools=tools)

    assert second.text == "Sun."
    assert last_body(provider)["input"][1:-1] == items


def test_mcp_servers_of_anthropic_come_with_the_beta_word_that_they_need(
    client: Client, provider: SimulatedProvider
) -> None:
    servers = [{"type": "url", "url": "https://s", "name": "s"}]
    tools = [{"type": "mcp_toolset", "mcp_server_name": "s"}]
    said: dict[str, Any] = {"provider": "anthropic", "model": "claude-sonnet-5", "messages": HELLO, "tools": tools}
    result = client.run_local(**said, custom_options={"mcp_servers": servers, "simulate": {"text": "x"}})

    assert result.text == "x"
    assert last_body(provider)["mcp_servers"] == servers
    assert provider.requests()[-1].headers["anthropic-beta"] == "mcp-client-2025-11-20"


@pytest.mark.parametrize("way", WAYS)
def test_marks_of_the_cache_arrive_and_its_figures_come_back(
    client: Client, provider: SimulatedProvider, way: str
) -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Long words.", **mark}]},
        {"role": "user", "content": "Hello", **mark},
    ]
    figures = {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 2}
    tools = [WEATHER | mark]
    result = run(client, "anthropic", messages, way, {"text": "x", "usage": figures}, tools=tools)

    usage = result.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens) == (123, 100, 20)
    body = last_body(provider)
    assert body["system"] == [{"type": "text", "text": "Long words.", **mark}]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello", **mark}]}]
    assert body["tools"] == [WEATHER | mark]


@pytest.mark.parametrize(
    ("name", "arguments", "place"),
    [
        ("openai", {"tools": [SEARCH]}, "tools[0].type"),
        ("openai", {"messages": [{"role": "user", "content": "a", "cache_control": {}}]}, "messages[0].cache_control"),
        ("openai-responses", {"tools": [WEATHER, SEARCH]}, "tools[1].type"),
        ("anthropic", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("google", {"tools": [SEARCH]}, "tools[0].type"),
        ("google", {"tools": [WEATHER | {"cache_control": {}}]}, "tools[0].cache_control"),
    ],
)
def test_what_a_provider_has_not_is_refused_before_anything_is_sent(
    client: Client, provider: SimulatedProvider, name: str, arguments: dict[str, Any], place: str
) -> None:
    before = len(provider.requests())
    with pytest.raises(InvalidRequestError) as caught:
        run(client, name, arguments.get("messages", HELLO), "sync", {}, tools=arguments.get("tools"))
    assert caught.value.argument == place
    assert str(caught.value).startswith(f"{place}: ")
    assert len(provider.requests()) == before


def test_googles_own_tools_stand_beside_functions(client: Client, provider: SimulatedProvider) -> None:
    tools: list[dict[str, Any]] = [WEATHER, {"google_search": {}}, {"type": "url_context"}, {"codeExecution": {}}]
    run(client, "google", HELLO, "sync", {"text": "x"}, tools=tools)

    functions, *own = last_body(provider)["tools"]
    assert [function["name"] for function in functions["functionDeclarations"]] == ["get_weather"]
    assert own == [{"googleSearch": {}}, {"urlContext": {}}, {"codeExecution": {}}]
