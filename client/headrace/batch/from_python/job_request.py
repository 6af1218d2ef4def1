"""JobRequest: checks the arguments of a batch job from Python, and sorts them by what they are for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from headrace.arguments.batch_arguments import BatchArguments
from headrace.arguments.checks import flag, integer, number, one_of, positive, text
from headrace.arguments.unknown_arguments import advice_on
from headrace.batch.driver.options import DEFAULT_CONCURRENCY, NO_MAX_COST, BackgroundWindow, BatchOptions
from headrace.batch.journal.job_files import JobFiles, job_files
from headrace.batch.journal.shown_settings import shown_setting
from headrace.batch.rows.row_options import RowOptions, RowProvider
from headrace.errors import InvalidRequestError
from headrace.runs.typed_answer import typed_answer_of

_MOST_RETRIES = 100
_MOST_ROWS = 1_000_000_000
_MOST_COST = 1e9
_OF_ROWS = ("model", "provider", "prompt", "embed", "system")
_OF_JOB = frozenset({
    "path", "changed", "force", "retry_failed", "ordered", "dedupe", "cache", "limit", "sample", "max_cost",
    "concurrency", "schema_retries", "via_provider", "background", "cancel_batches",
})  # fmt: skip
_NOT_SHOWN = frozenset({"provider_api_key"})


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a program asks for. ``files`` None: no path. ``shape``: what shapes the rows, for people."""

    rows: RowOptions
    run: BatchOptions
    files: JobFiles | None
    changed: bool
    force: bool
    retry_failed: bool
    shape: dict[str, str]


def job_request(
    arguments: Mapping[str, Any],
    response_type: object,
    providers: Mapping[str, RowProvider],
    *,
    is_ordered: bool = False,
) -> JobRequest:
    """Check the arguments, and return what they ask for. ``is_ordered``: if they do not say it.

    Raises InvalidRequestError, which names the argument.
    """
    known = BatchArguments.__annotations__
    for name in arguments:
        if name not in known:
            raise InvalidRequestError(advice_on(name, sorted(known), is_run=True), name)
    given = {name: value for name, value in arguments.items() if value is not None}
    of_runs = {name: value for name, value in given.items() if name not in _OF_JOB and name not in _OF_ROWS}
    reader = None if response_type is None else typed_answer_of(response_type)
    if reader is not None:
        of_runs["response_type"] = reader.response_type
    is_ordered = bool(flag("ordered", given.get("ordered", is_ordered)))
    path = _path("path", given.get("path"))
    max_retries = integer("max_retries", of_runs.pop("max_retries", None), 0, _MOST_RETRIES)
    schema_retries = integer("schema_retries", given.get("schema_retries"), 0, _MOST_RETRIES)
    run = BatchOptions(
        concurrency=positive("concurrency", given.get("concurrency")) or DEFAULT_CONCURRENCY,
        max_retries=5 if max_retries is None else max_retries,
        response_type=None if reader is None else reader.response_type,
        is_ordered=is_ordered,
        schema_retries=2 if schema_retries is None else schema_retries,
        dedupe=bool(flag("dedupe", given.get("dedupe"))),
        cache=_path("cache", given.get("cache")),
        limit=integer("limit", given.get("limit"), 0, _MOST_ROWS),
        sample=integer("sample", given.get("sample"), 0, _MOST_ROWS),
        max_cost=number("max_cost", given.get("max_cost"), 0.0, _MOST_COST),
        via_provider=bool(flag("via_provider", given.get("via_provider"))),
        background=_background(given.get("background")),
        cancels_batches=bool(flag("cancel_batches", given.get("cancel_batches"))),
    )
    _check_deferred(run, has_path=path is not None)
    return JobRequest(
        rows=RowOptions(
            model=text("model", given.get("model")),
            provider=text("provider", given.get("provider")),
            prompt=text("prompt", given.get("prompt")),
            embed=text("embed", given.get("embed")),
            system=text("system", given.get("system")),
            arguments=of_runs,
            providers=providers,
        ),
        run=run,
        files=None if path is None else job_files(path, is_ordered=is_ordered),
        changed=bool(flag("changed", given.get("changed"))),
        force=bool(flag("force", given.get("force"))),
        retry_failed=bool(flag("retry_failed", given.get("retry_failed"))),
        shape={
            name: shown_setting(value)
            for name, value in given.items()
            if name not in _OF_JOB and name not in _NOT_SHOWN
        },
    )


def _background(given: object) -> Any:
    return None if given is None else one_of("background", given, get_args(BackgroundWindow))


def _check_deferred(run: BatchOptions, *, has_path: bool) -> None:
    """Check the options of a job whose rows the provider runs in its own time."""
    if run.is_deferred and run.max_cost is not None:
        raise InvalidRequestError(f"{NO_MAX_COST}; leave it out, or give a limit", "max_cost")
    if run.cancels_batches and not has_path:
        raise InvalidRequestError("needs path: the job whose batches are to be cancelled", "cancel_batches")


def _path(argument: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not (named := os.fspath(value)) or isinstance(named, bytes):
        raise InvalidRequestError("takes the path of a file: a non-empty str or a Path", argument)
    return Path(named)
