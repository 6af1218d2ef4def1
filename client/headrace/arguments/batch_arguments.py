"""The keyword arguments of a batch job from Python, field by field. Types only."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from headrace.arguments.run_arguments import Priority, Verbosity
from headrace.types import Tool
from headrace.wire.messages import AbortMode


class MapArguments(TypedDict, total=False):
    """The keyword arguments of ``map`` and ``amap``, and of ``batch`` and ``abatch`` too, beside ``response_type``.

    ``None`` means the same as leaving the argument out. All but those of the job are arguments of each row that does not
    name them itself, and mean what they mean in :class:`RunArguments`.

    * The rows: ``model``, ``provider``, ``prompt``, ``embed``, ``system``.
    * The job: ``path``, ``changed``, ``force``, ``retry_failed``, ``dedupe``, ``cache``, ``limit``, ``sample``,
      ``max_cost``, ``concurrency``, ``schema_retries``, ``via_provider``, ``background``, ``cancel_batches``.
    """

    model: str | None
    """The model of rows that name none."""
    provider: str | None
    """The provider of all rows. Default: the model's name tells it."""
    prompt: str | None
    """A template, such as ``"Summarise: {text}"``. ``{{`` and ``}}`` are braces.

    The rows are then records: dicts with columns for the template, or texts, which have the column ``text``.
    """
    embed: str | None
    """The column of a record to embed. Texts have the column ``text``. Not together with ``prompt``."""
    system: str | None
    """The system message of rows that have none."""
    path: str | os.PathLike[str] | None
    """The file of the results, such as ``out.jsonl``. The job's journal is beside it, and the errors in ``out.errors.jsonl``.

    With it the job can be started again after any end: rows that are recorded are not run again. Their results come first,
    read from the file. Default: nothing is written.
    """
    changed: bool
    """If the rows are not those of the journal: run the changed and new ones. Default: ChangedInputError."""
    force: bool
    """Begin anew: the earlier results in ``path`` are removed. Default: ``False``."""
    retry_failed: bool
    """Run the rows again that failed. Default: ``False``: their errors come from the file."""
    dedupe: bool
    """Whether equal rows share one run. Default: ``False``.

    Without ``path``, a row finds its equal among the rows that run and the last 8,192 answers.
    """
    cache: str | os.PathLike[str] | None
    """A SQLite file of answers, for several jobs: a row that is in it with all its arguments is not run. Default: none."""
    limit: int | None
    """Only the first rows, so many. Default: all."""
    sample: int | None
    """Only so many rows, drawn at random, the same ones each time. Default: all."""
    max_cost: float | None
    """US dollars: no further rows are started if what was spent, and what runs, would cost more. Default: no bound."""
    concurrency: int | None
    """Rows with the engine at most. Default: 1,024. The job finds out by itself how many of them are useful."""
    schema_retries: int | None
    """How often a row is run again whose answer does not fit ``response_type``. Default: 2."""

    via_provider: bool
    """Whether the rows go to the provider's own batch API, at half the price: OpenAI, Anthropic or Google. Default: ``False``.

    The provider may take a day. A job that ends before leaves its batches there; with ``path``, the next start fetches
    them. Without ``path`` they are lost. No spans are kept.
    """
    background: Literal["2h", "8h"] | None
    """Have OpenAI run each row in the background within 2 or 8 hours, 30 % or 40 % cheaper. Default: none."""
    cancel_batches: bool
    """Run nothing: cancel the batches that an earlier start has left with the provider. What they have done is kept.

    Default: ``False``. Give the same ``path``.
    """

    tools: Sequence[Callable[..., Any] | Tool | Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, str] | None
    response_format: Mapping[str, Any] | None
    temperature: float | None
    max_output_tokens: int | None
    top_p: float | None
    stop_sequences: Sequence[str] | None
    top_k: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    logprobs: bool | None
    top_logprobs: int | None
    parallel_tool_calls: bool | None
    verbosity: Verbosity | None
    service_tier: str | None
    metadata: Mapping[str, str] | None
    reasoning_effort: str | None
    dimensions: int | None
    """Numbers in each vector, for rows that embed: see :class:`EmbeddingArguments`."""
    timeout_ms: int | None
    first_chunk_timeout_ms: int | None
    idle_timeout_ms: int | None
    variables: Mapping[str, str] | None
    provider_api_key: str | None
    custom_options: Mapping[str, Any] | None
    tags: Sequence[str] | None
    user_id: str | None
    session_id: str | None
    """Default: an id of this job, so that the spans of all rows are found together."""
    send_trace: bool
    trace_id: str | None
    parent_span_id: str | None
    priority: Priority
    """Default: ``"batch"``: a row waits while interactive runs wait for a worker."""
    on_abort: AbortMode
    max_retries: int | None
    """How often a row is tried again after a failure of the provider, from 0 to 100. Default: 5."""
    fallbacks: Sequence[str] | None
    hedge_after_ms: int | None


class BatchArguments(MapArguments, total=False):
    """The keyword arguments of ``batch`` and ``abatch``, beside ``response_type``: those of :class:`MapArguments`, and ``ordered``."""

    ordered: bool
    """Whether results come in the order of the input, also in the file ``path``. Default: ``False``: as they finish.

    With ``via_provider`` or ``background`` and no ``path``, all results that wait for an earlier row are in memory.
    """
