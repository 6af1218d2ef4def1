"""``headrace simulate``: runs a simulated model provider on this machine, to try Headrace without a key."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import check_texts, port, positive_count
from headrace.cli.shared.terminal import bold, dim
from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from headrace.testing import ProviderLimits, Script

NAME = "simulate"
HELP = "Run a simulated model provider, to try Headrace without a key"

_PACE = 0.03  # seconds; slow enough to see the stream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--port", type=port, default=8000, help="the port to listen on; default: 8000; 0 takes a free port"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: 127.0.0.1")
    parser.add_argument("--text", help="the answer; default: an answer that suits the request")
    parser.add_argument("--repeat", type=int, metavar="N", help="answer with N numbered chunks")
    parser.add_argument("--pace", type=float, metavar="SECONDS", help=f"the time between two chunks; default: {_PACE}")
    parser.add_argument("--first-token-delay", type=float, metavar="SECONDS", help="the time before the first chunk")
    parser.add_argument(
        "--requests-per-minute",
        type=positive_count,
        metavar="N",
        help="answer 429 above so many requests a minute of each key and model; default: no limit",
    )
    parser.add_argument(
        "--tokens-per-minute", type=positive_count, metavar="N", help="the same for tokens; default: no limit"
    )
    parser.add_argument(
        "--script",
        type=Path,
        metavar="FILE",
        help="a headrace.testing.Script as JSON; the other options override its values",
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Serve until Ctrl-C or SIGTERM. Raises CommandError if it cannot listen on the port."""
    check_texts(arguments)
    script = _script(arguments)
    limits = _limits(arguments)
    from headrace.testing import run_server

    try:
        run_server(arguments.host, arguments.port, script, lambda port: _announce(arguments.host, port), limits=limits)
    except (OSError, OverflowError) as error:
        raise CommandError(
            ExitCode.UNAVAILABLE,
            f"cannot listen on {arguments.host} port {arguments.port}: {getattr(error, 'strerror', None) or error}; "
            "choose another port with --port (0 takes a free one)",
        ) from error
    return ExitCode.OK


def _script(arguments: argparse.Namespace) -> Script:
    from headrace.testing import Script

    fields = {"pace": _PACE} if arguments.script is None else _read(arguments.script)
    for name in ("text", "repeat", "pace", "first_token_delay"):
        if (value := getattr(arguments, name)) is not None:
            fields[name] = value
    try:
        return msgspec.convert(fields, Script)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the script cannot be used: {error}") from None


def _limits(arguments: argparse.Namespace) -> ProviderLimits:
    from headrace.testing import ProviderLimits

    return ProviderLimits(
        requests_per_minute=arguments.requests_per_minute, tokens_per_minute=arguments.tokens_per_minute
    )


def _read(path: Path) -> dict[str, object]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise ConfigurationError(f"--script {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"--script {path}: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"--script {path}: it is nested too deeply") from None


def _announce(host: str, port: int) -> None:
    base_url = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    out = sys.stdout
    print(bold(f"A simulated provider listens at {base_url}", out), dim("(Ctrl-C ends it)", out))
    print("\nIn another terminal:\n")
    host = base_url.removesuffix("/v1")
    print(f"  export OPENAI_BASE_URL={base_url} OPENAI_API_KEY=sk-simulated")
    print(f"  export ANTHROPIC_BASE_URL={host} ANTHROPIC_API_KEY=sk-simulated")
    print(f"  export GOOGLE_GEMINI_BASE_URL={host} GEMINI_API_KEY=sk-simulated")
    print('  headrace run "Tell me a story" --model gpt-4o', flush=True)
