"""Runs that are not plain streams: embeddings, answers in one piece, and all kinds of failures."""

from __future__ import annotations

from random import Random
from typing import Any

from headrace import Client
from headrace.errors import HeadraceError, InvalidRequestError, ProviderError
from headrace.process.history import History

MODEL = "gpt-4o"
FAILURES: tuple[dict[str, Any], ...] = (
    {"status": 400},
    {"status": 401},
    {"status": 404},
    {"status": 429, "headers": {"retry-after": "1"}},
    {"status": 500},
    {"status": 503},
    {"repeat": 50, "pace": 0.01, "error_after": 20},
    {"repeat": 50, "pace": 0.01, "cut_after": 20},
    {"repeat": 50, "pace": 0.01, "end_after": 20},
    {"html": True},
)


async def run_other(client: Client, random: Random, seen: History) -> None:
    """Start one, check what comes of it, and write it down: a scripted failure that came is ``failed``."""
    span_id = f"sp_{random.getrandbits(64):016x}"
    seen.note("begin", span_id=span_id)
    kind, text, reason = "done", "", ""
    try:
        match random.randrange(3):
            case 0:
                await _embed(client, span_id, random.randint(1, 20))
            case 1:
                await _answer(client, span_id)
            case _:
                key = f"sk-failing-{random.randrange(200)}"
                kind, text = "failed", await _fail(client, span_id, random.choice(FAILURES), key)
    except HeadraceError as error:
        kind, text, reason = type(error).__name__, getattr(error, "partial_text", ""), str(error)
    seen.note("read", span_id=span_id)
    seen.note("saw", span_id=span_id, kind=kind, text=text, reason=reason, attempt=1)


async def _embed(client: Client, span_id: str, count: int) -> None:
    texts = [f"{span_id} {number}" for number in range(count)]
    result = await client.arun_embedding(model="text-embedding-3-small", input=texts, span_id=span_id)
    assert len(result.embeddings) == count


async def _answer(client: Client, span_id: str) -> None:
    result = await client.arun_local(
        model=MODEL,
        messages=[{"role": "user", "content": span_id}],
        span_id=span_id,
        custom_options={"simulate": {"repeat": 100, "pace": 0.005}},
    )
    assert result.text == "".join(f"{number} " for number in range(100))


async def _fail(client: Client, span_id: str, script: dict[str, Any], key: str) -> str:
    """Return the text that came before the failure. ``key``: of few runs, so that failures hold up no other runs."""
    stream = await client.arun_local(
        model=MODEL,
        messages=[{"role": "user", "content": span_id}],
        stream=True,
        span_id=span_id,
        provider_api_key=key,
        max_retries=0,
        custom_options={"simulate": script},
    )
    try:
        await stream.result
    except ProviderError as error:
        return error.partial_text
    except InvalidRequestError:
        return ""
    raise AssertionError(f"{span_id}: a failure came as a success")
