"""Says what to use instead of an attribute that ``openai``, ``litellm`` or another library has. Pure.

The classes get descriptors that raise AttributeError. ``__getattr__`` would do, but with it Python takes five times as
long for each attribute that does exist, and a run reads some fifty.
"""

from __future__ import annotations

from typing import Self, TypeVar

K = TypeVar("K", bound=type)

_RUN = "use client.run_local(model=…, messages=…)"
_ARUN = "use await client.arun_local(model=…, messages=…)"
_EMBED = "use client.run_embedding(model=…, input=…)"
_DICT = "use to_dict()"
_RESULT = "the result has it: stream.result.result().{name}, or (await stream.result).{name} in asyncio"
_IN_FUTURE = "stream.result is a future: use stream.result.result().{name}"
_IN_TASK = "stream.result is a future: use (await stream.result).{name}"
_ABORT = "use abort()"
_TEXTS = "iterate over the stream itself for its text, or over events() for everything"
_OTHER_LIBRARY = "Headrace does not offer it"

_FIELDS = (
    "text", "usage", "cost", "message", "tool_calls", "finish_reason", "parsed", "reasoning", "aborted", "refusal",
    "logprobs", "images", "audio", "model",
)  # fmt: skip
"""Fields of a result that are looked for at a stream, or at its future."""

_STREAM = dict.fromkeys(_FIELDS, _RESULT) | {
    "close": _ABORT,
    "aclose": _ABORT,
    "cancel": _ABORT,
    "response": _TEXTS,
    "text_stream": _TEXTS,
    "text_deltas": _TEXTS,
    "iter_lines": _TEXTS,
    "until_done": "use stream.result.result(), or await stream.result in asyncio",
    "get_final_message": "use stream.result.result(), or await stream.result in asyncio",
    "get_final_completion": "use stream.result.result(), or await stream.result in asyncio",
    "get_final_response": "use stream.result.result(), or await stream.result in asyncio",
    "get_final_text": "use stream.result.result().text, or (await stream.result).text in asyncio",
    "current_completion_snapshot": "use partials() for an object that grows",
}

