"""What is promised of reading a tool call's arguments: all that JSON allows is read, and nothing else."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from headrace.answers.tool_arguments import read_arguments, sendable, well_formed
from headrace.arguments.conversation import read_messages
from headrace.types import Message, ToolCallPart


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{}", {}),
        (' {"a": [1, null, "x"]}\n', {"a": [1, None, "x"]}),
        ('{"x": 1e400, "y": [-1e400]}', {"x": math.inf, "y": [-math.inf]}),
        ('{"x": 123456789012345678901234567890}', {"x": 123456789012345678901234567890}),
        ('{"x": "a\\ud83d"}', {"x": "a\ufffd"}),
        ('{"a\\udc4b": ["\\ud83d\\ud83d\\udc4b"]}', {"a\ufffd": ["\ufffd\U0001f44b"]}),
        ('{"x": "\ud83d\udc4b"}', {"x": "\U0001f44b"}),
        ('{"x": "\\ud83d\\udc4b"}', {"x": "\U0001f44b"}),
    ],
)
def test_all_that_json_allows_is_read(text: str, arguments: dict[str, Any]) -> None:
    assert read_arguments(text) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "null",
        "[]",
        '""',
        "1",
        "1e400",
        '{"x": NaN}',
        '{"x": Infinity}',
        "{'x': 1}",
        '{"x": 1} {}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:10],
)
def test_what_is_no_object_is_none(text: str) -> None:
    assert read_arguments(text) is None


def test_a_value_without_halves_stays_as_it_is() -> None:
    value = {"a": ["\U0001f44b", 1, None, True, 1.5, {"é": "\ufeffx"}]}
    assert well_formed(value) == value


@pytest.mark.parametrize(
    ("number", "sent"),
    [
        (math.inf, sys.float_info.max),
        (-math.inf, -sys.float_info.max),
        (2**64, float(2**64)),
        (-(2**63) - 1, float(-(2**63))),
        (10**400, str(10**400)),
        (2**64 - 1, 2**64 - 1),
        (True, True),
        (0.5, 0.5),
    ],
    ids=lambda number: str(number)[:20],
)
def test_a_call_goes_back_with_numbers_that_a_request_can_carry(number: float, sent: float | str) -> None:
    arguments = sendable({"x": [{"y": number}]})
    assert arguments == {"x": [{"y": sent}]}
    call = ToolCallPart("call_1", "add", arguments)
    again = [Message("user", "add"), Message("assistant", [call]), Message("tool", "1", tool_call_id="call_1")]
    assert read_messages(again, {}) == again
