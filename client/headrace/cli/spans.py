"""``headrace spans``: what was kept of runs, from the data directory, whether or not an engine runs."""

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

from headrace.cli import spans_stats
from headrace.cli.arguments import check_texts, count
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.spans_export import Format, export
from headrace.cli.spans_show import shown
from headrace.cli.spans_stats import Stats
from headrace.cli.spans_table import Table
from headrace.cli.spans_tail import Tail, follow
from headrace.cli.spans_trouble import aside_troubles, directory_trouble, export_trouble, sink_troubles
from headrace.cli.terminal import as_json, dim, one_line
from headrace.process.standard_streams import print_json
from headrace.settings.settings import load_settings
from headrace.spans.data_directory import StoredSpan, data_directory
from headrace.spans.reading import span_query as spans_query
from headrace.spans.reading.exported_span import line, record
from headrace.spans.reading.span_query import Filters, Grouping, moment
from headrace.spans.reading.stored_spans import SpanStore, opened, paths
from headrace.spans.span import SpanStatus

NAME = "spans"
HELP = "Show what was kept of runs: prompts, answers, usage, cost, errors"

_WIDTH_IN_A_PIPE = 160
_CANDIDATES = 5
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's commands and their arguments."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, text: str, run: Callable[[argparse.Namespace], ExitCode]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text + ".", allow_abbrev=False)
        command.set_defaults(spans_command=run)
        command.add_argument("--data", type=Path, metavar="DIR", help="default: where the settings have it")
        return command

    _add_listing(add("list", "Show the newest spans, the newest first", _list), "--limit", 20, "0 shows all")
    _add_listing(add("tail", "Show spans as they come, until Ctrl-C", _tail), "-n", 10, "of what is there already")
    show = add("show", "Show one run: the conversation, then the facts", _show)
    show.add_argument("id", metavar="ID", help="of the span; its beginning is enough, sp_ may be left out")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    stats = add("stats", "Show runs, errors, latency, tokens and cost, by model or otherwise", _stats)
    stats.add_argument("--by", choices=get_args(Grouping), default="model", help="default: model")
    stats.add_argument("--json", action="store_true", help="print it as JSON")
    _add_filters(stats)
    exporting = add("export", "Write spans to a file or standard output, the oldest first", _export)
    exporting.add_argument("--format", choices=get_args(Format), help="default: as FILE's name ends, else jsonl")
    exporting.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    _add_filters(exporting)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the command that was asked for."""
    check_texts(arguments)
    run: Callable[[argparse.Namespace], ExitCode] = arguments.spans_command
    return run(arguments)


def _add_listing(parser: argparse.ArgumentParser, option: str, limit: int, note: str) -> None:
    parser.add_argument(
        option, dest="limit", type=count, default=limit, metavar="N", help=f"how many; default: {limit}; {note}"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print each as a line of JSON; a pipe gets that anyway")
    form.add_argument("--table", action="store_true", help="print the table into a pipe too")
    _add_filters(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    only = parser.add_argument_group("which spans; all that is given must hold")
    only.add_argument("--status", choices=get_args(SpanStatus))
    only.add_argument("--model", metavar="NAME", help="as it was asked for; * stands for anything, as in 'gpt-4o*'")
    only.add_argument("--provider", metavar="NAME")
    only.add_argument("--user", metavar="ID")
    only.add_argument("--session", metavar="ID")
    only.add_argument("--tag", action="append", default=[], metavar="TAG", help="may be repeated")
    only.add_argument("--trace", metavar="ID", help="Headrace's (tr_...), or that of the caller's OpenTelemetry span")
    only.add_argument(
        "--since", type=_time, metavar="TIME", help="10m, 2h or 3d ago, or a date such as 2026-11-23T07:00"
    )
    only.add_argument("--until", type=_time, metavar="TIME")
    only.add_argument("--grep", metavar="TEXT", help="in what was asked or answered; case does not matter")


def _list(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    show = _printer(arguments)
    count = 0
    with opened(directory, _complain, filters) as store:
        for stored in islice(store.newest(filters), arguments.limit or None):
            show(stored)
            count += 1
        for text in aside_troubles(store.set_aside()):
            _complain(text)
    _say_if_none(count, arguments, directory)
    return ExitCode.OK


def _tail(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    show = _printer(arguments)
    tail = Tail(directory, filters, _complain)
    try:
        tail.skip()  # before the list is made: what comes in between is better known twice than not at all
        with opened(directory, _say_nothing, filters) as store:
            known = list(islice(store.newest(filters), arguments.limit))
        for stored in reversed(known):
            show(stored)
        shown_already = {(stored.seq, stored.span.span_id) for stored in known}
        follow(tail, lambda s: None if (s.seq, s.span.span_id) in shown_already else show(s), sys.stdout)
    finally:
        tail.close()
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
        stats = _collected(store, filters, arguments.by)
    if arguments.json:
        print_json(as_json(stats.fields(), indent=2), sys.stdout)
    elif stats.groups:
        for text in stats.lines(sys.stdout):
            print(text)
    _say_if_none(stats.total.runs, arguments, directory)
    return ExitCode.OK


def _collected(store: SpanStore, filters: Filters, by: Grouping) -> Stats:
    def groups_by(key: Grouping) -> dict[str, spans_stats.Group]:
        sums = store.each(partial(spans_query.sums, filters, key))
        return spans_stats.collected(key, sums, store.each(partial(spans_query.seconds, filters, key)))

    groups = groups_by(by)
    return Stats(
        by=by,
        groups=groups,
        # Of tags a run may have several, or none.
        total=spans_stats.total((groups_by("provider") if by == "tag" else groups).values()),
        errors=spans_stats.counted(store.each(partial(spans_query.errors, filters))),
        unpriced=spans_stats.counted(store.each(partial(spans_query.unpriced, filters))),
    )


def _export(arguments: argparse.Namespace) -> ExitCode:
    directory, filters = _directory(arguments), _filters(arguments)
    path: Path | None = arguments.output
    form: Format = arguments.format or _SUFFIXES.get(path.suffix if path is not None else "", "jsonl")
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise CommandError(ExitCode.USAGE, "Parquet is not for a terminal: name a file with -o")
    with opened(directory, _complain, filters) as store:
        count = export(store.oldest(filters), form, path)
    if path is not None and count:
        print(dim(one_line(f"{count} spans in {path}"), sys.stderr), file=sys.stderr)
    _say_if_none(count, arguments, directory)
    return ExitCode.OK


def _printer(arguments: argparse.Namespace) -> Callable[[StoredSpan], None]:
    """Return what prints a span: as a line of a table, whose head comes before the first, or of JSON."""
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
        trouble = directory_trouble(where) if settings.spans.enabled else None
        unexported = export_trouble(settings.sinks, os.environ)
        for text in filter(None, [trouble, *sink_troubles(settings.sinks), unexported]):
            _complain(text)
        return where
    directory: Path = arguments.data
    if not directory.is_dir():
        raise CommandError(ExitCode.USAGE, f"--data {directory}: there is no such directory")
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
    text = f"no span in {directory} is like that"
    if arguments.data is None and directory_trouble(directory) is not None:
        text = f"no span in {directory}"  # why is said already
    elif not paths(directory):
        text = (
            f"no spans in {directory} yet. Every run leaves one, unless [spans] enabled = false or send_trace=False:\n"
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
        raise argparse.ArgumentTypeError(f"{text!r}: takes 10m, 2h, 3d or a date such as 2026-11-23T07:00") from None
