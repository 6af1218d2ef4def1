"""``headrace record``: passes requests on to the real providers, and records them and their answers without keys."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import check_texts, port
from headrace.cli.shared.terminal import bold, dim, one_line
from headrace.errors import ConfigurationError
from headrace.settings.http_values import base_url_problem
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.text.shown_address import without_password

if TYPE_CHECKING:
    from headrace.testing.recording.recorded_exchange import Ending
    from headrace.testing.recording.recording_proxy import Recorded

NAME = "record"
HELP = "Record the answers of real providers, to replay them in tests"

_PROVIDERS = ("openai", "anthropic", "google")
_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0"})  # noqa: S104 - compared, not bound

_ENDINGS: dict[Ending, list[str]] = {
    "complete": [],
    "cut": ["cut by the provider"],
    "closed_by_client": ["closed by your program before its end"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the recordings go; it is made if needed")
    parser.add_argument(
        "--port", type=port, default=8001, help="the port to listen on; default: 8001; 0 takes a free port"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: 127.0.0.1")
    for provider in _PROVIDERS:
        parser.add_argument(
            f"--{provider}",
            metavar="URL",
            help=f"where requests in {provider}'s format go; default: {BASE_URL_ENV[provider]}, else the provider's own",
        )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Serve until Ctrl-C or SIGTERM. Raises CommandError if it cannot listen on the port."""
    check_texts(arguments)
    upstreams = {
        provider: _upstream(provider, getattr(arguments, provider), os.environ, arguments.host, arguments.port)
        for provider in _PROVIDERS
    }
    folder = _made(arguments.folder)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole addresses, with keys
    from headrace.testing.recording.recording_proxy import serve_recorder
    from headrace.testing.server import listen, run_until_signal

    try:
        listener = listen(arguments.host, arguments.port)
        listener.listen()  # before anybody is told of the port
    except (OSError, OverflowError) as error:
        raise CommandError(
            ExitCode.UNAVAILABLE,
            f"cannot listen on {arguments.host} port {arguments.port}: {getattr(error, 'strerror', None) or error}; "
            "choose another port with --port (0 takes a free one)",
        ) from error
    _announce(arguments.host, listener.getsockname()[1], folder, upstreams)
    run_until_signal(lambda stop: serve_recorder(listener, folder, upstreams, on_recorded=_tell, stop=stop))
    return ExitCode.OK


def _upstream(provider: str, given: str | None, environ: Mapping[str, str], host: str, port: int) -> str:
    """Return the base URL that requests of a provider go to. Raises ConfigurationError if it cannot be used."""
    variable = BASE_URL_ENV[provider]
    url, source = (given, f"--{provider}") if given is not None else (environ.get(variable), variable)
    if not url:
        return BUILT_IN[provider][1]
    if (problem := base_url_problem(url)) is not None:
        raise ConfigurationError(f"{source} {problem}")
    parts = urlsplit(url)
    if parts.port == port and port and parts.hostname in {*_LOCAL_HOSTS, host}:
        raise ConfigurationError(
            f"{source} is {without_password(url)}, the recorder's own address: give the provider's with --{provider}, "
            f"or unset {variable} in the terminal of the recorder"
        )
    return url


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file; give a folder" if isinstance(error, FileExistsError) else str(error.strerror)
        raise ConfigurationError(f"{folder}: {reason}") from None
    return folder


def _announce(host: str, port: int, folder: Path, upstreams: Mapping[str, str]) -> None:
    local = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    out = sys.stdout
    print(bold(f"Recording into {one_line(str(folder))}", out), dim("(Ctrl-C ends it)", out))
    for provider, url in upstreams.items():
        print(dim(f"  {provider} → {without_password(url)}", out))
    print("\nIn another terminal, with your keys in the environment:\n")
    print(f"  export OPENAI_BASE_URL={local}/v1 ANTHROPIC_BASE_URL={local} GOOGLE_GEMINI_BASE_URL={local}")
    print("  python your_program.py\n", flush=True)


def _tell(recorded: Recorded) -> None:
    """Print a line on one request."""
    if recorded.name is not None:
        facts = [recorded.name, str(recorded.status), f"{recorded.size} bytes", f"{recorded.seconds:.1f} s"]
        print("  ".join([*facts, *_ENDINGS[recorded.ending]]), flush=True)
    if recorded.problem is not None:
        print(one_line(f"headrace: {recorded.problem}"), file=sys.stderr, flush=True)
