"""``headrace spans``: shows and exports the spans in a data directory. Needs no running engine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import get_args

from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import check_texts, count
from headrace.cli.shared.terminal import as_json, dim, one_line
from headrace.cli.spans.follow_spans import follow
from headrace.cli.spans.span_details import shown
from headrace.cli.spans.span_export import Format, export
from headrace.cli.spans.span_problems import aside_problems, directory_problem, export_problem, sink_problems
from headrace.cli.spans.span_table import Table
from headrace.cli.spans.stats_table import Stats
from headrace.process.standard_streams import print_json
from headrace.settings.settings import load_settings
from headrace.spans.data_directory import data_directory
from headrace.spans.reading import span_query, span_sums
from headrace.spans.reading.exported_span import line, record
from headrace.spans.reading.new_spans import NewSpans
from headrace.spans.reading.span_query import Filters, Grouping, moment
from headrace.spans.reading.stored_spans import SpanStore, opened, paths
from headrace.spans.span import SpanStatus
from headrace.spans.span_database import StoredSpan

NAME = "spans"
HELP = "Show the spans of past runs: prompts, answers, usage, cost, errors"

_WIDTH_IN_A_PIPE = 160
_CANDIDATES = 5
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, text: str, run: Callable[[argparse.Namespace], ExitCode]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text + ".", allow_abbrev=False)
        command.set_defaults(spans_command=run)
        command.add_argument("--data", type=Path, metavar="DIR", help="the data directory; default: as in the settings")
        return command

    _add_listing(add("list", "Show the newest spans, the newest first", _list), "--limit", 20, "0 shows all")
    _add_listing(
        add("tail", "Show new spans as they are stored, until Ctrl-C", _tail),
        "-n",
        10,
        "counts the existing spans that are shown first",
    )
    show = add("show", "Show one run: the conversation, then the facts", _show)
    show.add_argument("id", metavar="ID", help="the id of the span; its beginning is enough, and sp_ may be omitted")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    stats = add("stats", "Show runs, errors, latency, tokens and cost by model, or by another key", _stats)
    stats.add_argument("--by", choices=get_args(Grouping), default="model", help="the key to group by; default: model")
    stats.add_argument("--json", action="store_true", help="print it as JSON")
    _add_filters(stats)
    exporting = add("export", "Write spans to a file or standard output, the oldest first", _export)
    exporting.add_argument(
        "--format",
        choices=get_args(Format),
        help="the format of the output; default: by the ending of FILE, else jsonl",
    )
    exporting.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file to write; default: standard output"
    )
    _add_filters(exporting)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the subcommand."""
    check_texts(arguments)
    run: Callable[[argparse.Namespace], ExitCode] = arguments.spans_command
    return run(arguments)


