"""The simulated provider as an HTTP server: faults and pace of its scripts, closed connections, and its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from headrace.testing import RequestRecord, Script, SimulatedProvider
from headrace.testing.server import run_server
from tests.conftest import PatientProvider
from tests.waiting import busyness, wait_until

END = b"\r\n0\r\n\r\n"  # a header may end in 0


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with PatientProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    wait_until(lambda: shared.open_connections == 0, what="the end of the connections of the test before")
    shared.clear()
    return shared


def request(script: dict[str, Any] | None = None, *, stream: bool = True) -> bytes:
    fields: dict[str, Any] = {} if script is None else {"simulate": script}
    ask = [{"role": "user", "content": "hi"}]
    body = msgspec.json.encode({"model": "gpt-4o", "messages": ask, "stream": stream} | fields)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-1\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


def connect(provider: SimulatedProvider, *, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(60)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        connection.connect(("127.0.0.1", provider.port))
    except OSError:
        connection.close()
        raise
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    return data


def post(provider: SimulatedProvider, script: dict[str, Any], *, stream: bool = True) -> httpx.Response:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "stream": stream, "simulate": script}
    headers = {"authorization": "Bearer sk-1"}
    return httpx.post(f"{provider.base_url}/chat/completions", json=body, headers=headers, timeout=60)


def only(records: list[RequestRecord]) -> RequestRecord:
    assert len(records) == 1
    return records[0]


def test_a_cut_stream_has_no_end(provider: SimulatedProvider) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(provider, {"repeat": 9, "cut_after": 3})

    record = only(provider.requests())
    assert (record.outcome, record.sent_text) == ("cut", "0 1 2 ")


def test_a_stream_that_ends_early_ends_cleanly_without_a_finish_reason(provider: SimulatedProvider) -> None:
    text = post(provider, {"repeat": 9, "end_after": 3}).text

    assert "2 " in text
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text
    assert only(provider.requests()).outcome == "ended_early"


def test_an_event_that_is_no_json_is_sent_within_a_stream(provider: SimulatedProvider) -> None:
    events = post(provider, {"repeat": 3, "garbage_after": 1}).text.split("\n\n")

    assert events[2] == "data: {not json"
    assert events[-2] == "data: [DONE]"


def test_done_and_the_final_newline_can_be_left_out(provider: SimulatedProvider) -> None:
    assert "[DONE]" not in post(provider, {"omit_done": True}).text
    assert post(provider, {"no_final_newline": True}).text.endswith("\n\ndata: [DONE]")


def test_comments_come_between_chunks(provider: SimulatedProvider) -> None:
    assert post(provider, {"repeat": 3, "comments": True}).text.count(": keep-alive\n\n") == 3


def test_a_web_page_comes_with_status_200(provider: SimulatedProvider) -> None:
    response = post(provider, {"html": True})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("size", [1, 7, 100, 300, 5000])
def test_splitting_changes_the_pieces_but_not_the_stream(provider: SimulatedProvider, size: int) -> None:
    with connect(provider) as connection:
        connection.sendall(request({"text": "Grüße, world, again and again", "split_bytes": size}))
        head, _, body = read_until(connection, END).partition(b"\r\n\r\n")

    assert b"transfer-encoding: chunked" in head
    sizes, text = [], b""
    while not body.startswith(END[2:]):
        line, _, body = body.partition(b"\r\n")
        sizes.append(int(line, 16))
        text, body = text + body[: sizes[-1]], body[sizes[-1] + 2 :]
    assert set(sizes[:-1]) <= {size}
    assert text.endswith(b"data: [DONE]\n\n")
    record = only(provider.requests())
    assert (record.sent_text, record.chunks_sent) == ("Grüße, world, again and again", 5)


def test_one_write_is_one_http_chunk(provider: SimulatedProvider) -> None:
    with connect(provider) as connection:
        connection.sendall(request({"repeat": 5, "one_write": True}))
        _, _, body = read_until(connection, END).partition(b"\r\n\r\n")

    size, events, _ = body.split(b"\r\n", 2)
    assert int(size, 16) == len(events)
    assert events.count(b"data: ") == 8


@pytest.mark.parametrize(
    "script",
    [
        {"silent": True},
        {"repeat": 9, "stall_after": 2},
        {"repeat": 9, "stall_after": 0},
        {"repeat": 1000, "pace": 0.01},
        {"first_token_delay": 60},
    ],
)
def test_the_close_of_a_client_is_noticed_at_once(provider: SimulatedProvider, script: dict[str, Any]) -> None:
    connection = connect(provider)
    connection.sendall(request(script))
    provider.wait_until(lambda records: records and records[0].arrived_at)
    assert provider.open_connections == 1
    closed_at = time.monotonic()
    connection.close()

    record = only(provider.wait_until(lambda records: records[0].outcome == "closed_by_client"))

    assert record.closed_at is not None
    assert record.closed_at - closed_at < 5 * busyness()
    assert provider.open_connections == 0
    assert only(provider.requests()).chunks_sent == record.chunks_sent


def test_a_stalled_stream_keeps_its_connection(provider: SimulatedProvider) -> None:
    with connect(provider) as connection:
        connection.sendall(request({"repeat": 9, "stall_after": 2}))
        record = only(provider.wait_until(lambda records: records and records[0].chunks_sent == 2))
        assert read_until(connection, b'"1 "')

        assert (record.outcome, record.sent_text) == ("open", "0 1 ")
        assert provider.open_connections == 1


def test_chunks_are_paced(provider: SimulatedProvider) -> None:
    post(provider, {"repeat": 11, "pace": 0.02, "first_token_delay": 0.05})

    record = only(provider.requests())
    assert record.first_byte_at is not None
    assert record.first_chunk_at is not None
    assert record.ended_at is not None
    assert 0.045 < record.first_chunk_at - record.first_byte_at < 5 * busyness()
    assert 0.19 < record.ended_at - record.first_chunk_at < 10 * busyness()


def test_a_client_that_stops_reading_stops_the_sender(provider: SimulatedProvider) -> None:
    with connect(provider, receive_buffer=4096) as connection:
        connection.sendall(request({"repeat": 20_000}))
        held = only(provider.wait_until(has_settled()))
        assert 0 < held.chunks_sent < 5_000

        tail = b""
        while not tail.endswith(END):
            tail = (tail + connection.recv(1 << 20))[-20:]

    done = only(provider.wait_until(lambda records: records[0].outcome == "complete"))
    assert done.chunks_sent == 20_000


def has_settled() -> Any:
    seen: list[int] = []

    def settled(records: list[RequestRecord]) -> bool:
        seen.extend(record.chunks_sent for record in records)
        return len(seen) > 20 and seen[-1] > 0 and len(set(seen[-20:])) == 1

    return settled


def test_requests_on_one_connection_are_answered_in_order(provider: SimulatedProvider) -> None:
    scripts: list[dict[str, Any]] = [{"text": "one", "pace": 0.01}, {"text": "two"}, {"text": "three"}]
    with connect(provider) as connection:
        connection.sendall(b"".join(request(script) for script in scripts))
        data = b""
        while data.count(END) < 3:
            data += connection.recv(65536)

    assert data.index(b'"one"') < data.index(b'"two"') < data.index(b'"three"')
    records = provider.requests()
    assert [record.sent_text for record in records] == ["one", "two", "three"]
    assert len({record.connection for record in records}) == 1


def test_many_pipelined_requests_are_all_answered(provider: SimulatedProvider) -> None:
    with connect(provider) as connection:
        connection.sendall(request({"text": "slow", "first_token_delay": 0.05}) + request(stream=False) * 500)
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 501:
            data += connection.recv(65536)

    assert len(provider.requests()) == 501


def test_the_server_closes_the_connection_if_the_script_says_so(provider: SimulatedProvider) -> None:
    with connect(provider) as connection:
        connection.sendall(request({"close_after_response": True}))
        data = read_until(connection, b"never")

    assert data.endswith(END)
    assert b"connection: close" in data


def test_bytes_that_are_not_http_are_refused(provider: SimulatedProvider) -> None:
    with connect(provider) as connection:
        connection.sendall(b"\x16\x03\x01 tls?\r\n\r\n")

        assert read_until(connection, b"never").startswith(b"HTTP/1.1 400 ")


def test_scripts_are_chosen_by_request_then_queue_then_default() -> None:
    with SimulatedProvider(Script(text="default")) as provider:
        provider.enqueue(Script(text="queued"))
        post(provider, {"text": "own"})
        with connect(provider) as connection:
            for _ in range(2):
                connection.sendall(request())
                read_until(connection, END)

        assert [record.sent_text for record in provider.requests()] == ["own", "queued", "default"]


def test_an_invalid_script_is_refused(provider: SimulatedProvider) -> None:
    with pytest.raises(ValueError, match="pace"):
        provider.enqueue(Script(pace=-1))

    response = post(provider, {"pace": "fast"})
    assert response.status_code == 400
    assert "pace" in response.json()["error"]["message"]


def test_a_wait_that_fails_shows_the_requests(provider: SimulatedProvider) -> None:
    post(provider, {"repeat": 3})

    with pytest.raises(TimeoutError, match="complete"):
        provider.wait_until(lambda records: len(records) == 2, timeout=0.02)


def test_a_provider_in_its_own_process_works_the_same() -> None:
    with SimulatedProvider(Script(text="default"), process=True) as provider:
        now = time.monotonic()
        post(provider, {"repeat": 2})
        with connect(provider) as connection:
            connection.sendall(request())
            read_until(connection, END)
        first, second = provider.requests()

    assert (first.sent_text, second.sent_text) == ("0 1 ", "default")
    assert now < first.arrived_at < time.monotonic()
    provider.close()
    with pytest.raises(OSError, match="refused"):
        connect(provider)


PARENT = """
import os
from headrace.testing import SimulatedProvider
provider = SimulatedProvider(process=True)
print(provider.port, flush=True)
os._exit(0)
"""


def test_a_provider_process_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = parent.communicate(timeout=60)  # standard error ends when the last of the two processes has

    assert err == b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(out)))


def test_a_server_in_the_foreground_ends_at_sigterm() -> None:
    command = [sys.executable, "-m", "headrace.testing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"{}\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"port":')
        process.terminate()

        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_port_in_use_is_an_error(provider: SimulatedProvider) -> None:
    with pytest.raises(OSError, match="in use"):
        SimulatedProvider(port=provider.port)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, lambda *_: None])
def test_the_program_gets_its_signal_handlers_back_after_the_server(handler: Any) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        run_server(until=lambda: None)
        after = [signal.getsignal(number) for number in numbers]
    finally:
        for number, own in zip(numbers, before, strict=True):
            signal.signal(number, own)

    assert after == [handler] * 2


def test_what_is_no_script_is_refused_at_once(provider: SimulatedProvider) -> None:
    wrong: Any = "Hello"
    with pytest.raises(TypeError, match=r"takes a Script such as Script\(text='Hello'\), not str"):
        provider.enqueue(wrong)
    with pytest.raises(TypeError, match="not list"):
        provider.enqueue(Script(), [Script()])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not str"):
        SimulatedProvider(wrong)
    with pytest.raises(ValueError, match=r"text"):
        provider.enqueue(Script(text=5))  # type: ignore[arg-type]
