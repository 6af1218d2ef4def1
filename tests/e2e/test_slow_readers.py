"""Readers that pause lose nothing; readers that never come back are not waited for for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client, LocalStream, RunTimeoutError
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.e2e.engines import running_engine
from tests.repetition import repeated

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"
# More than the windows on the way and the sockets of all sides hold.
PIECES = 4000
PIECE = "x" * 4096
PAUSE = repeated(5.0, 30.0)
"""Seconds: much longer than the idle timeout of the run that is not read."""


def large(client: Client, idle_timeout_ms: int | None = None) -> LocalStream:
    """Return a stream that nobody has read from, of which the provider has more than is asked for."""
    return client.run_local(
        model=MODEL,
        messages=HELLO,
        stream=True,
        custom_options=simulate(chunks=[PIECE] * PIECES),
        idle_timeout_ms=idle_timeout_ms,
    )


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_a_reader_that_never_comes_back_is_not_waited_for_for_ever(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "headrace.toml").write_text("[engine]\nstalled_reader_timeout = 1\n")
    monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "headrace.toml"))
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60.0) as client:
        stream = large(client)
        provider.wait_until(lambda records: [record.outcome for record in records] == ["closed_by_client"], 30)

        texts: list[str] = []
        with pytest.raises(RunTimeoutError) as error:
            texts.extend(stream)
        text = "".join(texts)
        assert (error.value.clock, error.value.limit) == ("reader", 1.0)
        assert text
        assert error.value.partial_text.startswith(text)
        sent = provider.requests()[0].sent_text
        assert sent.startswith(error.value.partial_text)
        assert len(error.value.partial_text) < len(sent)


@pytest.fixture(scope="module")
def engine(session_provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine that waits for three seconds for a reader that takes nothing."""
    file = tmp_path_factory.mktemp("settings") / "headrace.toml"
    file.write_text("[engine]\nstalled_reader_timeout = 3\n")
    with running_engine(session_provider, "--workers", "1", settings_file=file) as address:
        yield address


@pytest.mark.parametrize("is_complete", [False, True], ids=["under way", "complete at the provider"])
def test_a_reader_that_takes_something_now_and_then_is_waited_for(
    is_complete: bool, engine: str, provider: SimulatedProvider
) -> None:
    pieces = 200 if is_complete else 600
    with Client(engine, connect_timeout=60.0) as client:
        stream = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(chunks=["y" * 1024] * pieces)
        )
        started_at = time.monotonic()
        text = ""
        paused_at = 0
        for chunk in stream:
            text += chunk
            # By characters: a slow reader is given fewer and larger chunks, of 64 KiB at most.
            if len(text) >= paused_at + 40 * 1024 and time.monotonic() - started_at < 5.0:
                paused_at = len(text)
                wait(1.2)

        assert time.monotonic() - started_at > 3.0
        assert text == "y" * 1024 * pieces


@pytest.mark.timeout(120)
def test_a_reader_that_pauses_for_long_loses_nothing(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60.0) as client:
        stream = iter(large(client, idle_timeout_ms=2000))  # much shorter than the pause
        first = next(stream)
        other = client.run_local(
            model=MODEL, messages=HELLO, stream=True, custom_options=simulate(repeat=200, pace=0.005)
        )
        assert "".join(other) == "".join(f"{number} " for number in range(200)), "others are not held up"
        wait(PAUSE)

        assert len(first + "".join(stream)) == PIECES * len(PIECE)
        assert provider.requests()[0].outcome == "complete"
