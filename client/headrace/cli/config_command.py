"""``headrace config``: shows where settings come from, and allows a found ``headrace.toml`` to send keys."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter

import msgspec

from headrace.cli.config_report import WHOLE_FILE, ReportedRefusal, SettingsReport, ShownSetting, report
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.terminal import bold, dim, one_line, red
from headrace.errors import ConfigurationError
from headrace.process.standard_streams import print_json
from headrace.settings.allowed_files import allowed_file, change_allowed_keys, read_allowed_keys
from headrace.settings.found_file_rules import AllowedKey, TrustedSettings, refused_settings, wanted_keys
from headrace.settings.settings import check_file, merged, trusted_settings
from headrace.settings.toml_file import NAME as FILE_NAME
from headrace.settings.toml_file import VARIABLE, SettingsFile, settings_files

NAME = "config"
HELP = "Show where settings come from; allow the current directory's file to send keys"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, text: str, run: Callable[[argparse.Namespace], ExitCode]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text + ".", allow_abbrev=False)
        command.set_defaults(config_command=run)
        return command

    show = add("show", "Show each setting and where it comes from, and the refused settings", _show)
    show.add_argument("--json", action="store_true", help="print it as JSON")
    allow = add("allow", f"Allow the {FILE_NAME} of the current directory to send keys to its own providers", _allow)
    which = allow.add_mutually_exclusive_group()
    which.add_argument("--yes", action="store_true", help="do not ask")
    which.add_argument("--list", action="store_true", help="show everything that is allowed, in all directories")
    which.add_argument(
        "--forget", action="store_true", help="take back everything that was allowed in the current directory"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the subcommand."""
    run: Callable[[argparse.Namespace], ExitCode] = arguments.config_command
    return run(arguments)


def _show(arguments: argparse.Namespace) -> ExitCode:
    """Show the settings. The exit code is 2 if a setting is refused, as for every other command with these settings."""
    found = report(os.environ)
    if arguments.json:
        print_json(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False), sys.stdout)
    else:
        _print(found)
    return ExitCode.USAGE if found.refused else ExitCode.OK


def _print(found: SettingsReport) -> None:
    out = sys.stdout
    print(bold("files", out))
    for file in found.files:
        print(f"  {one_line(file.path)}: {one_line(': '.join(filter(None, [_STATES[file.state], file.reason])))}")
    print(bold("settings", out))
    width = max((len(entry.setting) for entry in found.settings), default=0)
    for entry in found.settings:
        print(
            f"  {one_line(entry.setting):{width}}  {one_line(_value(entry))}  {dim(one_line(f'[{entry.source}]'), out)}"
        )
    if found.refused:
        print(bold("refused", out))
    for refused in found.refused:
        print(
            f"  {red(one_line(_refused_setting(refused)), out)} {one_line(refused.reason)}  {dim(one_line(f'[{refused.source}]'), out)}"
        )
        if refused.hint:
            print(f"    {one_line(refused.hint)}")


def _refused_setting(refused: ReportedRefusal) -> str:
    """Return the words before the reason. The reason begins with the setting's name if the whole file is refused."""
    return f"{refused.setting}:" if refused.setting == WHOLE_FILE else refused.setting


_STATES = {
    "read": "read",
    "none": "does not exist",
    "ignored": "ignored",
    "unusable": "cannot be used",
    "in part": "some of its settings are refused",
}


def _value(entry: ShownSetting) -> str:
    return entry.value if isinstance(entry.value, str) and entry.value else json.dumps(entry.value, ensure_ascii=False)


def _allow(arguments: argparse.Namespace) -> ExitCode:
    if arguments.list:
        _print_allowed(sorted(read_allowed_keys(os.environ)))
        return ExitCode.OK
    if arguments.forget:
        return _forget()
    file, known = _found_file()
    _check_others(file, known)
    wanted = wanted_keys(file.table, known)
    missing = [key for key in wanted if not known.is_allowed(key)]
    if not missing:
        print(
            "nothing to allow: "
            + ("everything that the file asks for is allowed" if wanted else "the file asks for no key")
        )
        return ExitCode.OK
    print(one_line(f"{file.path} asks for this:"))
    _print_allowed(missing)
    if not arguments.yes and not _is_yes():
        print("nothing was allowed")
        return ExitCode.FAILED
    change_allowed_keys(os.environ, lambda keys: keys | {*missing})
    print(f"allowed; kept in {one_line(allowed_file(os.environ))}")
    return ExitCode.OK


def _found_file() -> tuple[SettingsFile, TrustedSettings]:
    """Return the current directory's file, and what is known without it.

    Raises CommandError if the file is not read.
    """
    if named := os.environ.get(VARIABLE):
        text = f"{VARIABLE} is {named}: only that file is read, and it may set everything"
        raise CommandError(ExitCode.USAGE, one_line(text))
    own: dict[str, object] = {}
    for file in settings_files(os.environ):
        if file.ignored:
            raise CommandError(ExitCode.USAGE, one_line(f"{file.path} is ignored: {file.ignored}"))
        check_file(file)
        if file.is_found:
            return file, trusted_settings(file, own, os.environ)
        own = merged(own, file)
    raise CommandError(ExitCode.USAGE, f"the current directory has no {FILE_NAME} that needs permission for anything")


def _check_others(file: SettingsFile, known: TrustedSettings) -> None:
    """Raise ConfigurationError if the file has settings that no command can allow: the user must see these first."""
    others = [str(one) for one in refused_settings(file.table, known) if not one.keys]
    if others:
        raise ConfigurationError(
            f"{file.path}: {others[0]}. This command cannot allow that; `headrace config show` says what to do"
        )


def _print_allowed(keys: Sequence[AllowedKey]) -> None:
    for directory, each in groupby(keys, key=attrgetter("directory")):
        print(f"in {one_line(directory)}")
        for key in each:
            print("  " + one_line(f"provider {key.provider}: the value of {key.variable} is sent to {key.base_url}"))


def _is_yes() -> bool:
    if not sys.stdin.isatty():
        raise CommandError(
            ExitCode.USAGE, "cannot ask without a terminal; read the lines above, and give --yes if they are right"
        )
    print("Allow this? Type yes: ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _forget() -> ExitCode:
    here = os.path.realpath(os.getcwd())
    change_allowed_keys(os.environ, lambda keys: frozenset(key for key in keys if key.directory != here))
    print(f"nothing is allowed in {one_line(here)}")
    return ExitCode.OK
