"""Whatever is wrong, the error is typed, says what to do next, and comes in time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import (
    AuthenticationError,
    Client,
    ConfigurationError,
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RateLimitError,
    RunTimeoutError,
)
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.e2e.engines import running_engine
from tests.waiting import busyness

MODEL = "gpt-4o"


def fail(client: Client, kind: type[HeadraceError], *, stream: bool = True, **arguments: Any) -> Any:
    """Run, and return the error that iteration, result and call agree on."""
    arguments = {"model": MODEL, "messages": HELLO, **arguments}
    if not stream:
        with pytest.raises(kind) as plain:
            client.run_local(**arguments)
        return plain.value
    running = client.run_local(stream=True, **arguments)
    with pytest.raises(kind) as iterated:
        list(running)
    with pytest.raises(kind) as awaited:
        running.result.result()
    assert awaited.value is iterated.value
    return iterated.value


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("messages", []),
        ("messages", ""),
        ("temperature", 3),
        ("temperature", "hot"),
        ("max_output_tokens", 0),
        ("timeout_ms", -1),
        ("tools", {"name": "x"}),
        ("tool_choice", "auto"),
        ("span_id", "1"),
        ("trace_id", "tr_"),
        ("priority", "urgent"),
        ("on_abort", "ignore"),
        ("tags", "one"),
        ("modle", "gpt-4o"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    client: Client, provider: SimulatedProvider, argument: str, value: object
) -> None:
    arguments: Any = {"model": MODEL, "messages": HELLO, argument: value}

    with pytest.raises(InvalidRequestError) as error:
        client.run_local(stream=True, **arguments)

    assert (error.value.argument or "").startswith(argument)
    assert provider.requests() == []


def test_a_missing_argument_is_named(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"^model: is missing"):
        client.run_local(messages=HELLO)  # type: ignore[call-overload]


def test_an_unknown_model_says_which_prefixes_and_providers_exist(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"give the provider.*openai.*gpt-.*\(openai\)"):
        client.run_local(model="mystery-1", messages=HELLO)


def test_a_missing_variable_is_an_error_and_a_given_one_is_filled_in(
    client: Client, provider: SimulatedProvider
) -> None:
    messages = [{"role": "user", "content": "Hello {{name}}"}]
    with pytest.raises(InvalidRequestError, match="name"):
        client.run_local(model=MODEL, messages=messages, variables={"nam": "x"})

    client.run_local(model=MODEL, messages=messages, variables={"name": "Ada"})

    assert (provider.requests()[0].body or {})["messages"][0]["content"] == "Hello Ada"


def test_a_duplicate_running_span_id_is_refused(client: Client) -> None:
    first = client.run_local(
        model=MODEL, messages=HELLO, stream=True, span_id="sp_aaaaaaaaaaaaaaaa", custom_options=simulate(silent=True)
    )
    error = fail(client, InvalidRequestError, span_id="sp_aaaaaaaaaaaaaaaa")
    first.abort()

    assert error.argument == "span_id"
    assert first.result.result().aborted


# What the provider says.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, InvalidRequestError),
        (429, RateLimitError),
        (500, ProviderUnavailableError),
        (503, ProviderUnavailableError),
    ],
)
def test_an_error_status_is_a_typed_error_with_its_facts(
    client: Client, status: int, kind: type[HeadraceError], stream: bool
) -> None:
    script = simulate(
        status=status,
        error_code="some_code",
        error_message="no luck today",
        headers={"x-request-id": "req_1", "retry-after": "7"},
    )

    error = fail(client, kind, stream=stream, custom_options=script)

    assert (error.status_code, error.request_id, error.code) == (status, "req_1", "some_code")
    assert error.provider == "openai"
    assert "no luck today" in str(error)
    assert getattr(error, "retry_after", 7) == 7


def test_what_the_real_api_refuses_is_refused(client: Client) -> None:
    error = fail(client, InvalidRequestError, custom_options={"no_such_option": 1})

    assert error.status_code == 400
    assert "no_such_option" in str(error)


@pytest.mark.parametrize(
    "script",
    [{"cut_after": 3}, {"end_after": 3}, {"garbage_after": 3}],
    ids=["cut", "ended early", "garbage"],
)
def test_a_broken_stream_is_an_error_with_the_partial_text(client: Client, script: dict[str, int]) -> None:
    error = fail(client, ProviderProtocolError, custom_options=simulate(repeat=10, **script))

    assert error.partial_text == "0 1 2 "


def test_an_error_in_the_middle_of_a_stream_has_the_partial_text(client: Client) -> None:
    error = fail(client, HeadraceError, custom_options=simulate(repeat=10, error_after=3, error_message="overloaded"))

    assert isinstance(error, ProviderUnavailableError | RateLimitError | ProviderProtocolError)
    assert error.partial_text == "0 1 2 "


def test_a_web_page_instead_of_an_answer_is_an_error(client: Client) -> None:
    error = fail(client, ProviderProtocolError, custom_options=simulate(html=True))

    assert "HTML" in str(error)


def test_tool_arguments_that_are_no_json_are_an_error_that_does_not_quote_them(client: Client) -> None:
    tool = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
    script = simulate(tool_calls=[{"name": "f", "arguments": "{broken"}])

    error = fail(client, ProviderProtocolError, tools=[tool], custom_options=script)

    assert "the arguments of tool call 'f' are not a JSON object (7 characters)" in str(error)
    assert "{broken" not in str(error)


# Clocks.


@pytest.mark.parametrize(
    ("clock", "arguments"),
    [
        ("first_chunk", {"first_chunk_timeout_ms": 1000, "custom_options": simulate(first_token_delay=60)}),
        ("first_chunk", {"first_chunk_timeout_ms": 1000, "custom_options": simulate(silent=True)}),
        ("idle", {"idle_timeout_ms": 1000, "custom_options": simulate(repeat=10, stall_after=3)}),
        ("total", {"timeout_ms": 1000, "custom_options": simulate(repeat=10_000, pace=0.01)}),
    ],
)
def test_each_clock_ends_the_run_and_closes_the_connection(
    client: Client, provider: SimulatedProvider, clock: str, arguments: dict[str, Any]
) -> None:
    assert client.run_local(model=MODEL, messages=HELLO).text  # the start of an engine would take the clock's time

    error = fail(client, RunTimeoutError, **arguments)

    assert error.clock == clock
    assert error.limit == pytest.approx(1.0)
    provider.wait_until(lambda records: records[-1].outcome == "closed_by_client")
    if clock == "idle":
        assert error.partial_text == "0 1 2 "


def test_comments_count_as_life(client: Client) -> None:
    script = simulate(repeat=30, pace=0.05, comments=True)

    result = client.run_local(
        model=MODEL, messages=HELLO, stream=True, idle_timeout_ms=1000, custom_options=script
    ).result.result()

    assert result.finish_reason == "stop"


def test_a_run_without_streaming_has_a_total_clock(client: Client) -> None:
    error = fail(client, RunTimeoutError, stream=False, timeout_ms=200, custom_options=simulate(silent=True))

    assert error.clock == "total"


# Keys and engines.


def test_a_key_given_with_the_run_is_used(client: Client) -> None:
    error = fail(client, AuthenticationError, provider_api_key="sk-invalid-1234567890")

    assert error.status_code == 401
    assert "1234567890" not in str(error)
    assert "1234567890" not in repr(error)


class ThreeProviders:
    """The environment of an engine with three providers: OpenAI works, Anthropic cannot be reached, Google has no key."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self.environment = {
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API_KEY": provider.api_key,
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
            "ANTHROPIC_API_KEY": "sk-x",
        }


