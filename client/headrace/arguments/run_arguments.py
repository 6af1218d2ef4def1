"""The keyword arguments of a run, field by field.

Types only: :mod:`headrace.arguments.checked_request` checks values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

from headrace.arguments.message_dicts import MessageDict
from headrace.types import Message, Tool
from headrace.wire.messages import AbortMode

Priority = Literal["interactive", "batch"]
Verbosity = Literal["low", "medium", "high"]


class RunArguments(TypedDict, total=False):
    """The keyword arguments of ``run_local`` and ``arun_local``, beside ``stream`` and ``response_type``.

    ``model`` and ``messages`` must be given. ``None`` means the same as leaving the argument out. A wrong value raises
    InvalidRequestError before anything is sent; its ``argument`` names the argument, such as ``messages[2].content``.

    * What to run: ``model``, ``provider``, ``messages``, ``variables``.
    * Tools: ``tools``, ``tool_choice``, ``parallel_tool_calls``.
    * The answer: ``max_output_tokens``, ``stop_sequences``, ``response_format``, ``verbosity``, ``reasoning_effort``,
      ``logprobs``, ``top_logprobs``.
    * Sampling: ``temperature``, ``top_p``, ``top_k``, ``frequency_penalty``, ``presence_penalty``, ``seed``.
    * The provider: ``provider_api_key``, ``service_tier``, ``metadata``, ``custom_options``.
    * Time limits, in milliseconds: ``timeout_ms``, ``first_chunk_timeout_ms``, ``idle_timeout_ms``.
    * The span: ``tags``, ``user_id``, ``session_id``, ``send_trace``, ``span_id``, ``trace_id``, ``parent_span_id``.
    * The engine: ``priority``, ``on_abort``.
    * Failures: ``max_retries``, ``fallbacks``, ``hedge_after_ms``.
    """

    model: Required[str]
    """The model's name: ``gpt-4o``, or ``PROVIDER/MODEL`` for any configured provider. Not empty.

    Raises InvalidRequestError if the name does not tell the provider and ``provider`` is not given.
    """
    messages: Required[str | Sequence[Message | MessageDict | Mapping[str, Any]]]
    """The conversation: a non-empty list of dicts or of :class:`Message`; or a str, which is one message of the user.

    A dict has ``role`` (``system``, ``developer``, ``user``, ``assistant`` or ``tool``) and ``content`` (a str, or a
    list of parts; ``None`` for an answer with nothing but tool calls).
    An answer to a tool call has ``tool_call_id`` too. Encoded, all arguments together have at most 48 MiB.
    """
    provider: str | None
    """The provider's name.

    Default: the model's name tells it. It must be configured, unless the engine is at an address.
    """
    tools: Sequence[Callable[..., Any] | Tool | Mapping[str, Any]] | None
    """Tools that the model may call: functions, dicts or :class:`Tool`.

    Default: none. Of a function, the signature and the docstring are read: see :func:`headrace.tool`. ``run_local``
    calls no function; ``run_tools`` does. OpenAI's, Anthropic's and Google's forms of a dict are read.
    """
    tool_choice: str | Mapping[str, str] | None
    """``"auto"``, ``"none"``, ``"required"``, or ``{"tool": NAME}``. Default: the provider decides. Needs ``tools``."""
    response_format: Mapping[str, Any] | None
    """A JSON schema for the answer, bare or in OpenAI's form. Default: free text. Not together with ``response_type``."""
    temperature: float | None
    """Sampling temperature, from 0 to 2; some providers take less. Default: the provider's."""
    max_output_tokens: int | None
    """The most tokens that the answer may have, above 0. Default: the provider's; for Anthropic, chosen per model."""
    top_p: float | None
    """Nucleus sampling, from 0 to 1. Default: the provider's."""
    stop_sequences: Sequence[str] | None
    """Texts that end the answer. Default: none. OpenAI Chat takes at most 4, Google 5, OpenAI Responses none."""
    top_k: int | None
    """Sample from the k most likely tokens only; above 0. Default: the provider's.

    Anthropic, Google and servers that are compatible with OpenAI Chat take it.
    """
    frequency_penalty: float | None
    """How much a token is avoided that the answer has often, from -2 to 2. Default: the provider's.

    OpenAI Chat, servers that are compatible with it, and Google take it.
    """
    presence_penalty: float | None
    """How much a token is avoided that the answer has already, from -2 to 2. Default: the provider's.

    OpenAI Chat, servers that are compatible with it, and Google take it.
    """
    seed: int | None
    """A number for sampling: with the same seed, the provider tries to give the same answer. At most 64 bits.

    Default: none. OpenAI Chat, servers that are compatible with it, and Google (32 bits) take it.
    """
    logprobs: bool | None
    """Whether the result has the log probability of each token (``result.logprobs``). Default: ``False``.

    Anthropic has none.
    """
    top_logprobs: int | None
    """How many of the most likely tokens ``result.logprobs`` has at each place, from 0 to 20. Default: none.

    It turns ``logprobs`` on.
    """
    parallel_tool_calls: bool | None
    """Whether the model may call several tools at once. Default: it may. Needs ``tools``.

    Google cannot turn it off.
    """
    verbosity: Verbosity | None
    """How long the answer is: ``"low"``, ``"medium"`` or ``"high"``. Default: the provider's. Only OpenAI has it."""
    service_tier: str | None
    """The provider's service tier, in its word, such as ``"flex"`` or ``"priority"``. Default: the provider's.

    Anthropic takes ``auto`` and ``standard_only``; Google ``flex``, ``standard`` and ``priority``.
    """
    metadata: Mapping[str, str] | None
    """Texts that the provider keeps with the run: at most 16, names up to 64 and texts up to 512 characters.

    Default: none. Anthropic takes only ``user_id``; Google gets them as labels. They are kept with the span, too.
    """
    reasoning_effort: str | None
    """How much the model reasons, in the provider's word, such as ``"low"``. Default: the provider's."""
    timeout_ms: int | None
    """The total timeout in milliseconds: above 0, at most 366 days. Default: ``total_timeout`` of the engine, 600 s.

    The run's wait for a worker counts. When the time is over, the run ends with RunTimeoutError (``clock`` is
    ``total``).
    """
    first_chunk_timeout_ms: int | None
    """Milliseconds from the request to the first content: above 0, at most 366 days.

    Default: ``first_chunk_timeout`` of the engine, 300 s; for a run with ``stream=False``: no limit.
    Ends the run with RunTimeoutError (``clock`` is ``first_chunk``).
    """
    idle_timeout_ms: int | None
    """Milliseconds between two signs of life from the provider: above 0, at most 366 days.

    Default: ``idle_timeout`` of the engine, 120 s; for a run with ``stream=False``: no limit.
    Ends the run with RunTimeoutError (``clock`` is ``idle``).
    """
    variables: Mapping[str, str] | None
    """Texts for ``{{name}}`` in the messages.

    Default: braces stay as they are. A name without a text is an InvalidRequestError.
    """
    provider_api_key: str | None
    """The provider's key for this run only: printable ASCII, not empty. It is in no span, log or error.

    Default: the variable of the provider (``OPENAI_API_KEY``), in this program's environment as it is now. For an
    engine at an address: in the engine's environment.
    """
    custom_options: Mapping[str, Any] | None
    """Keys that are merged into the provider's request body as they are.

    They go before the other arguments. Default: none.
    """
    tags: Sequence[str] | None
    """Words that are kept with the span, to find it again. Default: none."""
    user_id: str | None
    """The id of your user; kept with the span. Default: none. It is not sent to the provider."""
    session_id: str | None
    """The id of the conversation; kept with the span. Default: none. It is not sent to the provider."""
    send_trace: bool
    """Whether a span of the run is kept. Default: ``True``. With ``False`` the run is only counted."""
    span_id: str | None
    """The run's id: ``sp_`` and 16 hex digits.

    Default: a new one. The engine refuses the id of a run that is still going.
    """
    trace_id: str | None
    """The id of the trace that the run belongs to: ``tr_`` and 16 hex digits. Default: a new one."""
    parent_span_id: str | None
    """The id of the parent span: ``sp_`` and 16 hex digits. Default: none."""
    priority: Priority
    """``"interactive"`` or ``"batch"``: a batch run waits while interactive runs wait for a worker.

    Default: ``"interactive"``.
    """
    on_abort: AbortMode
    """What an abort does to the provider's response. Default: ``"close"``, close the connection at once.

    ``"drain"``: read the response to its end, for its exact usage. The provider bills all of it.
    """
    max_retries: int | None
    """How often the run is tried again after a failure of the provider, from 0 to 100. ``0``: never.

    Default: ``max_retries`` of ``[models]`` in ``headrace.toml``, else ``max_retries`` of the engine, 2. Tried again are
    refused and broken connections, and HTTP 408, 409, 429 and 5xx; never after the first chunk of a stream.
    """
    fallbacks: Sequence[str] | None
    """Models that are tried in this order if ``model`` fails for good, before its first chunk; at most 16.

    Default: ``fallbacks`` of ``[models]`` in ``headrace.toml``, else none. Each is named as in ``model``, and gets the
    same arguments; ``provider`` does not count for it, and ``provider_api_key`` only if it is of the same provider.
    ``result.provider`` and ``result.model`` say who answered.
    """
    hedge_after_ms: int | None
    """Milliseconds without any event after which a second attempt is made beside the first one; above 0.

    Default: ``hedge_after_ms`` or ``hedge`` of ``[models]`` in ``headrace.toml``, else no second attempt. The faster
    attempt counts, and the other one is stopped. At most 5 % of a model's runs get a second attempt.
    """


