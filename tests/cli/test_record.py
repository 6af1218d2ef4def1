"""``headrace record``: it passes on to the real provider, here a simulated one, and keeps what came, without keys.

``headrace.testing.replay`` then plays it: the program sees the same answer.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast

import httpx
import pytest

from headrace import (
    AuthenticationError,
    Client,
    ConfigurationError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RunLocalResult,
)
from headrace.cli import record_command
from headrace.testing import Script, ScriptedToolCall, SimulatedProvider, replay
from headrace.testing.recording.recorded_exchange import RecordedExchange, read_recordings
from tests.cli.test_cli import read_line
from tests.conftest import HELLO
from tests.e2e.provider_runs import MODELS, PROVIDERS
from tests.waiting import wait_until

KEY = "sk-live-4Kq7Zr1Tn8Wb5Xc2Vd9"
TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}
ANSWER = Script(
    reasoning="I ask for it.",
    text="Let me look: 東京 😀.",
    tool_calls=[ScriptedToolCall("get_weather", {"location": "Tokyo"})],
)


class Recorder:
    """A running ``headrace record`` in front of a simulated provider."""

    def __init__(self, upstream: SimulatedProvider, folder: Path) -> None:
        self.folder = folder
        self.upstream = upstream
        hosts = [f"--openai={upstream.base_url}"]
        hosts += [f"--{name}={upstream.base_url.removesuffix('/v1')}" for name in ("anthropic", "google")]
        command = [sys.executable, "-m", "headrace", "record", str(folder), "--port", "0", *hosts]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        address = read_line(self.process, "export OPENAI_BASE_URL=").split("ANTHROPIC_BASE_URL=")[1].split()[0]
        self.environment = {
            "OPENAI_BASE_URL": f"{address}/v1",
            "ANTHROPIC_BASE_URL": address,
            "GOOGLE_GEMINI_BASE_URL": address,
            "OPENAI_API_KEY": KEY,
            "ANTHROPIC_API_KEY": KEY,
            "GEMINI_API_KEY": KEY,
        }

    def end(self) -> tuple[int, str, str]:
        """Press Ctrl-C; return the exit code and the output."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()

    def last(self) -> RecordedExchange:
        """Return the newest recording. It is complete when its line has been printed."""
        assert self.process.stdout is not None
        name = next(line for line in self.process.stdout if line[:4].isdigit()).split()[0]
        (exchange,) = read_recordings(self.folder / name)
        return exchange


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    folder = tmp_path_factory.mktemp("recordings") / "new"
    with SimulatedProvider() as upstream, Recorder(upstream, folder) as recorder:
        yield recorder


