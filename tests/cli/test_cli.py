"""The ``headrace`` command. After each test, none of its processes may be left.

Commands that start nothing run in forks of one program, with files as standard output and standard error. The others are started.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.cli.main import command_parser
from headrace.cli.shared.exit_codes import ExitCode
from headrace.testing import Script, SimulatedProvider
from tests.cli.forking import ForkingProgram
from tests.cli.started_commands import Commands, ended, inherited
from tests.conftest import PatientProvider
from tests.repetition import only_long

HEADRACE = str(Path(sys.prefix, "bin", "headrace"))
MODEL = ("run", "--model", "gpt-4o")
RUN = (HEADRACE, *MODEL)
WEATHER_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}

pytestmark = pytest.mark.slow  # every test starts processes of its own


def read_line(process: subprocess.Popen[str], beginning: str) -> str:
    """Read the output up to the line that begins with ``beginning``."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith(beginning):
            return line.strip()
    raise AssertionError(f"no line began with {beginning!r}")


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with PatientProvider(Script(chunks=["Hello", " world"])) as provider:
        yield provider


@pytest.fixture(scope="module")
def program() -> Iterator[ForkingProgram]:
    with ForkingProgram(environ=inherited()) as program:
        yield program


@pytest.fixture
def commands(provider: SimulatedProvider, program: ForkingProgram) -> Iterator[Commands]:
    """Commands whose runs start an engine of their own. pytest's directories are too long for sockets."""
    provider.clear()
    directory = Path(tempfile.mkdtemp(prefix="hr-cli-"))
    commands = Commands(directory, program)
    commands.environment |= provider.environment
    yield commands
    left_over = commands.left_over()
    commands.close()
    assert left_over == []


@pytest.fixture(scope="module")
def address(provider: SimulatedProvider, program: ForkingProgram) -> Iterator[str]:
    """An engine that the module's tests share."""
    directory = Path(tempfile.mkdtemp(prefix="hr-cli-"))
    commands = Commands(directory, program)
    commands.environment |= provider.environment
    serving = commands.start(HEADRACE, "serve", "--workers", "1", "--drain-timeout", "0")
    address = read_line(serving, "export HEADRACE_ENGINE=").partition("=")[2]
    status_with("workers", commands, address)  # a run waits for 10 s only, which is too short on a busy machine
    yield address
    serving.terminate()
    left_over = commands.left_over()
    commands.close()
    assert left_over == []


@pytest.fixture
def shared(commands: Commands, address: str) -> Commands:
    """Commands whose runs use the shared engine."""
    commands.environment["HEADRACE_ENGINE"] = address
    return commands


# headrace run


def test_the_answer_and_nothing_else_goes_into_a_pipe(shared: Commands) -> None:
    done = shared.run(*RUN, "hi")

    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "Hello world\n", "")


@pytest.mark.parametrize("prompt", [(), ("-",)], ids=["absent", "dash"])
def test_the_prompt_comes_from_standard_input(
    shared: Commands, provider: SimulatedProvider, prompt: tuple[str, ...]
) -> None:
    done = shared.run(*RUN, "--system", "Be brief.", *prompt, stdin="What is zwölf?\n")

    assert done.returncode == ExitCode.OK
    (request,) = provider.requests()
    assert request.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is zwölf?\n"},
    ]


def test_options_reach_the_provider(shared: Commands, provider: SimulatedProvider) -> None:
    options = ("--temperature", "0.5", "--max-output-tokens", "9", "--option", "store=true", "--option", 'user="me"')
    further = ("--seed", "7", "--service-tier", "flex")

    done = shared.headrace(*MODEL, "hi", "--no-stream", *options, *further)
    assert (done.stdout, done.stderr) == ("Hello world\n", "")

    (request,) = provider.requests()
    assert request.body["temperature"] == 0.5
    assert request.body["max_completion_tokens"] == 9
    assert (request.body["store"], request.body["user"]) == (True, "me")
    assert (request.body["seed"], request.body["service_tier"]) == (7, "flex")
    assert not request.body.get("stream")


