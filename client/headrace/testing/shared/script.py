"""What the simulated provider is told to answer, and how to misbehave while doing so.

A script says nothing of any provider's wire format. A *chunk* is one streamed piece of the answer: of text, reasoning,
a refusal or a tool call's arguments. What only frames the answer (role, finish reason, usage, ``[DONE]``) is no chunk, so
``cut_after=3`` means: three pieces of the answer have been sent.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ScriptedToolCall(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool call to make. ``arguments`` as a string is sent as it is, valid JSON or not."""

    name: str
    arguments: dict[str, Any] | str = msgspec.field(default_factory=dict)
    id: str | None = None


class Script(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One answer. Every field is optional; an empty script gives a pleasant answer that suits the request.

    What is said: ``chunks`` are the exact deltas, ``repeat`` makes that many numbered ones (``"0 "``, ``"1 "``, ...), and
    ``text`` is split into words. ``tool_calls`` are made unless the conversation already holds a tool's result after its last
    user message. ``usage`` replaces the counted figures, in the provider's own words.

    ``server_steps`` are what the provider's own tools did before the answer, in the wire format's words: Anthropic's blocks, the items
    of OpenAI Responses (Chat Completions and Google have none here). They must come back as they were given. ``container`` is
    the id of the container in which Anthropic ran code. With ``text=""`` and ``finish_reason="pause_turn"`` an Anthropic turn pauses.

    When: ``first_token_delay`` passes before the first chunk, ``pace`` between chunks, both in seconds. Without either, chunks are
    sent as fast as the client reads.

    Instead of an answer: ``status`` other than 200 sends an error (``error_message``, ``error_code``, or a whole
    ``error_body``) with ``headers``; ``silent`` never answers; ``html`` answers with a web page.

    The stream ends early after so many chunks: ``stall_after`` falls silent with the connection open, ``cut_after`` closes the
    connection in mid-body, ``end_after`` ends the body cleanly but without finish reason, ``error_after`` sends an error
    inside the stream. The smallest counts. ``garbage_after`` inserts an event that is not JSON and goes on.
    ``continue_after`` stops Google's answer with a token after so many chunks; who asks again with the token gets as many more.

    How the bytes travel: ``split_bytes`` sends pieces of so many bytes, ``one_write`` everything at once, ``comments`` puts
    a comment line before each chunk, ``obfuscation`` pads chunks as OpenAI does, ``no_final_newline`` leaves out the last blank
    line, ``omit_done`` and ``omit_usage`` leave out these events.
    """

    text: str | None = None
    chunks: list[str] | None = None
    repeat: Count | None = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ScriptedToolCall] = msgspec.field(default_factory=list)
    server_steps: list[dict[str, Any]] = msgspec.field(default_factory=list)
    container: str | None = None
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None

    pace: Seconds = 0.0
    first_token_delay: Seconds = 0.0

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 200
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    error_body: dict[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None
    silent: bool = False
    html: bool = False

    stall_after: Count | None = None
    cut_after: Count | None = None
    end_after: Count | None = None
    error_after: Count | None = None
    garbage_after: Count | None = None
    continue_after: Annotated[int, msgspec.Meta(ge=1)] | None = None

    split_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    one_write: bool = False
    comments: bool = False
    obfuscation: bool = False
    no_final_newline: bool = False
    omit_done: bool = False
    omit_usage: bool = False
    close_after_response: bool = False