@pytest.fixture
def recorder(running: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    running.upstream.clear()
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


def ask(client: Client, provider: str, *, stream: bool, **arguments: Any) -> RunLocalResult:
    given = {"provider": provider, "model": MODELS[provider], "messages": HELLO, **arguments}
    if not stream:
        return cast("RunLocalResult", client.run_local(**given))
    return cast("RunLocalResult", client.run_local(**given, stream=True).result.result())


def facts(result: RunLocalResult) -> dict[str, Any]:
    """Return what a provider's answer decides of a result."""
    own = {"span_id", "trace_id", "latency_ms", "attempts", "queue_ms", "queue_reason"}
    return {name: value for name, value in result.to_dict().items() if name not in own}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_recorded_answer_is_the_same_when_it_is_replayed(
    client: Client, recorder: Recorder, provider: str, stream: bool
) -> None:
    recorder.upstream.enqueue(ANSWER)
    first = ask(client, provider, stream=stream, tools=[TOOL])
    exchange = recorder.last()

    (record,) = recorder.upstream.requests()
    assert exchange.request.body == record.body
    assert exchange.response.status == 200
    assert exchange.ending == "complete"
    assert len(exchange.pieces) > 3 or not stream

    with replay(recorder.folder / exchange.name) as replayed, replayed.in_environment():
        assert facts(ask(client, provider, stream=stream, tools=[TOOL])) == facts(first)
        assert replayed.unused == []


def test_no_key_is_in_any_file(client: Client, recorder: Recorder) -> None:
    echoed = {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "invalid_request_error"}}
    recorder.upstream.enqueue(Script(status=401, error_body=echoed, headers={"set-cookie": KEY, "x-request-id": KEY}))
    with pytest.raises(AuthenticationError):
        ask(client, "openai", stream=True)
    exchange = recorder.last()
    base_url = recorder.environment["ANTHROPIC_BASE_URL"]
    mcp = [{"type": "url", "url": "https://mcp.test", "name": "m", "authorization_token": KEY[::-1]}]
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": HELLO, "mcp_servers": mcp}
    httpx.post(f"{base_url}/v1/messages", json=body, headers={"x-api-key": "sk-other"}, timeout=60)
    inner = recorder.last()
    httpx.post(
        f"{base_url}/v1beta/models/gemini-3-pro:generateContent?key={KEY}",
        json={"contents": [{"role": "user", "parts": [{"text": f"My key is {KEY}."}]}]},
        timeout=60,
    )
    queried = recorder.last()

    assert json.loads(exchange.body)["error"]["message"] == f"Incorrect API key provided: {'X' * len(KEY)}"
    assert queried.request.path.endswith(f"?key={'X' * len(KEY)}")
    assert inner.request.body["mcp_servers"][0]["authorization_token"] == "X" * len(KEY)
    files = [path for path in recorder.folder.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for text in (path.read_text("utf-8") for path in files):
        assert KEY[8:] not in text
        assert KEY[::-1][8:] not in text
        assert "set-cookie" not in text


def test_an_abort_closes_the_providers_connection_and_is_recorded_and_replayed_as_far_as_it_came(
    client: Client, recorder: Recorder
) -> None:
    recorder.upstream.enqueue(Script(repeat=1000, pace=0.02))
    stream = client.run_local(model="gpt-4o", messages=HELLO, stream=True)
    text = next(iter(stream))
    stream.abort()
    exchange = recorder.last()

    recorder.upstream.wait_until(lambda records: records[0].outcome == "closed_by_client")
    assert exchange.ending == "closed_by_client"
    with replay(recorder.folder / exchange.name) as replayed, replayed.in_environment():
        again = client.run_local(model="gpt-4o", messages=HELLO, stream=True)
        assert next(iter(again)) == text
        again.abort()
        assert again.result.result().aborted


def test_an_answer_that_the_provider_cuts_is_recorded_and_replayed_as_a_cut(client: Client, recorder: Recorder) -> None:
    recorder.upstream.enqueue(Script(chunks=["Hello", " from"] + ["."] * 9, cut_after=2))
    with pytest.raises(ProviderProtocolError) as first:
        ask(client, "openai", stream=True)
    exchange = recorder.last()

    assert exchange.ending == "cut"
    with replay(recorder.folder / exchange.name) as replayed, replayed.in_environment():
        with pytest.raises(ProviderProtocolError) as second:
            ask(client, "openai", stream=True)
        assert second.value.partial_text == first.value.partial_text == "Hello from"


def test_many_requests_at_once_are_told_apart(client: Client, recorder: Recorder) -> None:
    count = 8
    streams = [client.run_local(model="gpt-4o", messages=f"number {number}", stream=True) for number in range(count)]
    texts = {stream.result.result().text for stream in streams}
    exchanges = [recorder.last() for _ in range(count)]

    assert len(texts) == 1
    assert len({exchange.name for exchange in exchanges}) == count
    asked = [exchange.request.body["messages"][0]["content"] for exchange in exchanges]
    assert sorted(asked) == [f"number {number}" for number in range(count)]


def test_a_provider_that_cannot_be_reached_is_named_and_nothing_is_recorded(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SimulatedProvider() as upstream:
        pass
    with Recorder(upstream, tmp_path / "none") as recorder:
        for name, value in recorder.environment.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(ProviderUnavailableError, match=f"headrace record: {upstream.base_url}: "):
            ask(client, "openai", stream=False)
        code, _, err = recorder.end()

    assert code == 0
    assert f"headrace: {upstream.base_url}: " in err
    assert list(recorder.folder.iterdir()) == []


def test_the_recorder_ends_with_ctrl_c_and_keeps_what_runs(client: Client, recorder: Recorder) -> None:
    recorder.upstream.enqueue(Script(repeat=1000, pace=0.02))
    stream = client.run_local(model="gpt-4o", messages=HELLO, stream=True)
    next(iter(stream))
    code, out, err = recorder.end()

    assert code == 0
    assert "Traceback" not in err
    assert "closed by your program before its end" in out
    assert stream.result.exception() is not None
    wait_until(lambda: recorder.upstream.requests()[0].outcome == "closed_by_client")


def test_a_file_is_no_folder_for_recordings(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    arguments = argparse.Namespace(folder=file, host="127.0.0.1", port=0, openai=None, anthropic=None, google=None)
    with pytest.raises(ConfigurationError, match=r"notes\.txt: is a file; give a folder"):
        record_command.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--openai", "http://127.0.0.1:8001/v1"], "the recorder's own address"),
        (["--google", "ftp://x"], "--google must begin with http:// or https://"),
        (["--port", "99999"], "--port: takes a port from 0 to 65535, not '99999'"),
        (["--port", "-1"], "--port: takes a port from 0 to 65535, not '-1'"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid port 8001"),
    ],
)
def test_what_cannot_be_used_is_said(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace", "record", str(tmp_path / "new"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode in {2, 3, 5}
    assert said in done.stderr
    assert "Traceback" not in done.stderr
