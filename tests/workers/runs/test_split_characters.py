"""Characters that a provider cuts in two arrive whole, and only a half character ever waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, RunLocalResult, ToolCallDelta
from headrace_workers.runs.split_characters import SplitCharacters
from tests.workers.providers.result_of_bytes import of_body, of_stream, sse

FIRST, SECOND, WHOLE = "\ud83d", "\udc4b", "\U0001f44b"


def chat(*deltas: dict[str, Any], end: str = "stop") -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return sse(*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": end}]}, b"[DONE]")


def anthropic(kind: str, field: str, pieces: list[str], block: dict[str, Any], end: str = "end_turn") -> bytes:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta", field: piece}}
        for piece in pieces
    ]
    return sse(
        {"type": "message_start", "message": {}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": end}},
        {"type": "message_stop"},
    )


def responses(kind: str, pieces: list[str], item: dict[str, Any]) -> bytes:
    deltas = [{"type": f"response.{kind}.delta", "output_index": 0, "delta": piece} for piece in pieces]
    return sse(
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"arguments": ""}},
        *deltas,
        {"type": "response.completed", "response": {"status": "completed", "output": []}},
    )


def google(*parts: dict[str, Any]) -> bytes:
    chunks = [{"candidates": [{"content": {"parts": [part]}}]} for part in parts]
    return sse(*chunks, {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]})


PIECES = [f"a{FIRST}", f"{SECOND}b"]
CALL_PIECES = [f'{{"x": "a{FIRST}', f'{SECOND}b"}}']
MESSAGE, FUNCTION = {"type": "message"}, {"type": "function_call", "call_id": "c", "name": "f"}
LONG_CALL = {"id": "c", "name": "f", "willContinue": True}


def chat_call(arguments: str, **function: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": arguments} | function}]}


def google_argument(text: str, **more: Any) -> dict[str, Any]:
    call = {"partialArgs": [{"jsonPath": "$.x", "stringValue": text, "willContinue": True}], "willContinue": True}
    return {"functionCall": call | more}


STREAMS: dict[str, tuple[str, str, bytes]] = {
    "chat text": ("openai-chat", "text", chat(*({"content": piece} for piece in PIECES))),
    "chat parts": ("openai-chat", "text", chat(*({"content": [{"type": "text", "text": x}]} for x in PIECES))),
    "chat reasoning": ("openai-chat", "reasoning", chat(*({"reasoning_content": piece} for piece in PIECES))),
    "chat refusal": ("openai-chat", "refusal", chat(*({"refusal": piece} for piece in PIECES))),
    "chat call": (
        "openai-chat",
        "call",
        chat(chat_call(CALL_PIECES[0], name="f"), chat_call(CALL_PIECES[1]), end="tool_calls"),
    ),
    "responses text": ("openai-responses", "text", responses("output_text", PIECES, MESSAGE)),
    "responses reasoning": ("openai-responses", "reasoning", responses("reasoning_summary_text", PIECES, MESSAGE)),
    "responses refusal": ("openai-responses", "refusal", responses("refusal", PIECES, MESSAGE)),
    "responses call": ("openai-responses", "call", responses("function_call_arguments", CALL_PIECES, FUNCTION)),
    "anthropic text": ("anthropic", "text", anthropic("text", "text", PIECES, {"type": "text", "text": ""})),
    "anthropic thinking": ("anthropic", "reasoning", anthropic("thinking", "thinking", PIECES, {"type": "thinking"})),
    "anthropic call": (
        "anthropic",
        "call",
        anthropic("input_json", "partial_json", CALL_PIECES, {"type": "tool_use", "id": "c", "name": "f"}, "tool_use"),
    ),
    "google text": ("google", "text", google(*({"text": piece} for piece in PIECES))),
    "google thoughts": ("google", "reasoning", google(*({"text": piece, "thought": True} for piece in PIECES))),
    "google call": (
        "google",
        "call",
        google({"functionCall": LONG_CALL}, google_argument(PIECES[0]), google_argument(PIECES[1], willContinue=False)),
    ),
}


def said(result: Any, what: str) -> Any:
    assert isinstance(result, RunLocalResult), result
    return result.tool_calls[0].arguments["x"] if what == "call" else getattr(result, what)


@pytest.mark.parametrize(("api", "what", "body"), STREAMS.values(), ids=STREAMS)
def test_a_character_cut_over_two_events_comes_whole(api: str, what: str, body: bytes) -> None:
    result = of_stream(api, body)

    assert said(result, what) == f"a{WHOLE}b"
    assert isinstance(result, RunLocalResult)
    sent_back = result.message.tool_calls[0].arguments["x"] if what == "call" else result.message.text
    assert what in {"reasoning", "refusal"} or sent_back == f"a{WHOLE}b"


@pytest.mark.parametrize(("api", "what", "body"), STREAMS.values(), ids=STREAMS)
def test_a_half_without_its_other_half_costs_one_character(api: str, what: str, body: bytes) -> None:
    assert said(of_stream(api, body.replace(json.dumps(SECOND)[1:-1].encode(), b"")), what) == "a\ufffdb"


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("openai-chat", {"choices": [{"message": {"content": f"a{FIRST}b"}, "finish_reason": "stop"}]}),
        (
            "openai-responses",
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": f"a{FIRST}b"}]}]},
        ),
        ("anthropic", {"content": [{"type": "text", "text": f"a{FIRST}b"}], "stop_reason": "end_turn"}),
        ("google", {"candidates": [{"content": {"parts": [{"text": f"a{FIRST}b"}]}, "finishReason": "STOP"}]}),
    ],
)
def test_half_a_character_in_a_whole_body_costs_one_character(api: str, body: dict[str, Any]) -> None:
    assert said(of_body(api, body), "text") == "a\ufffdb"


def test_names_and_ids_hold_whole_characters() -> None:
    call = chat_call("{}", name=f"f{FIRST}")
    call["tool_calls"][0]["id"] = f"c{SECOND}"

    result = of_stream("openai-chat", chat(call, end="tool_calls"))

    assert isinstance(result, RunLocalResult)
    assert [(call.id, call.name) for call in result.tool_calls] == [("c\ufffd", "f\ufffd")]


def joined(*turns: list[RunEvent]) -> list[list[RunEvent]]:
    halves = SplitCharacters()
    for turn in turns:
        halves.join(turn, 0)
    return [*turns]


def test_only_the_half_waits() -> None:
    assert joined(["abc" + FIRST], [SECOND + "d"]) == [["abc"], [WHOLE + "d"]]
    assert joined([FIRST], ["d"]) == [[], ["\ufffdd"]]
    assert joined([FIRST + SECOND]) == [[WHOLE]]
    assert joined([SECOND], ["d"]) == [["\ufffd"], ["d"]]


def test_halves_of_different_kinds_and_calls_are_not_joined() -> None:
    first: list[RunEvent] = [
        "t" + FIRST,
        ReasoningDelta("r" + FIRST),
        RefusalDelta("n" + FIRST),
        ToolCallDelta(0, "a", "f", "0" + FIRST),
        ToolCallDelta(1, "b", "g", FIRST),
    ]
    then: list[RunEvent] = [
        ToolCallDelta(1, arguments=SECOND),
        ToolCallDelta(0, arguments=SECOND),
        RefusalDelta(SECOND),
        ReasoningDelta(SECOND),
        SECOND,
    ]
    assert joined(first, then) == [
        ["t", ReasoningDelta("r"), RefusalDelta("n"), ToolCallDelta(0, "a", "f", "0"), ToolCallDelta(1, "b", "g", "")],
        [
            ToolCallDelta(1, arguments=WHOLE),
            ToolCallDelta(0, arguments=WHOLE),
            RefusalDelta(WHOLE),
            ReasoningDelta(WHOLE),
            WHOLE,
        ],
    ]


def test_a_half_that_waits_at_the_end_becomes_a_replacement_character() -> None:
    halves, events = SplitCharacters(), list[RunEvent]()
    turn: list[RunEvent] = [FIRST, ReasoningDelta(FIRST), RefusalDelta(FIRST), ToolCallDelta(3, arguments=FIRST)]
    halves.join(turn, 0)
    assert turn == []

    halves.end(events)

    assert events == ["\ufffd", ReasoningDelta("\ufffd"), RefusalDelta("\ufffd"), ToolCallDelta(3, arguments="\ufffd")]
