"""Arize Phoenix, a receiver that is not ours, takes what the OpenTelemetry sink sends, and gives it back when asked."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.settings.settings import SinkConfig
from headrace.spans.span import Rank
from headrace_engine.spans.sinks.runner import Sinks
from tests.conftest import ROOT
from tests.e2e.span_slots import SlotWriter
from tests.engine.spans.span_examples import EXAMPLES, PARENT, TRACE, TRACEPARENT, span, unsampled
from tests.repetition import long_test
from tests.waiting import wait_until

# Installing takes minutes and 850 MB, the first time; starting takes half a minute, and more on a busy machine.
pytestmark = [long_test, pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = ROOT / "scripts" / "phoenix"
UNREACHABLE = ("No matching distribution", "NewConnectionError", "Temporary failure", "ConnectionError", "ReadTimeout")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Phoenix; yield its address."""
    installed = subprocess.run([SCRIPT, "--install"], capture_output=True, text=True, check=False)
    if installed.returncode and any(words in installed.stderr for words in UNREACHABLE):
        pytest.skip("Phoenix cannot be installed: no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    port, directory = free_port(), tmp_path_factory.mktemp("phoenix")
    environment = os.environ | {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(directory),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "TMPDIR": str(directory),  # it makes a folder there, and leaves it
    }
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([SCRIPT], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process, directory / "log")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    pause = threading.Event()
    for _ in range(1200):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if httpx.get(f"{address}/healthz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pause.wait(0.25)
    raise AssertionError(log.read_text()[-2000:])


def spans_in(address: str, **query: str) -> dict[str, dict[str, Any]]:
    """Return Phoenix's spans by their ids (hexadecimal)."""
    answer = httpx.get(f"{address}/v1/projects/default/spans", params={"limit": "1000", **query}, timeout=60)
    if answer.status_code == 404:  # there is no project before its first span
        return {}
    return {one["context"]["span_id"]: one for one in answer.raise_for_status().json()["data"]}


@pytest.fixture(scope="module")
def received(phoenix: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Send a span of every kind; return what Phoenix has then."""
    slot = SlotWriter(tmp_path_factory.mktemp("slot") / "0")
    marks = slot.write([*EXAMPLES.values(), unsampled()])
    sinks = Sinks(slot.slot, {"phoenix": SinkConfig(type="otlp", url=phoenix, content=True, timeout=60.0)})
    sinks.start()
    try:
        wait_until(lambda: sinks.is_caught_up(marks), timeout=120)
        assert [(status.delivered, status.failed) for status in sinks.statuses()] == [(len(EXAMPLES), 0)]
        wait_until(lambda: len(spans_in(phoenix)) >= len(EXAMPLES), timeout=60)  # it stores them after it has answered
        return spans_in(phoenix)
    finally:
        sinks.close(5.0)
        slot.close()


def of(received: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return received[EXAMPLES[name].span_id.removeprefix("sp_")]


def test_every_span_arrives_under_its_own_ids(received: dict[str, dict[str, Any]]) -> None:
    trace = TRACE.removeprefix("tr_").rjust(32, "0")

    assert {f"sp_{one}" for one in received} == {example.span_id for example in EXAMPLES.values()}
    for name in ("chat_with_tools", "aborted", "failed", "embedding"):
        assert of(received, name)["context"]["trace_id"] == trace
    assert of(received, "lost")["context"]["trace_id"] == EXAMPLES["lost"].span_id.removeprefix("sp_").rjust(32, "0")


def test_spans_hang_below_their_parents(received: dict[str, dict[str, Any]]) -> None:
    assert of(received, "chat_with_tools")["parent_id"] is None
    assert of(received, "aborted")["parent_id"] == of(received, "failed")["parent_id"] == PARENT.removeprefix("sp_")
    foreign = of(received, "with_traceparent")
    assert [foreign["context"]["trace_id"], foreign["parent_id"]] == TRACEPARENT.split("-")[1:3]


def test_names_kinds_times_and_states_are_understood(received: dict[str, dict[str, Any]]) -> None:
    chat, embedding, failed = (of(received, name) for name in ("chat_with_tools", "embedding", "failed"))

    assert (chat["name"], chat["span_kind"], chat["status_code"]) == ("chat gpt-4o", "LLM", "UNSET")
    assert (embedding["name"], embedding["span_kind"]) == ("embeddings gemini-embedding-001", "EMBEDDING")
    assert (failed["status_code"], failed["status_message"]) == ("ERROR", "429: slow down")
    assert chat["start_time"] == "2026-11-18T11:06:41.250000+00:00"
    assert chat["end_time"] == "2026-11-18T11:06:42.750000+00:00"
    assert [event["attributes"]["headrace.attempt.outcome"] for event in failed["events"]] == ["lost", "rate_limit"]


def test_attributes_arrive_with_their_types(received: dict[str, dict[str, Any]]) -> None:
    attributes = of(received, "chat_with_tools")["attributes"]

    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["gen_ai.response.finish_reasons"] == ["tool_call"]
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.usage.input_tokens"] == 100
    assert attributes["gen_ai.response.time_to_first_chunk"] == 0.5
    assert attributes["headrace.tags"] == ["shop", "night"]
    assert of(received, "aborted")["attributes"]["headrace.aborted"] is True
    assert of(received, "failed")["attributes"]["error.type"] == "RateLimitError"


def test_phoenix_reads_the_conversation_and_the_tokens_by_the_conventions(received: dict[str, dict[str, Any]]) -> None:
    """What is below ``llm.`` is Phoenix's own, made of what it understood."""
    chat, aborted = of(received, "chat_with_tools")["attributes"], of(received, "aborted")["attributes"]

    assert chat["llm.input_messages.0.message.role"] == "system"
    assert chat["llm.input_messages.4.message.content"] == "sunny"
    assert chat["llm.input_messages.3.message.tool_calls.0.tool_call.function.name"] == "weather"
    assert '"weather"' in chat["llm.tools.0.tool.json_schema"]
    assert (chat["llm.token_count.prompt"], chat["llm.token_count.completion"]) == (100, 20)
    assert chat["llm.token_count.prompt_details.cache_read"] == 40
    assert chat["session.id"] == "session-1"
    assert aborted["llm.input_messages.0.message.content"] == "Be brief."
    assert aborted["llm.finish_reason"] == "error"


def test_what_is_sent_twice_is_there_once(phoenix: str, tmp_path: Path) -> None:
    slot = SlotWriter(tmp_path / "0")
    marks = slot.write([span(number, trace_id="tr_00000000000000b2") for number in range(101, 111)])
    config = SinkConfig(type="otlp", url=phoenix, compression="gzip", timeout=60.0)
    try:
        for name in ("first", "second"):
            sinks = Sinks(slot.slot, {name: config})
            sinks.start()
            wait_until(partial(sinks.is_caught_up, marks), timeout=120)
            sinks.close(5.0)
        trace = "b2".rjust(32, "0")
        wait_until(lambda: len(spans_in(phoenix, trace_id=trace)) == 10, timeout=60)

        answer = httpx.get(f"{phoenix}/v1/projects/default/spans", params={"trace_id": trace}, timeout=60)
        assert len(answer.json()["data"]) == 10
        assert {one["attributes"]["headrace.recorded_by"] for one in answer.json()["data"]} == {
            Rank.WORKER.name.lower()
        }
    finally:
        slot.close()