@pytest.fixture(scope="module")
def engine(session_provider: SimulatedProvider) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GEMINI_API_KEY")
        with running_engine(ThreeProviders(session_provider), "--workers", "1") as address:  # type: ignore[arg-type]
            yield address


def test_no_key_names_the_variable_to_set(engine: str, provider: SimulatedProvider) -> None:
    with Client(engine) as client:
        with pytest.raises(AuthenticationError, match="GEMINI_API_KEY"):
            client.run_local(model=MODEL, provider="google", messages=HELLO)

        assert provider.requests() == []


def test_a_provider_that_is_not_there_is_unavailable(engine: str) -> None:
    with Client(engine) as client, pytest.raises(ProviderUnavailableError, match=r"127\.0\.0\.1:9"):
        client.run_local(model=MODEL, provider="anthropic", messages=HELLO)


def test_no_engine_at_the_address_says_so_within_the_connect_timeout(tmp_path: Path) -> None:
    started_at = time.monotonic()
    with Client("ipc:///tmp/headrace-nobody-here", connect_timeout=0.3) as client:
        running = client.run_local(model=MODEL, messages=HELLO, stream=True)
        with pytest.raises(EngineUnavailableError, match="headrace serve"):
            running.result.result()

    assert time.monotonic() - started_at < 3 * busyness()


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:5555",
        "ipc://@abstract",  # which has no directory that could be looked at
        "ipc://~/engine",
        "ipc://relative",
        "ipc://../engine",
        "ipc:/run/engine",
        " ipc:///run/engine",
        "IPC:///run/engine",
        "ipc:///run/engine\n",
        "ipc:///run/eng\0ine",
        "ipc:///run/\udcffengine",
        "inproc://engine",
        "unix:///run/engine",
        "/run/engine",
        "nonsense",
        "ipc:///" + "x" * 100,
    ],
)
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigurationError, match="engine address"):
        Client(address)


def test_an_engine_directory_that_others_may_enter_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    directory = Path(tempfile.gettempdir()) / f"hr-open-{os.getpid()}"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    try:
        with Client(f"ipc://{directory}") as client, pytest.raises(EngineUnavailableError, match="700"):
            client.run_local(model=MODEL, messages=HELLO)
        command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()

    assert refused.returncode == 3
    assert "chmod 700" in refused.stderr


def test_an_embedded_engine_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: SimulatedProvider
) -> None:
    settings = tmp_path / "headrace.toml"
    settings.write_text("[engine]\nworkers = 1\n")
    program = (
        "import os, headrace\n"
        "client = headrace.Client()\n"
        f"open({str(settings)!r}, 'w').write('[engine]\\nworkers = \"many\"\\n')\n"
        "try:\n"
        "    client.run_local(model='gpt-4o', messages=[{'role': 'user', 'content': 'Hello'}])\n"
        "except headrace.ConfigurationError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HEADRACE_CONFIG": str(settings)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=90
    )

    assert "headrace.toml" in done.stdout
    assert "workers" in done.stdout


def test_a_second_engine_on_one_directory_is_refused(engine: str) -> None:
    with Client(engine) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text
        command = [sys.executable, "-m", "headrace_engine", "--directory", engine.removeprefix("ipc://")]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

        assert second.returncode == 3
        assert "already" in second.stderr
        assert client.run_local(model=MODEL, messages=HELLO).text


def test_a_closed_client_says_so(session_provider: SimulatedProvider) -> None:
    client = Client()
    client.close()
    client.close()

    with pytest.raises(EngineUnavailableError, match="closed"):
        client.run_local(model=MODEL, messages=HELLO)