def test_json_prints_events_and_then_the_result(shared: Commands) -> None:
    lines = [json.loads(line) for line in shared.headrace(*MODEL, "hi", "--json").stdout.splitlines()]

    assert [line["text"] for line in lines if line["type"] == "text"] == ["Hello", " world"]
    result = lines[-1]
    assert (result["type"], result["text"], result["finish_reason"]) == ("result", "Hello world", "stop")
    assert result["usage"]["reasoning_tokens"] == 0
    assert result["span_id"].startswith("sp_")


def test_json_prints_an_error_as_a_line_too(shared: Commands, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(chunks=["Once", " upon"], cut_after=2))

    done = shared.headrace(*MODEL, "hi", "--json")

    assert done.returncode == ExitCode.FAILED
    error = json.loads(done.stdout.splitlines()[-1])
    assert (error["type"], error["error"], error["partial_text"]) == ("error", "ProviderProtocolError", "Once upon")
    assert done.stderr.startswith("headrace: ")


def test_a_tool_call_is_shown(shared: Commands) -> None:
    script = json.dumps({"tool_calls": [{"name": "get_weather", "arguments": {"location": "Tokyo"}}]})

    done = shared.headrace(
        *MODEL, "hi", "--option", f"tools={json.dumps([WEATHER_TOOL])}", "--option", f"simulate={script}"
    )

    assert done.stdout == 'get_weather({"location": "Tokyo"})\n'


def test_an_image_that_a_model_made_is_named(shared: Commands, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(text="Here.", images=["iVBORw0KGgoAAAAA"]))

    done = shared.headrace(*MODEL, "hi")

    assert (done.stdout, done.stderr) == ("Here.\n", "(image/png, 12 bytes; --json shows it)\n")


def test_a_refusal_is_shown(shared: Commands, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(refusal="I cannot do that."))

    assert shared.headrace(*MODEL, "hi").stdout == "I cannot do that.\n"


@pytest.mark.parametrize("is_plain", [False, True], ids=["colour", "NO_COLOR"])
def test_a_terminal_gets_reasoning_and_figures_but_no_control_characters(
    shared: Commands, provider: SimulatedProvider, is_plain: bool
) -> None:
    provider.enqueue(Script(reasoning="Hmm.", chunks=["bad \x1b]0;title\x07word"]))
    if is_plain:
        shared.environment["NO_COLOR"] = "1"
    ours, theirs = pty.openpty()
    with subprocess.Popen([*RUN, "hi"], stdin=theirs, stdout=theirs, stderr=theirs, env=shared.environment) as process:
        os.close(theirs)
        shown = read_terminal(ours)
    os.close(ours)

    assert process.returncode == ExitCode.OK, shown
    assert "bad \\u001b]0;title\\u0007word\r\n" in shown
    assert ("\x1b[2mHmm.\x1b[0m" in shown) is not is_plain
    assert ("\x1b" in shown) is not is_plain
    assert "stop · " in shown
    assert " tokens (" in shown


