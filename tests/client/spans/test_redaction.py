"""What redaction promises: policy and hook decide on content before it is written, and no hook can do harm to a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import msgspec
import pytest

from headrace.errors import ConfigurationError
from headrace.settings.settings import SpansConfig
from headrace.spans.redaction import Redactor
from headrace.spans.span import ContentToolCall, Rank, Span, SpanContent, decode_content, encode_content
from headrace.types import ImagePart, Message, TextPart, Tool

Hooks = Callable[..., SpansConfig]

SPAN = Span(span_id="sp_1", rank=Rank.WORKER, provider="openai", model="m")
CONTENT = SpanContent(
    messages=[Message("user", [TextPart("my card is 4111"), ImagePart(url="http://x")])],
    tools=[Tool("f", "", {"type": "object"})],
    text="4111",
    tool_calls=[ContentToolCall("c1", "f", "{}")],
)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    """Return settings that name a function as the hook."""
    module = ModuleType("hooks_of_a_test")
    sys.modules[module.__name__] = module

    def config(hook: object, **fields: Any) -> SpansConfig:
        module.hook = hook  # type: ignore[attr-defined]
        return SpansConfig(redact="hooks_of_a_test:hook", **fields)

    yield config
    del sys.modules[module.__name__]


def without_cards(content: dict[str, Any]) -> dict[str, Any]:
    text = msgspec.json.encode(content).decode().replace("4111", "[card]")
    return dict(msgspec.json.decode(text))


def test_content_is_kept_as_it_is_unless_told_otherwise() -> None:
    span = Redactor(SpansConfig()).redact(SPAN, CONTENT)
    assert (decode_content(span.content), span.content_note) == (CONTENT, "")


def test_by_policy_no_content_is_kept() -> None:
    redactor = Redactor(SpansConfig(content="none"))
    kept = redactor.redact(SPAN, CONTENT)
    assert (kept.content, kept.content_note) == (b"", "policy")
    assert not redactor.keeps_content

    again = redactor.redact_again(msgspec.structs.replace(SPAN, content=encode_content(CONTENT)))
    assert (again.content, again.content_note) == (b"", "policy")


def test_a_hook_decides_what_is_kept(hooks: Hooks) -> None:
    span = Redactor(hooks(without_cards)).redact(SPAN, CONTENT)

    assert b"4111" not in span.content
    kept = decode_content(span.content)
    assert kept.text == "[card]"
    assert kept.messages[0].text == "my card is [card]"
    assert (kept.tools, kept.tool_calls) == (CONTENT.tools, CONTENT.tool_calls)


def test_a_hook_finds_every_field_there_and_may_change_what_it_is_given(hooks: Hooks) -> None:
    def only_lengths(content: dict[str, Any]) -> dict[str, Any]:
        assert set(content) == set(SpanContent.__struct_fields__)
        content["text"] = str(len(content["text"]))
        content["messages"].clear()
        return content

    redactor = Redactor(hooks(only_lengths))
    for _ in range(2):
        assert decode_content(redactor.redact(SPAN, SpanContent(text="abc")).content) == SpanContent(text="3")
    assert CONTENT.messages


def test_a_hook_may_keep_nothing(hooks: Hooks) -> None:
    span = Redactor(hooks(lambda _: None)).redact(SPAN, CONTENT)
    assert (span.content, span.content_note) == (b"", "redacted")


def raises(content: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(content["text"])


@pytest.mark.parametrize(
    "hook",
    [raises, lambda _: "text", lambda _: {"text": 1}, lambda _: {"messages": ["hi"]}, lambda _: {"text": "\ud800"}],
    ids=["raises", "no dict", "wrong type", "wrong message", "no text"],
)
def test_content_that_a_hook_could_not_go_through_is_dropped(
    hooks: Hooks, hook: object, caplog: pytest.LogCaptureFixture
) -> None:
    redactor = Redactor(hooks(hook))
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            span = redactor.redact(SPAN, CONTENT)
            assert (span.content, span.content_note) == (b"", "redaction failed")

    assert len(caplog.records) <= 1, "not for each span"
    assert "4111" not in caplog.text


def test_a_clients_span_is_treated_alike(hooks: Hooks) -> None:
    redactor = Redactor(hooks(without_cards))
    sent = msgspec.structs.replace(SPAN, rank=Rank.CLIENT, content=encode_content(CONTENT))

    assert decode_content(redactor.redact_again(sent).content).text == "[card]"
    assert redactor.redact_again(SPAN) == SPAN, "what has no content stays as it is"
    broken = redactor.redact_again(msgspec.structs.replace(SPAN, content=b"4111"))
    assert (broken.content, broken.content_note) == (b"", "redaction failed")


def test_content_that_cannot_be_written_is_dropped_and_the_span_is_not() -> None:
    span = Redactor(SpansConfig()).redact(SPAN, SpanContent(text="\ud800"))
    assert (span.span_id, span.content, span.content_note) == ("sp_1", b"", "cannot be encoded")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json", "module:function"),
        (":dumps", "module:function"),
        ("no_such_module_x:f", "cannot be imported"),
        ("json:no_such", "no function no_such"),
        ("json:__name__", "no function __name__"),
        ("asyncio:open_connection", "async"),
    ],
)
def test_a_hook_that_cannot_be_used_is_named_at_the_start(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Redactor(SpansConfig(redact=name))
    assert repr(name) in str(caught.value)
