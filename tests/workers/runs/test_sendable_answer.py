"""Every frame can carry a sendable message; data that is nested too deeply is refused."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.types import Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace.wire.codec import encode_frame
from headrace_workers.runs.sendable_answer import MAX_DEPTH, TooDeepError, sendable_message


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return {"a": value}


@pytest.mark.parametrize(
    ("integer", "written"),
    [(2**64, float(2**64)), (-(2**63) - 1, float(-(2**63))), (10**30, 1e30), (10**400, str(10**400))],
)
def test_integers_of_any_length_can_be_sent(integer: int, written: float | str) -> None:
    call = ToolCallPart("c1", "f", {"n": [integer]}, {"block": {"n": integer}})
    carried = sendable_message(Message("assistant", [call, ReasoningPart("", {"n": integer})]))

    encode_frame(1, [carried])
    assert carried.tool_calls[0].arguments == {"n": [written]}


def test_all_other_values_stay_as_they_are() -> None:
    parts: list[Part] = [TextPart("x"), ToolCallPart("c1", "f", {"n": [2**64 - 1, -(2**63), 1.5, True, None, "2"]})]

    assert sendable_message(Message("assistant", parts)) == Message("assistant", parts)
    assert sendable_message(Message("assistant", "x")) == Message("assistant", "x")


def test_data_that_is_nested_too_deeply_is_refused() -> None:
    sendable_message(Message("assistant", [ReasoningPart("", nested(MAX_DEPTH))]))

    with pytest.raises(TooDeepError, match="200 levels"):
        sendable_message(Message("assistant", [ReasoningPart("", nested(MAX_DEPTH + 1))]))