def read_terminal(descriptor: int) -> str:
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # Linux raises this if the other side is closed
            piece = b""
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "hi", "-m", "gpt-4o", "--max-tokens", "3"), "--max-tokens 3; did you mean --max-output-tokens?"),
        (("run", "hi", "-m", "gpt-4o", "--sytem=Be brief."), "did you mean --system?"),
        (
            ("spans", "list", "--limt", "3"),
            "headrace spans list: error: unrecognized arguments: --limt 3; did you mean",
        ),
        (("status", "it"), "headrace status: error: unrecognized arguments: it\nsee `headrace status --help`\n"),
        (("--verison",), "did you mean --version?"),
    ],
)
def test_an_unknown_option_says_which_one_is_meant(arguments: tuple[str, ...], words: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        command_parser().parse_args(arguments)

    assert caught.value.code == ExitCode.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("hi", "--model", "foo-1"), ExitCode.USAGE, "--model: cannot tell the provider of 'foo-1'"),
        (("hi", "--temperature", "9"), ExitCode.USAGE, "--temperature: takes a number"),
        (("hi", "--option", "seed=x"), ExitCode.USAGE, "the value is not JSON"),
        (("hi", "--option", "seed=NaN"), ExitCode.USAGE, "--option seed: takes finite numbers"),
        (("hi", "--option", 'a={"b": [1e999]}'), ExitCode.USAGE, "--option a.b[0]: takes finite numbers"),
        (("hi", "--option", "seed=99999999999999999999"), ExitCode.USAGE, "--option seed: takes integers"),
        (("hi", "--option", "seed=1", "--option", "seed=2"), ExitCode.USAGE, "--option seed: is given twice"),
        (("hi", "--seed", "99999999999999999999"), ExitCode.USAGE, "--seed: takes integers"),
        (("hi", "--service-tier", ""), ExitCode.USAGE, "--service-tier: takes a non-empty str"),
        (("hi", "--temperature", "nan"), ExitCode.USAGE, "--temperature: takes finite numbers"),
        (("h\udcff",), ExitCode.USAGE, "headrace: prompt: holds a lone surrogate"),
        (("hi", "--system", "h\udcff"), ExitCode.USAGE, "headrace: --system: holds a lone surrogate"),
        (("hi", "--engine", "foo"), ExitCode.USAGE, "takes ipc://"),
        ((" ",), ExitCode.USAGE, "prompt: is empty"),
        (("hi", "--engine", "ipc:///tmp/nowhere", "--timeout", "0.2"), ExitCode.UNAVAILABLE, "`headrace serve`"),
    ],
)
def test_a_request_that_cannot_be_sent_is_one_line_and_an_exit_code(
    commands: Commands, arguments: tuple[str, ...], code: ExitCode, words: str
) -> None:
    done = commands.headrace(*MODEL, *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (Script(status=401), ExitCode.UNAUTHORIZED, "check OPENAI_API_KEY"),
        (Script(status=404, error_message="no\nsuch \x1b[1mmodel"), ExitCode.USAGE, "no such \\u001b[1mmodel"),
        (Script(status=429, headers={"retry-after": "7"}), ExitCode.TRY_LATER, "try again in 7 s"),
        (Script(status=500), ExitCode.FAILED, "try again"),
        (Script(silent=True), ExitCode.TIMED_OUT, "allow more time with --timeout"),
    ],
)
def test_a_refusal_of_the_provider_is_one_line_and_an_exit_code(
    shared: Commands, provider: SimulatedProvider, script: Script, code: ExitCode, words: str
) -> None:
    provider.enqueue(script)

    # After a 429 with Retry-After the runs of its model wait: no other test asks for this one.
    model = "gpt-4o-mini" if script.status == 429 else MODEL[-1]
    done = shared.headrace(*MODEL[:-1], model, "hi", "--timeout", "0.5" if script.silent else "60")

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("headrace: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_without_a_key_the_error_names_the_variable(commands: Commands) -> None:
    del commands.environment["OPENAI_API_KEY"]

    done = commands.run(*RUN, "hi")

    assert done.returncode == ExitCode.UNAUTHORIZED
    assert done.stderr.startswith("headrace: no key for openai; set OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("engine", "times"), [("shared", 1), ("commands", 2), *only_long(("commands", 1))], ids=lambda case: f"{case}"
)
def test_ctrl_c_aborts(engine: str, times: int, provider: SimulatedProvider, request: pytest.FixtureRequest) -> None:
    """The fixture ``shared`` has a running engine; with ``commands``, the run starts its own."""
    commands: Commands = request.getfixturevalue(engine)
    provider.enqueue(Script(chunks=["Once", " upon", " a time"], stall_after=2))
    process = commands.start(*RUN, "hi")
    assert process.stdout is not None
    assert process.stdout.read(len("Once upon")) == "Once upon"  # shown while the stream is still running

    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
    done = ended(process)

    assert "Traceback" not in done.stderr
    (sent,) = provider.wait_until(lambda requests: requests[0].ended_at)
    assert sent.outcome == "closed_by_client"
    if times == 1:
        assert (done.returncode, done.stdout) == (ExitCode.INTERRUPTED, "\n")
        assert done.stderr.startswith("aborted after 9 characters")
    else:
        assert done.returncode in {ExitCode.INTERRUPTED, -signal.SIGINT}


def test_ctrl_c_aborts_a_run_that_does_not_stream(shared: Commands, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(silent=True))
    process = shared.start(*RUN, "hi", "--no-stream")
    provider.wait_until(len)

    os.killpg(process.pid, signal.SIGINT)
    done = ended(process)

    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "headrace: interrupted\n")
    provider.wait_until(lambda requests: requests[0].outcome == "closed_by_client")


