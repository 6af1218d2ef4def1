"""What a command line of ``headrace batch`` asks for: its arguments checked, and read into what a job takes."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from headrace.arguments.checks import json_mapping
from headrace.batch.driver.options import NO_MAX_COST, BatchOptions
from headrace.batch.journal.job_files import JobFiles, job_files, stream_files
from headrace.batch.journal.shown_settings import shown_setting
from headrace.batch.rows.row_options import RowOptions, RowProvider
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import check_texts, custom_options
from headrace.errors import ConfigurationError, InvalidRequestError
from headrace.files.private_files import make_directories
from headrace.files.state_directory import state_directory
from headrace.schemas.response_type import ResponseType, response_type_of
from headrace.settings.settings import Settings, load_settings

STREAM = "-"
"""Stands for standard input and standard output."""


class JobPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line asks for. ``files`` is None without an output, for a dry run.

    ``input``, ``output``: paths, or ``-``. ``engine``: its address, None for one of this job's own. ``shape``: what shapes the
    rows, as names and values for people.
    """

    input: str
    output: str | None
    files: JobFiles | None
    rows: RowOptions
    run: BatchOptions
    settings: Settings
    engine: str | None
    shape: dict[str, str]

    @property
    def is_read_once(self) -> bool:
        """Whether the input must be copied to be read twice: standard input, or a pipe such as ``<(zcat rows.gz)``."""
        return self.input == STREAM or (os.path.exists(self.input) and not os.path.isfile(self.input))

    @contextlib.contextmanager
    def input_stream(self) -> Iterator[BinaryIO]:
        """Open an input that is read once."""
        if self.input == STREAM:
            yield sys.stdin.buffer
        else:
            with open(self.input, "rb") as stream:
                yield stream

    @property
    def title(self) -> str:
        """What the job reads and writes."""
        source = "standard input" if self.input == STREAM else self.input
        target = "standard output" if self.output == STREAM else self.output
        return source if target is None else f"{source} → {target}"


def job_plan(arguments: argparse.Namespace) -> JobPlan:
    """Return what the command line asks for.

    Raises CommandError, ConfigurationError or InvalidRequestError for options that are wrong or do not fit together.
    """
    check_texts(arguments)
    _check_together(arguments)
    settings = load_settings(os.environ)
    schema = None if arguments.schema is None else _schema(arguments.schema)
    timeout_ms = None if arguments.timeout is None else math.ceil(arguments.timeout * 1000)
    return JobPlan(
        input=arguments.input,
        output=arguments.output,
        files=_files(arguments),
        rows=_row_options(arguments, settings, schema),
        run=BatchOptions(
            concurrency=arguments.concurrency,
            max_retries=arguments.max_retries,
            timeout_ms=timeout_ms,
            response_type=schema,
            dedupe=arguments.dedupe,
            cache=_cache(arguments.cache),
            limit=arguments.limit,
            sample=arguments.sample,
            max_cost=arguments.max_cost,
            stops_without_key=True,
            via_provider=arguments.via_provider,
            background=arguments.background,
            cancels_batches=arguments.cancel,
        ),
        settings=settings,
        engine=arguments.engine or os.environ.get("HEADRACE_ENGINE") or None,
        shape=_shape(arguments),
    )


def _check_together(arguments: argparse.Namespace) -> None:
    """Raise CommandError for options that exclude each other, or that need another one."""
    if arguments.output is None and not arguments.dry_run:
        raise _wrong("--output is missing; name the file of the results, such as -o out.jsonl, or use --dry-run")
    if arguments.input == STREAM and sys.stdin.isatty():
        raise _wrong("standard input is a terminal; name a file, or pipe rows into the command")
    if arguments.json and arguments.output == STREAM:
        raise _wrong("--json and -o - both write to standard output; write the results to a file")
    if arguments.job is not None and arguments.output != STREAM:
        raise _wrong("--job is for -o - only; the journal of a job with an output file is beside that file")
    if arguments.max_cost is not None and (arguments.via_provider or arguments.background):
        raise _wrong(
            f"--max-cost {NO_MAX_COST}; leave out --via-provider or --background, use --limit, or see the cost before with "
            "--dry-run"
        )
    if arguments.via_provider and arguments.background:
        raise _wrong("--via-provider and --background exclude each other")
    if arguments.changed and arguments.force:
        raise _wrong("--changed and --force exclude each other")


def _wrong(text: str) -> CommandError:
    return CommandError(ExitCode.USAGE, text)


def _files(arguments: argparse.Namespace) -> JobFiles | None:
    if arguments.output is None:
        return None
    if arguments.output != STREAM:
        return job_files(arguments.output, arguments.errors, is_ordered=arguments.ordered)
    directory = arguments.job
    if directory is None:
        if arguments.input == STREAM:
            raise _wrong("- for both IN and OUT needs --job DIR: a directory for the journal, to go on after a stop")
        directory = Path(f"{arguments.input}.job")
    return stream_files(directory, arguments.errors, is_ordered=arguments.ordered)


def _row_options(arguments: argparse.Namespace, settings: Settings, schema: ResponseType | None) -> RowOptions:
    given = {
        "temperature": arguments.temperature,
        "max_output_tokens": arguments.max_output_tokens,
        "response_type": schema,
        "custom_options": custom_options(arguments.option) or None,
    }
    return RowOptions(
        model=arguments.model,
        provider=arguments.provider,
        prompt=arguments.prompt,
        embed=arguments.embed,
        system=arguments.system,
        arguments={name: value for name, value in given.items() if value is not None},
        input_format=arguments.input_format,
        providers={name: RowProvider(each.base_url, each.api) for name, each in settings.providers.items()},
    )


def _shape(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what shapes the rows, for the explanation of a change."""
    names = ("input", "model", "provider", "prompt", "embed", "system", "temperature", "max_output_tokens", "schema")
    shape = {name: getattr(arguments, name) for name in names} | {"option": custom_options(arguments.option) or None}
    return {name: shown_setting(value) for name, value in shape.items() if value is not None}


def _schema(path: Path) -> ResponseType:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"--schema {path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigurationError(f"--schema {path}: it is nested too deeply") from None
    except ValueError as error:
        raise ConfigurationError(f"--schema {path}: it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"--schema {path}: takes a JSON schema, which is an object")
    try:
        return response_type_of(json_mapping("schema", found))
    except InvalidRequestError as error:
        raise ConfigurationError(f"--schema {path}: {error.reason}") from None


def _cache(given: Path | None) -> Path | None:
    """Return the file of answers. An empty path stands for the user's own, whose directory is made. Raises OSError."""
    if given is None or given != Path():
        return given
    directory = state_directory(os.environ)
    if directory is None:
        raise _wrong("--cache needs a FILE, because this user has no home directory")
    make_directories(directory)
    return directory / "batch-cache.sqlite"
