"""Checks the arguments of ``run_local`` and ``embed``, and builds the run request. Pure.

A wrong argument raises InvalidRequestError, which names the argument and says what it takes. So nothing wrong is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, get_args, get_origin

import msgspec

from headrace.arguments import checks, conversation, tool_list
from headrace.arguments.generation_options import generation_fields
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.plain_values import plain_text, shown
from headrace.arguments.run_arguments import EmbeddingArguments, Priority, RunArguments
from headrace.arguments.unknown_arguments import advice_on
from headrace.errors import InvalidRequestError
from headrace.settings.http_values import key_problem
from headrace.settings.named_models import named_model
from headrace.settings.provider_table import MODEL_PREFIXES
from headrace.wire.messages import AbortMode
from headrace.wire.run_request import RunRequest

_PRIORITIES = get_args(Priority)
_ABORT_MODES = get_args(AbortMode)

MAX_RETRIES = 100
"""The most that ``max_retries`` takes."""
_EXPLICIT = ("stream", "response_type")
"""Arguments of ``run_local`` that are not in RunArguments."""

SPAN_ID = re.compile(r"sp_[0-9a-f]{16}")
TRACE_ID = re.compile(r"tr_[0-9a-f]{16}")


class RequestContext(TypedDict):
    """What the client adds to each request.

    ``providers``: the names of the providers that this client knows. ``takes_any_provider``: the argument ``provider``
    may name another one, which the engine may know. ``trace_id``: used if the arguments name none. ``traceparent``: the
    caller's trace.
    """

    trace_id: str
    traceparent: str | None
    providers: Sequence[str]
    takes_any_provider: bool


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a run that are not part of its request: its id, key, priority, retries, and how it is aborted.

    ``max_retries``, ``fallbacks`` and ``hedge_after`` (seconds) are None where the settings decide.
    """

    span_id: str | None
    provider_api_key: str | None
    priority: Priority
    on_abort: AbortMode
    max_retries: int | None = None
    fallbacks: list[str] | None = None
    hedge_after: float | None = None

    def __repr__(self) -> str:
        return f"RunOptions(span_id={self.span_id!r}, priority={self.priority!r}, on_abort={self.on_abort!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: never the key."""
        return [("span_id", self.span_id)]


def check_names(arguments: Mapping[str, Any], kind: type[RunArguments | EmbeddingArguments]) -> None:
    """Raise InvalidRequestError for an unknown argument, or a missing one that is required."""
    known = kind.__annotations__
    for name in arguments:
        if name not in known:
            raise InvalidRequestError(advice_on(name, [*known, *_EXPLICIT], is_run=kind is RunArguments), name)
    for name in ("model", "messages" if kind is RunArguments else "input"):
        if name not in arguments:
            raise InvalidRequestError("is missing", name)


def build_options(arguments: RunArguments | EmbeddingArguments) -> RunOptions:
    """Check the arguments that are not part of the request, and return them."""
    span_id = arguments.get("span_id")
    if span_id is not None:
        span_id = checks.matches("span_id", span_id, SPAN_ID, "'sp_' and 16 hex digits")
    key = checks.text("provider_api_key", arguments.get("provider_api_key"))
    if key is not None and (not key or not key.isascii() or not key.isprintable()):
        raise InvalidRequestError("takes a non-empty str of printable ASCII characters", "provider_api_key")
    if key is not None and (problem := key_problem(key)) is not None:
        raise InvalidRequestError(problem, "provider_api_key")
    priority: Any = checks.one_of("priority", arguments.get("priority", "interactive"), _PRIORITIES)
    on_abort: Any = checks.one_of("on_abort", arguments.get("on_abort", "close"), _ABORT_MODES)
    max_retries, fallbacks = arguments.get("max_retries"), arguments.get("fallbacks")
    hedge_after = arguments.get("hedge_after_ms")
    return RunOptions(
        span_id=span_id,
        provider_api_key=key,
        priority=priority,
        on_abort=on_abort,
        max_retries=None if max_retries is None else checks.integer("max_retries", max_retries, 0, MAX_RETRIES),
        fallbacks=None if fallbacks is None else checks.strings("fallbacks", fallbacks),
        hedge_after=None if hedge_after is None else checks.seconds("hedge_after_ms", hedge_after),
    )


