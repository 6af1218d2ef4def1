"""``Script``: what the simulated provider answers, and which faults its answer has.

A script is the same for all wire formats. A *chunk* is one streamed piece of the answer: of text, reasoning, a refusal
or the arguments of a tool call. Role, finish reason, usage and ``[DONE]`` are no chunks. So ``cut_after=3`` means that
three pieces of the answer are sent.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ScriptedToolCall(
    msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, forbid_unknown_fields=True
):
    """A tool call to make. ``arguments`` is a dict, or a str that is sent unchanged, also if it is no valid JSON."""

    name: str
    arguments: dict[str, Any] | str = msgspec.field(default_factory=dict)
    id: str | None = None


class ScriptedLogprob(
    msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, forbid_unknown_fields=True
):
    """The log probability of one token of the answer. ``top_logprobs``: token → log probability, the most likely first."""

    token: str
    logprob: float
    top_logprobs: dict[str, float] = msgspec.field(default_factory=dict)


class Script(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True, forbid_unknown_fields=True
):
    """One answer of the simulated provider.

    Every field is optional. An empty script gives an answer that suits the request.

    Content: ``chunks`` are the exact pieces of text. ``repeat`` makes this number of pieces (``"0 "``, ``"1 "``, ...).
    ``text`` is split into words. ``reasoning`` and ``refusal`` are split likewise. ``tool_calls`` are made, unless the
    conversation has the result of a tool after its last user message; with ``calls_again``, as in each enqueued script,
    they are made then, too. ``usage`` replaces the counted usage, with the provider's own names. ``logprobs`` are those
    of the first pieces of text, for a request that asks for them; the others are made up.

    Media: ``images`` are images in base64 (OpenRouter's ``images`` of Chat Completions, ``image_generation_call`` of
    OpenAI Responses, ``inlineData`` of Google). ``audio`` is audio in base64; in Chat Completions the text is then its
    transcript, and Google sends it as it is. Anthropic makes neither, and OpenAI Responses makes no audio.

    Server tools: ``server_steps`` are blocks of Anthropic, or items of OpenAI Responses, that come before the answer.
    The next request must send them back unchanged. (Chat Completions and Google have none here.) ``container`` is the
    id of the container in which Anthropic ran code. ``text=""`` with ``finish_reason="pause_turn"`` pauses an Anthropic
    turn.

    Delays, in seconds: ``first_token_delay`` before the first chunk, ``pace`` between two chunks. With 0, chunks are
    sent as fast as the client reads.

    Instead of an answer: a ``status`` other than 200 sends an error (``error_message`` and ``error_code``, or a whole
    ``error_body``) with ``headers``. ``silent`` never answers. ``reset`` resets the connection. ``html`` sends a web page.
    ``failures`` are for requests that are tried again: the first request with this script is answered by the first of
    them, the next by the next, and then the script itself is. What makes it a script of one run's own, such as a text,
    belongs in the script itself.

    Early ends, after a number of chunks: ``stall_after`` sends nothing more and keeps the connection open.
    ``cut_after`` closes the connection within the body. ``end_after`` ends the body without a finish reason.
    ``error_after`` sends an error in the stream. The smallest number counts. ``garbage_after`` inserts an event that is
    no JSON, and the stream goes on. ``continue_after`` stops Google's answer with a continuation token; a request with
    the token gets the same number of further chunks.

    Bytes: ``split_bytes`` sends pieces of this size. ``one_write`` sends everything at once. ``comments`` puts a
    comment line before each chunk. ``obfuscation`` pads chunks as OpenAI does. ``no_final_newline`` leaves out the last
    blank line. ``omit_done`` and ``omit_usage`` leave out these events. ``close_after_response`` closes the connection
    after the answer.
    """

    text: str | None = None
    images: list[str] = msgspec.field(default_factory=list)
    audio: str | None = None
    chunks: list[str] | None = None
    repeat: Count | None = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ScriptedToolCall] = msgspec.field(default_factory=list)
    calls_again: bool = False
    server_steps: list[dict[str, Any]] = msgspec.field(default_factory=list)
    container: str | None = None
    usage: dict[str, Any] | None = None
    logprobs: list[ScriptedLogprob] = msgspec.field(default_factory=list)
    finish_reason: str | None = None

    pace: Seconds = 0.0
    first_token_delay: Seconds = 0.0

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 200
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    error_body: dict[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None
    silent: bool = False
    reset: bool = False
    html: bool = False
    failures: list[Script] = msgspec.field(default_factory=list)

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