class EmbeddingArguments(TypedDict, total=False):
    """The keyword arguments of ``run_embedding`` and ``arun_embedding``.

    ``model`` and ``input`` must be given. ``None`` means the same as leaving the argument out. A wrong value raises
    InvalidRequestError before anything is sent; its ``argument`` names the argument.

    The others: ``provider``, ``dimensions``, ``timeout_ms``, ``provider_api_key``, ``custom_options``, ``tags``,
    ``user_id``, ``session_id``, ``send_trace``, ``span_id``, ``trace_id``, ``parent_span_id``, ``priority``,
    ``max_retries``, ``fallbacks``.
    """

    model: Required[str]
    """The model's name: ``text-embedding-3-small``, or ``PROVIDER/MODEL`` for any configured provider. Not empty."""
    input: Required[str | Sequence[str]]
    """The text to embed, or a list of texts. No text may be empty."""
    provider: str | None
    """The provider's name.

    Default: the model's name tells it. It must be configured, unless the engine is at an address.
    """
    dimensions: int | None
    """Numbers in each vector, above 0. Default: the model's. Not every model takes it."""
    timeout_ms: int | None
    """The total timeout in milliseconds: above 0, at most 366 days. Default: ``total_timeout`` of the engine, 600 s."""
    provider_api_key: str | None
    """The provider's key for this run only. Default: as for ``run_local``."""
    custom_options: Mapping[str, Any] | None
    """Keys that are merged into the provider's request body as they are. Default: none."""
    tags: Sequence[str] | None
    """Words that are kept with the span, to find it again. Default: none."""
    user_id: str | None
    """The id of your user; kept with the span. Default: none."""
    session_id: str | None
    """The id of the conversation; kept with the span. Default: none."""
    send_trace: bool
    """Whether a span of the run is kept. Default: ``True``. With ``False`` the run is only counted."""
    span_id: str | None
    """The run's id: ``sp_`` and 16 hex digits. Default: a new one."""
    trace_id: str | None
    """The id of the trace that the run belongs to: ``tr_`` and 16 hex digits. Default: a new one."""
    parent_span_id: str | None
    """The id of the parent span: ``sp_`` and 16 hex digits. Default: none."""
    priority: Priority
    """``"interactive"`` or ``"batch"``: a batch run waits while interactive runs wait for a worker.

    Default: ``"interactive"``.
    """
    max_retries: int | None
    """How often the run is tried again after a failure of the provider, from 0 to 100. Default: as for ``run_local``."""
    fallbacks: Sequence[str] | None
    """Models that are tried in this order if ``model`` fails for good. Default: as for ``run_local``.

    Vectors of different models cannot be compared: ``result.model`` says which model made them.
    """