def test_a_reader_that_goes_away_ends_the_run_quietly(shared: Commands, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=100_000, pace=0.001))

    done = shared.run("bash", "-c", f"set -o pipefail; {' '.join(RUN)} hi | head -c 10")

    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OUTPUT_CLOSED, "0 1 2 3 4 ", "")
    provider.wait_until(lambda requests: requests[0].outcome == "closed_by_client")


# headrace serve, status


def test_an_engine_serves_shows_its_status_and_ends(commands: Commands) -> None:
    serving = commands.start(HEADRACE, "serve", "--workers", "2")
    address = read_line(serving, "export HEADRACE_ENGINE=").partition("=")[2]
    assert address == f"ipc://{commands.directory}/headrace/engine"
    assert [(commands.directory / name).stat().st_mode & 0o777 for name in ("headrace", "headrace/engine")] == [
        0o700
    ] * 2

    status_with("workers", commands, address)
    assert commands.headrace(*MODEL, "hi", "--engine", address).stdout == "Hello world\n"

    status = status_with("processes", commands, address)  # the supervisor's first report may come after the first run
    assert (status["granted_total"], status["leases"], status["clients"]) == (1, 0, 1)
    assert {process["name"] for process in status["processes"]} == {"broker", "collector", "w1", "w2"}
    shown = commands.headrace("status").stdout  # without --engine
    assert "since the start 1 admitted, 0 refused" in shown
    assert f"in {commands.directory}/state/headrace/0" in shown
    assert "\x1b" not in shown

    second = commands.headrace("serve")
    assert (second.returncode, second.stdout) == (ExitCode.UNAVAILABLE, "")
    assert "already" in second.stderr

    serving.terminate()
    assert ended(serving).returncode == ExitCode.OK
    assert commands.left_over() == []
    after = commands.headrace("status")
    assert after.returncode == ExitCode.UNAVAILABLE
    assert "`headrace serve`" in after.stderr


def status_with(field: str, commands: Commands, address: str) -> dict[str, Any]:
    """Ask for the status until ``field`` is not empty."""
    while True:
        done = commands.headrace("status", "--json", "--engine", address, "--timeout", "30")
        assert done.returncode == ExitCode.OK, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        if status[field]:
            return status


def test_a_shell_can_read_the_export_line_of_serve(commands: Commands) -> None:
    directory = commands.directory / "a b'c$HOME"
    serving = commands.start(HEADRACE, "serve", "--directory", str(directory), "--workers", "1")
    export = read_line(serving, "export HEADRACE_ENGINE=")
    read = commands.run("sh", "-c", f'{export}; printf %s "$HEADRACE_ENGINE"')
    os.killpg(serving.pid, signal.SIGINT)
    ended(serving)

    assert read.stdout == f"ipc://{directory}"


def test_serve_refuses_a_directory_that_is_open_to_others(commands: Commands) -> None:
    directory = commands.directory / "open"
    directory.mkdir()
    directory.chmod(0o755)

    done = commands.headrace("serve", "--directory", str(directory))

    assert done.returncode == ExitCode.UNAVAILABLE
    assert "must be 700" in done.stderr


def test_status_without_an_engine_is_an_error_in_time(commands: Commands) -> None:
    done = commands.headrace("status", "--engine", "ipc:///tmp/nowhere", "--timeout", "0.2")

    assert (done.returncode, done.stdout) == (ExitCode.UNAVAILABLE, "")
    assert "no engine at ipc:///tmp/nowhere: nothing answered within 0.2 s" in done.stderr