_ADVICE: dict[str, dict[str, str]] = {
    "Client": {
        "chat": _RUN,
        "responses": _RUN,
        "messages": _RUN,
        "completions": _RUN,
        "completion": _RUN,
        "generate": _RUN,
        "generate_content": _RUN,
        "invoke": _RUN,
        "create": _RUN,
        "run": _RUN,
        "beta": _RUN,
        "acompletion": _ARUN,
        "ainvoke": _ARUN,
        "arun": _ARUN,
        "aio": _ARUN,
        "stream": "use client.run_local(model=…, messages=…, stream=True)",
        "parse": "use client.run_local(model=…, messages=…, response_type=…)",
        "embeddings": _EMBED,
        "embedding": _EMBED,
        "embed": _EMBED,
        "aembedding": "use await client.arun_embedding(model=…, input=…)",
        "with_options": "give timeout_ms and provider_api_key to each run",
        "copy": "one client serves all threads, event loops and forked children",
        "with_raw_response": "an error has request_id; the span of a run has the provider's ids",
        "with_streaming_response": "use client.run_local(model=…, messages=…, stream=True)",
        "api_key": "keys come from the environment, such as OPENAI_API_KEY, or with each run as provider_api_key",
        "base_url": "the address of a provider is base_url in headrace.toml, or a variable such as OPENAI_BASE_URL",
    }
    | dict.fromkeys(
        ("files", "batches", "fine_tuning", "images", "audio", "models", "moderations", "vector_stores", "assistants"),
        _OTHER_LIBRARY,
    ),
    "Stream": _STREAM,
    "ConversationStream": _STREAM | {"partials": "the object is in the result: stream.result.result().parsed"},
    "ResultFuture": dict.fromkeys(_FIELDS, _IN_FUTURE),
    "_ToolResultFuture": dict.fromkeys((*_FIELDS, "messages", "turns"), _IN_FUTURE),
    "AsyncResultFuture": dict.fromkeys((*_FIELDS, "messages", "turns"), _IN_TASK),
    "RunLocalResult": {
        "choices": "the text is result.text, and the calls are result.tool_calls",
        "candidates": "the text is result.text, and the calls are result.tool_calls",
        "content": "use text, or message.content for the parts",
        "output_text": "use text",
        "output": "use message.content for the parts",
        "output_parsed": "use parsed",
        "delta": "iterate over the stream for its chunks",
        "reasoning_content": "use reasoning",
        "stop_reason": "use finish_reason",
        "id": "use span_id",
        "response_cost": "use cost",
        "usage_metadata": "use usage",
        "role": "use message.role",
    },
    "Usage": {
        "prompt_tokens": "use input_tokens",
        "prompt_token_count": "use input_tokens",
        "completion_tokens": "use output_tokens",
        "candidates_token_count": "use output_tokens",
        "total_token_count": "use total_tokens",
        "prompt_tokens_details": "use cached_input_tokens",
        "input_tokens_details": "use cached_input_tokens",
        "cache_read_input_tokens": "use cached_input_tokens",
        "cached_tokens": "use cached_input_tokens",
        "cache_creation_input_tokens": "use cache_write_tokens",
        "completion_tokens_details": "use reasoning_tokens",
        "output_tokens_details": "use reasoning_tokens",
    },
    "ToolCall": {
        "function": "name and arguments are fields of the call itself, and arguments is a dict",
        "input": "use arguments, a dict",
        "args": "use arguments, a dict",
        "call_id": "use id",
        "type": "each call is a call of a function",
    },
    "DictForm": dict.fromkeys(("model_dump", "model_dump_json", "dict", "json", "to_json", "_asdict", "asdict"), _DICT),
    "Message": {"parts": "use content", "name": "use tool_name", "refusal": "the result has it: result.refusal"},
}
"""Class → attribute of another library → what to use. It counts for the subclasses, too."""

_MODULE = dict.fromkeys(
    ("OpenAI", "AsyncOpenAI", "AsyncClient", "Anthropic", "AsyncAnthropic", "AzureOpenAI", "LLM", "Router"),
    "use headrace.Client; it has run_local, and arun_local for asyncio",
) | dict.fromkeys(
    ("completion", "acompletion", "responses", "chat", "generate", "embedding", "aembedding", "stream_chunk_builder"),
    "make a headrace.Client(), and use its run_local, arun_local or run_embedding",
)


class _ForeignAttribute:
    """An attribute that another library has: getting it raises AttributeError, which says what to use."""

    def __init__(self, name: str, advice: str) -> None:
        self._name = name
        self._advice = advice
        self.__doc__ = None  # documentation shows nothing of it

    def __get__(self, owner: object, kind: type) -> Self:
        if owner is None:  # the class is asked, as documentation does
            return self
        words = f"{kind.__name__!r} object has no attribute {self._name!r}: {self._advice}"
        raise AttributeError(words, name=self._name, obj=owner)

    def __repr__(self) -> str:  # help() shows it
        return f"(not here: {self._advice})"


def knows_foreign_attributes(kind: K) -> K:
    """Have a class tell what to use instead of the attributes that other libraries have, by the table for its name.

    A decorator. For an object ``hasattr`` is False for these attributes, and ``dir`` leaves them out.
    """
    for name, advice in _ADVICE[kind.__name__].items():
        setattr(kind, name, _ForeignAttribute(name, advice.format(name=name)))
    kind.__dir__ = _own_names  # type: ignore[assignment]
    return kind


def _own_names(owner: object) -> list[str]:
    foreign = {
        name
        for kind in type(owner).__mro__
        for name, value in vars(kind).items()
        if isinstance(value, _ForeignAttribute)
    }
    return sorted({*object.__dir__(owner)} - foreign)


def missing_name(module: str, name: str) -> AttributeError:
    """Return the error for a name that the package does not have."""
    advice = f": {_MODULE[name]}" if name in _MODULE else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{advice}")
