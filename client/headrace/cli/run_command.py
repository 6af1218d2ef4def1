"""``headrace run``: runs a model, and shows its answer as text or as JSON lines."""

from __future__ import annotations

import argparse
import math
import os
import sys

from headrace.arguments.run_arguments import RunArguments
from headrace.cli.interrupt import on_interrupt
from headrace.cli.run_output import JsonOutput, Output, TextOutput
from headrace.cli.shared.exit_codes import ExitCode
from headrace.cli.shared.option_types import custom_options, json_field, timeout
from headrace.client import Client
from headrace.errors import HeadraceError, InvalidRequestError
from headrace.streams import LocalStream
from headrace.types import RunLocalResult, StreamResult

NAME = "run"
HELP = "Run a model and stream its answer"

_CONNECT_TIMEOUT = 5.0  # seconds; an engine that runs answers at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prompt", nargs="?", help="the prompt; - or no prompt reads standard input")
    parser.add_argument("--model", "-m", required=True, help="the model, such as gpt-4o or provider/model")
    parser.add_argument("--provider", metavar="NAME", help="the model's provider, if the model's name does not tell it")
    parser.add_argument("--system", "-s", metavar="TEXT", help="the system message")
    parser.add_argument(
        "--temperature", type=float, metavar="NUMBER", help="how random the answer is, 0 to 2; default: the provider's"
    )
    parser.add_argument(
        "--max-output-tokens", type=int, metavar="N", help="the most tokens of the answer; default: the provider's"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="sample with this seed, where the provider has seeds")
    parser.add_argument(
        "--service-tier", metavar="TIER", help="the provider's service tier, such as flex; default: the provider's"
    )
    parser.add_argument(
        "--option",
        "-o",
        type=json_field,
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="a field to add to the provider's request, such as store=true; may be repeated",
    )
    parser.add_argument(
        "--timeout",
        type=timeout,
        metavar="SECONDS",
        help="stop the run after this time; default: as in the engine's settings",
    )
    parser.add_argument(
        "--engine", metavar="ADDRESS", help="the engine; default: $HEADRACE_ENGINE, else an engine for this run only"
    )
    parser.add_argument("--no-stream", dest="stream", action="store_false", help="show the answer when it is complete")
    parser.add_argument("--json", action="store_true", help="print each event, and the result, as a line of JSON")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the model. Raises HeadraceError if the run fails."""
    run_arguments = _run_arguments(arguments)
    output: Output = JsonOutput(sys.stdout) if arguments.json else TextOutput(sys.stdout, sys.stderr)
    with _client(arguments) as client:
        try:
            result = (_streamed if arguments.stream else _complete)(client, run_arguments, output)
        except HeadraceError as error:
            named = _named_as_given(error, has_system=arguments.system is not None)
            output.failed(named)
            raise named from None
        output.finished(result)
    return ExitCode.INTERRUPTED if isinstance(result, StreamResult) and result.aborted else ExitCode.OK


def _client(arguments: argparse.Namespace) -> Client:
    if arguments.engine is None and not os.environ.get("HEADRACE_ENGINE"):
        return Client()
    return Client(arguments.engine, connect_timeout=min(arguments.timeout or math.inf, _CONNECT_TIMEOUT))


def _streamed(client: Client, run_arguments: RunArguments, output: Output) -> RunLocalResult:
    stream: LocalStream = client.run_local(stream=True, **run_arguments)
    # An abort ends the iteration in the normal way. An exception in a signal handler could hit any line.
    with stream, on_interrupt(stream.abort):
        for event in stream.events():
            output.event(event)
        return stream.result.result()


def _complete(client: Client, run_arguments: RunArguments, output: Output) -> RunLocalResult:
    result: RunLocalResult = client.run_local(stream=False, **run_arguments)
    output.answer(result)
    return result


def _run_arguments(arguments: argparse.Namespace) -> RunArguments:
    messages = [{"role": "user", "content": _prompt(arguments.prompt)}]
    if arguments.system is not None:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return {
        "model": arguments.model,
        "provider": arguments.provider,
        "messages": messages,
        "temperature": arguments.temperature,
        "max_output_tokens": arguments.max_output_tokens,
        "seed": arguments.seed,
        "service_tier": arguments.service_tier,
        "timeout_ms": None if arguments.timeout is None else math.ceil(arguments.timeout * 1000),
        "custom_options": custom_options(arguments.option),
    }


def _named_as_given(error: HeadraceError, *, has_system: bool) -> HeadraceError:
    """Return the error with the name of the wrong option. The user gave a prompt, and knows nothing of messages."""
    if not isinstance(error, InvalidRequestError) or not (error.argument or "").startswith("messages["):
        return error
    is_system = has_system and (error.argument or "").startswith("messages[0]")
    return InvalidRequestError(error.reason, "system" if is_system else "messages")


def _prompt(given: str | None) -> str:
    if given is not None and given != "-":
        prompt = given
    elif given is None and sys.stdin.isatty():
        raise InvalidRequestError(
            'is missing; give one, as in headrace run "Hello" --model gpt-4o, or pipe it into the command', "messages"
        )
    else:
        prompt = _standard_input()
    if not prompt.strip():
        raise InvalidRequestError("is empty", "messages")
    return prompt


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except OSError as error:
        raise InvalidRequestError(f"standard input cannot be read: {error.strerror}", "messages") from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"standard input is not UTF-8 text (byte {error.start})", "messages") from None