def _add_listing(parser: argparse.ArgumentParser, option: str, limit: int, note: str) -> None:
    parser.add_argument(
        option, dest="limit", type=count, default=limit, metavar="N", help=f"number of spans; default: {limit}; {note}"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print each span as a line of JSON; the default in a pipe")
    form.add_argument("--table", action="store_true", help="print the table, in a pipe too")
    _add_filters(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    only = parser.add_argument_group("which spans; a span must meet all conditions")
    only.add_argument("--status", choices=get_args(SpanStatus), help="how the run ended")
    only.add_argument("--model", metavar="NAME", help="the requested model; * stands for any text, as in 'gpt-4o*'")
    only.add_argument("--provider", metavar="NAME", help="the provider of the run")
    only.add_argument("--user", metavar="ID", help="the user_id of the run")
    only.add_argument("--session", metavar="ID", help="the session_id of the run")
    only.add_argument("--tag", action="append", default=[], metavar="TAG", help="a tag of the run; may be repeated")
    only.add_argument(
        "--trace", metavar="ID", help="Headrace's trace id (tr_...), or that of the caller's OpenTelemetry span"
    )
    only.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="runs since TIME: 10m, 2h or 3d ago, or a date such as 2026-11-23T07:00",
    )
    only.add_argument("--until", type=_time, metavar="TIME", help="runs before TIME, in the same form")
    only.add_argument("--grep", metavar="TEXT", help="a text in the prompts or the answer; case does not matter")


def _list(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    show = _printer(arguments)
    count = 0
    with opened(directory, _complain, filters) as store:
        for stored in islice(store.newest(filters), arguments.limit or None):
            show(stored)
            count += 1
        for text in aside_problems(store.set_aside()):
            _complain(text)
    _say_if_none(count, arguments, directory)
    return ExitCode.OK


def _tail(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    show = _printer(arguments)
    new_spans = NewSpans(directory, filters, _complain)
    try:
        new_spans.skip()  # before the list is read: a span between both is seen twice, which is filtered below
        with opened(directory, _say_nothing, filters) as store:
            known = list(islice(store.newest(filters), arguments.limit))
        for stored in reversed(known):
            show(stored)
        shown_already = {(stored.seq, stored.span.span_id) for stored in known}
        follow(new_spans, lambda s: None if (s.seq, s.span.span_id) in shown_already else show(s), sys.stdout)
    finally:
        new_spans.close()
    return ExitCode.OK


def _show(arguments: argparse.Namespace) -> ExitCode:
    directory = _directory(arguments)
    with opened(directory, _complain, Filters()) as store:
        found = store.beginning(arguments.id, _CANDIDATES + 1)
        aside = {sink: reason for each in found[:1] for sink, _, reason in store.set_aside(each.span.span_id)}
    if not found:
        hint = f"; `headrace spans list --trace {arguments.id}` shows a trace" if arguments.id.startswith("tr_") else ""
        raise CommandError(ExitCode.FAILED, f"no span begins with {arguments.id} in {directory}{hint}")
    if len(found) > 1:
        names = ", ".join(stored.span.span_id for stored in found[:_CANDIDATES])
        more = ", …" if len(found) > _CANDIDATES else ""
        raise CommandError(ExitCode.USAGE, f"several spans begin with {arguments.id}: {names}{more}")
    if arguments.json:
        fields = record(found[0]) | ({"set_aside": aside} if aside else {})
        print_json(as_json(fields, indent=2), sys.stdout)
    else:
        for text in shown(found[0], sys.stdout, aside):
            print(text)
    return ExitCode.OK


def _stats(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    with opened(directory, _complain, filters) as store:
        stats = _stats_of(store, filters, arguments.by)
    if arguments.json:
        print_json(as_json(stats.fields(), indent=2), sys.stdout)
    elif stats.groups:
        for text in stats.lines(sys.stdout):
            print(text)
    _say_if_none(stats.total.runs, arguments, directory)
    return ExitCode.OK


def _stats_of(store: SpanStore, filters: Filters, by: Grouping) -> Stats:
    def groups_by(key: Grouping) -> dict[str, span_sums.Group]:
        sums = store.each(partial(span_query.sums, filters, key))
        return span_sums.grouped(key, sums, store.each(partial(span_query.seconds, filters, key)))

    groups = groups_by(by)
    return Stats(
        by=by,
        groups=groups,
        # A run may have several tags or none: sum up by provider, where each run has one.
        total=span_sums.total((groups_by("provider") if by == "tag" else groups).values()),
        errors=span_sums.counted(store.each(partial(span_query.errors, filters))),
        unpriced=span_sums.counted(store.each(partial(span_query.unpriced, filters))),
    )


def _export(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    path: Path | None = arguments.output
    form: Format = arguments.format or _SUFFIXES.get(path.suffix if path is not None else "", "jsonl")
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise CommandError(ExitCode.USAGE, "a terminal cannot show Parquet: name a file with -o")
    with opened(directory, _complain, filters) as store:
        count = export(store.oldest(filters), form, path)
    if path is not None and count:
        print(dim(one_line(f"{count} spans in {path}"), sys.stderr), file=sys.stderr)
    _say_if_none(count, arguments, directory)
    return ExitCode.OK


def _printer(arguments: argparse.Namespace) -> Callable[[StoredSpan], None]:
    """Return a function that prints a span as a line of JSON, or of a table. The first line of a table is its head."""
    out = sys.stdout
    if arguments.json or not (arguments.table or out.isatty()):
        return lambda stored: print_json(line(stored).rstrip("\n"), out)
    table = Table(shutil.get_terminal_size((_WIDTH_IN_A_PIPE, 0)).columns, out)
    heads = iter([table.head()])

    def show(stored: StoredSpan) -> None:
        for head in heads:
            print(head)
        print(table.line(stored, time.time()))

    return show


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.data is None:
        settings = load_settings(os.environ)
        where = data_directory(settings.spans, os.environ)
        trouble = directory_problem(where) if settings.spans.enabled else None
        unexported = export_problem(settings.sinks, os.environ)
        for text in filter(None, [trouble, *sink_problems(settings.sinks), unexported]):
            _complain(text)
        return where
    directory: Path = arguments.data
    if not directory.is_dir():
        raise CommandError(ExitCode.USAGE, f"--data {directory}: the directory does not exist")
    return directory.absolute()


def _filters(arguments: argparse.Namespace) -> Filters:
    return Filters(
        status=arguments.status,
        model=arguments.model,
        provider=arguments.provider,
        user=arguments.user,
        session=arguments.session,
        tags=tuple(arguments.tag),
        trace=arguments.trace,
        since=arguments.since,
        until=arguments.until,
        text=arguments.grep,
    )


def _say_if_none(count: int, arguments: argparse.Namespace, directory: Path) -> None:
    if count:
        return
    text = f"no span in {directory} meets the conditions"
    if arguments.data is None and directory_problem(directory) is not None:
        text = f"no span in {directory}"  # the reason has been printed already
    elif not paths(directory):
        text = (
            f"no spans in {directory} yet. Each run stores one, unless [spans] enabled = false or send_trace=False:\n"
            '  headrace run "Hello" --model gpt-4o\n'
            "--data or HEADRACE_DATA names another directory."
        )
    print(dim(text, sys.stderr), file=sys.stderr)


def _complain(text: str) -> None:
    print(one_line(f"headrace: {text}"), file=sys.stderr)


def _say_nothing(_text: str) -> None:
    pass


def _time(text: str) -> float:
    try:
        return moment(text, time.time())
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: give 10m, 2h, 3d or a date such as 2026-11-23T07:00"
        ) from None