def build_request(
    arguments: RunArguments,
    *,
    stream: bool,
    trace_id: str,
    providers: Sequence[str],
    takes_any_provider: bool = False,
    traceparent: str | None = None,
    original_paths: OriginalPaths | None = None,
    answer_format: dict[str, Any] | None = None,
) -> RunRequest:
    """Check the arguments of a run, and return its request. For the other parameters see :class:`RequestContext`.

    ``answer_format`` is the response format that ``response_type`` has made.

    Adds to ``original_paths`` each path that differs in the request.
    """
    original_paths = {} if original_paths is None else original_paths
    if arguments.get("logprobs") is None and arguments.get("top_logprobs") is not None:
        original_paths["logprobs"] = "top_logprobs"  # it turns logprobs on
    provider, model = provider_and_model(
        arguments["model"], arguments.get("provider"), providers, takes_any_provider=takes_any_provider
    )
    checks.instance("stream", stream, bool, "a bool")
    tools = arguments.get("tools")
    if tools is not None:
        tools = tool_list.with_functions_read(tools)
    offered = tool_list.read_tools(tools, original_paths)
    return RunRequest(
        provider=provider,
        model=model,
        messages=conversation.fill_variables(
            conversation.read_messages(arguments["messages"], original_paths), arguments.get("variables")
        ),
        stream=stream,
        tools=offered,
        tool_choice=tool_list.read_tool_choice(arguments.get("tool_choice"), offered),
        response_format=_response_format(arguments, answer_format, original_paths),
        fits_schemas=answer_format is not None or (bool(offered) and tool_list.has_strict_function(tools)),
        custom_options=checks.json_mapping("custom_options", arguments.get("custom_options")) or {},
        total_timeout=checks.seconds("timeout_ms", arguments.get("timeout_ms")),
        first_chunk_timeout=checks.seconds("first_chunk_timeout_ms", arguments.get("first_chunk_timeout_ms")),
        idle_timeout=checks.seconds("idle_timeout_ms", arguments.get("idle_timeout_ms")),
        traceparent=traceparent,
        **generation_fields(arguments, has_tools=bool(offered)),
        **_span_fields(arguments, trace_id),
    )


def _response_format(
    arguments: RunArguments, answer_format: dict[str, Any] | None, original_paths: OriginalPaths
) -> dict[str, Any] | None:
    given = _schema_given(arguments.get("response_format"))
    if answer_format is None:
        return given
    if given is not None:
        raise InvalidRequestError("give response_type or response_format, not both", "response_type")
    original_paths["response_format"] = "response_type"
    return answer_format


def _schema_given(response_format: object) -> dict[str, Any] | None:
    """Check ``response_format``, and return it. A type, as the SDK of OpenAI takes it there, is told its own argument."""
    if response_format is None:
        return None
    if isinstance(response_format, type) or get_origin(response_format) is not None:
        raise InvalidRequestError("takes a dict; give a type as response_type", "response_format")
    return checks.json_mapping("response_format", response_format)


def build_embedding_request(
    arguments: EmbeddingArguments,
    *,
    trace_id: str,
    providers: Sequence[str],
    takes_any_provider: bool = False,
    traceparent: str | None = None,
) -> RunRequest:
    """Check the arguments of an embedding, and return its request. See :func:`build_request`."""
    provider, model = provider_and_model(
        arguments["model"], arguments.get("provider"), providers, takes_any_provider=takes_any_provider
    )
    texts: object = arguments["input"]
    inputs = [plain_text("input", texts)] if isinstance(texts, str) else checks.strings("input", texts)
    if not inputs or not all(inputs):
        raise InvalidRequestError("takes a non-empty str, or a non-empty list of them", "input")
    return RunRequest(
        provider=provider,
        model=model,
        messages=[],
        stream=False,
        inputs=inputs,
        dimensions=checks.positive("dimensions", arguments.get("dimensions")),
        custom_options=checks.json_mapping("custom_options", arguments.get("custom_options")) or {},
        total_timeout=checks.seconds("timeout_ms", arguments.get("timeout_ms")),
        traceparent=traceparent,
        **_span_fields(arguments, trace_id),
    )


def _span_fields(arguments: RunArguments | EmbeddingArguments, trace_id: str) -> dict[str, Any]:
    """Check the arguments about the span, and return them as fields of the request."""
    send_trace = arguments.get("send_trace", True)
    checks.instance("send_trace", send_trace, bool, "a bool")
    given = arguments.get("trace_id")
    if given is not None:
        given = checks.matches("trace_id", given, TRACE_ID, "'tr_' and 16 hex digits")
    parent_span_id = arguments.get("parent_span_id")
    if parent_span_id is not None:
        parent_span_id = checks.matches("parent_span_id", parent_span_id, SPAN_ID, "'sp_' and 16 hex digits")
    return {
        "tags": checks.strings("tags", arguments.get("tags")),
        "user_id": checks.text("user_id", arguments.get("user_id")),
        "session_id": checks.text("session_id", arguments.get("session_id")),
        "trace_id": given or trace_id,
        "parent_span_id": parent_span_id,
        "send_trace": send_trace,
    }


def provider_and_model(
    model: object,
    provider: object,
    providers: Sequence[str],
    *,
    takes_any_provider: bool = False,
    argument: str = "model",
) -> tuple[str, str]:
    """Return the provider of a model, and the model's name there. ``argument``: what an error blames."""
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("takes the name of a model, such as 'gpt-4o'", argument)
    model = plain_text(argument, model)
    if provider is not None:
        provider = plain_text("provider", provider)
        if provider not in providers and not takes_any_provider:
            known = ", ".join(sorted(providers))
            raise InvalidRequestError(f"{shown(provider)} is not configured; there are: {known}", "provider")
        return provider, model
    if (named := named_model(model, providers)) is not None:
        return named
    head, slash, _ = model.partition("/")
    known = ", ".join(sorted(providers))
    wrong = f"; there is no provider {shown(head)}" if slash else ""
    prefixes = ", ".join(f"{prefix}… ({name})" for prefix, name in MODEL_PREFIXES if name in providers)
    raise InvalidRequestError(
        f"cannot tell the provider of {shown(model)}{wrong}: write 'provider/model'"
        f"{', or give the provider' if argument == 'model' else ''}; providers: {known}; names that tell it: {prefixes}",
        argument,
    )