# headrace spans


def test_spans_can_be_read_after_their_engines_have_ended(commands: Commands, provider: SimulatedProvider) -> None:
    assert commands.run(*RUN, "Who is there?").stdout == "Hello world\n"
    provider.enqueue(Script(status=429))
    assert commands.run(*RUN, "And now?").returncode == ExitCode.TRY_LATER

    refused, answered = map(json.loads, commands.headrace("spans", "list").stdout.splitlines())
    assert (refused["status"], refused["error_type"], refused["cost"]) == ("error", "RateLimitError", None)
    assert (answered["status"], answered["usage"]["source"]) == ("ok", "provider")
    assert answered["cost"] > 0
    shown = commands.headrace("spans", "show", answered["span_id"][:11]).stdout
    assert "\nuser\n  Who is there?\n\nanswer\n  Hello world\n" in shown


# headrace simulate


def test_simulate_says_how_to_use_it_and_it_works(commands: Commands) -> None:
    simulating = commands.start(HEADRACE, "simulate", "--port", "0", "--text", "It works.")
    exports = read_line(simulating, "export OPENAI_BASE_URL=").split()[1:]
    commands.environment |= dict(export.split("=", 1) for export in exports)

    assert commands.run(*RUN, "hi").stdout == "It works.\n"

    os.killpg(simulating.pid, signal.SIGINT)
    done = ended(simulating)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


def test_simulate_limits_requests_and_names_a_limit_that_is_none(commands: Commands) -> None:
    simulating = commands.start(HEADRACE, "simulate", "--port", "0", "--requests-per-minute", "1")
    url = f"{read_line(simulating, 'export OPENAI_BASE_URL=').split()[1].partition('=')[2]}/chat/completions"
    ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}

    answers = [httpx.post(url, json=ask, headers={"authorization": "Bearer sk-1"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    os.killpg(simulating.pid, signal.SIGINT)
    assert ended(simulating).returncode == ExitCode.OK
    done = commands.headrace("simulate", "--tokens-per-minute", "0")
    assert done.returncode == ExitCode.USAGE
    assert "argument --tokens-per-minute: takes a whole number from 1 to" in done.stderr


def test_simulate_takes_a_script_and_names_what_is_wrong_with_it(commands: Commands) -> None:
    script = commands.directory / "script.json"
    script.write_text('{"pase": 1}')

    done = commands.headrace("simulate", "--script", str(script))

    assert done.returncode == ExitCode.USAGE
    assert "unknown field `pase`" in done.stderr


def test_simulate_says_that_a_port_is_taken(commands: Commands, provider: SimulatedProvider) -> None:
    done = commands.headrace("simulate", "--port", str(provider.port))

    assert done.returncode == ExitCode.UNAVAILABLE
    assert "--port" in done.stderr


# The rest


def test_python_m_headrace_shows_the_version(commands: Commands) -> None:
    by_name = commands.run(HEADRACE, "--version").stdout

    assert by_name.startswith("headrace ")
    assert commands.run(sys.executable, "-m", "headrace", "--version").stdout == by_name


def test_without_a_command_it_lists_the_commands(commands: Commands) -> None:
    done = commands.headrace()

    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "headrace simulate" in done.stderr


def test_ctrl_c_ends_the_demo_and_all_its_processes(commands: Commands) -> None:
    del commands.environment["OPENAI_API_KEY"]
    demo = commands.start(sys.executable, "-m", "headrace.cli.demo")
    read_line(demo, "1. A stream")

    os.killpg(demo.pid, signal.SIGINT)
    done = ended(demo)

    assert (done.returncode, done.stderr.strip()) == (ExitCode.INTERRUPTED, "headrace: interrupted")


def test_the_demo_shows_everything(commands: Commands) -> None:
    del commands.environment["OPENAI_API_KEY"]

    done = commands.run(sys.executable, "-m", "headrace.cli.demo")

    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert 'get_weather({"location": "Tokyo"})' in done.stdout
    assert "an abort reached the provider in" in done.stdout
    assert "200 of 200 whole" in done.stdout
