"""Keys are nowhere but in the processes that need them, and prompts nowhere that was not asked for.

Every byte left behind is looked at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import Client, LocalStream, RunError, WorkerLostError
from headrace.cli.main import main
from headrace.cli.status_command import engine_status
from headrace.process.history import VARIABLE
from headrace.testing import SimulatedProvider
from tests.conftest import engine_process, simulate
from tests.e2e.engines import running_engine
from tests.faults.artefacts import Artefacts, command_lines, files, found_in, is_in_memory
from tests.faults.span_sets import stored, wait_for_all
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APIS = {
    "openai-chat": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic": "claude-sonnet-4-6",
    "google": "gemini-2.5-flash",
}
KEY_OF_ENGINE, KEY_OF_SINK = "HR_TEST_PROVIDER_KEY", "HR_TEST_SINK_KEY"
LONGEST_REASON = 500
"""What is kept of a provider's words."""
SHORTEST_PIECE = 16
"""A key's first characters: none of a key that is cut short may be there either."""

POLICIES = {
    "nothing": 'content = "none"',
    "redacted": 'redact = "prompt_redaction:redact"',
}
REDACTION = """
import re

def redact(content):
    content["text"] = re.sub("(prompt|answer)-[0-9a-f]+", "[gone]", content["text"])
    for message in content["messages"]:
        message["content"] = re.sub("(prompt|answer)-[0-9a-f]+", "[gone]", message["content"])
    return content
"""
CONFIG = """
[spans]
{policy}

[sinks.file]
type = "jsonl"
path = "{folder}/sink.jsonl"
content = true

[sinks.away]
type = "http"
url = "http://127.0.0.1:9/{in_address}"
headers = {{ x-secret = "{in_header}" }}
api_key_env = "{variable}"
"""
PROVIDER = """
[providers.our-{api}]
api = "{api}"
base_url = "{url}"
api_key_env = "{variable}"
"""


class Markers(msgspec.Struct, frozen=True):
    """Words that occur nowhere else. ``shown`` is the one that is to be found: it says that the search finds what there is."""

    engine_key: str
    run_key: str
    sink_key: str
    in_header: str
    in_address: str
    option: str
    prompt: str
    answer: str
    shown: str

    @property
    def never(self) -> list[str]:
        """Return what must not be anywhere."""
        keys = [self.engine_key, self.run_key, self.sink_key, self.in_header, self.in_address, self.option]
        return [*(key[:SHORTEST_PIECE] for key in keys), self.prompt]


def new_markers() -> Markers:
    names = ("sk-e", "sk-r", "sk-s", "head", "token", "option", "prompt-", "answer-", "shown")
    return Markers(*(f"{name}{secrets.token_hex(20)}" for name in names))


class WatchedEngine(msgspec.Struct, frozen=True):
    """A test's folder, and an engine in it."""

    folder: Path
    address: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def left(self) -> dict[str, bytes]:
        """Return all that is left behind now, but for the texts of answers, which histories are there to hold."""
        places = [
            self.data,
            self.folder / "sink.jsonl",
            self.folder / "engine.log",
            Path(self.address.removeprefix("ipc://")),
        ]
        return files(*places) | command_lines(self.address.removeprefix("ipc://"))

    def histories(self) -> dict[str, bytes]:
        return files(self.folder / "history")


@contextmanager
def engine_with_secrets(
    provider: SimulatedProvider, folder: Path, markers: Markers, policy: str
) -> Iterator[WatchedEngine]:
    """Run an engine that is told keys in each way that there is, and says all that it can say."""
    root = provider.base_url.removesuffix("/v1")
    urls = {api: root if api in ("anthropic", "google") else provider.base_url for api in APIS}
    config = CONFIG.format(
        policy=POLICIES[policy], folder=folder, variable=KEY_OF_SINK, **msgspec.structs.asdict(markers)
    )
    config += "".join(PROVIDER.format(api=api, url=url, variable=KEY_OF_ENGINE) for api, url in urls.items())
    # What configures it is not what it leaves behind.
    settings = folder / "settings"
    for name in (settings, folder / "history"):
        name.mkdir()
    (settings / "headrace.toml").write_text(config)
    (settings / "prompt_redaction.py").write_text(REDACTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CONFIG", str(settings / "headrace.toml"))
        patch.setenv("HEADRACE_DATA", str(folder / "data"))
        patch.setenv("HEADRACE_LOG", "DEBUG")
        patch.setenv("PYTHONPATH", str(settings), prepend=os.pathsep)
        patch.setenv(VARIABLE, str(folder / "history"))
        patch.setenv(KEY_OF_ENGINE, markers.engine_key)
        patch.setenv(KEY_OF_SINK, markers.sink_key)
        logged = ["sh", "-c", 'exec "$@" 2> "$0"', str(folder / "engine.log")]
        with running_engine(provider, "--workers", "1", wrapper=logged) as address:
            yield WatchedEngine(folder, address)


def arguments(markers: Markers, api: str, *, own_key: bool, **script: Any) -> dict[str, Any]:
    """Return a run with a secret wherever one may be; the script's ``{key}`` is the key that it is sent with."""
    key = markers.run_key if own_key else markers.engine_key
    said = {name: text.format(key=key) if isinstance(text, str) else text for name, text in script.items()}
    secret: dict[str, dict[str, Any]] = {
        "openai-chat": {"user": markers.option},
        "anthropic": {"metadata": {"user_id": markers.option}},
    }
    return {
        "model": APIS[api],
        "provider": {"openai-chat": "openai"}.get(api, api) if own_key else f"our-{api}",
        "provider_api_key": markers.run_key if own_key else None,
        "messages": [
            {"role": "system", "content": f"Keep {markers.prompt} to yourself."},
            {"role": "user", "content": f"What is {markers.prompt}?"},
        ],
        "user_id": markers.shown,
        "custom_options": simulate(**said) | secret.get(api, {}),
    }


def failing_runs(client: Client, markers: Markers) -> Iterator[RunError]:
    """Ask for runs that are refused, or break off, in words that quote their key; yield what their callers are told."""
    long = "x" * (LONGEST_REASON - SHORTEST_PIECE - 4) + "{key}"
    scripts: list[dict[str, Any]] = [
        {"status": 401, "error_message": "Incorrect API key provided: {key}.", "error_code": "{key}"},
        {"status": 401, "error_message": long},
        {"repeat": 4, "error_after": 2, "error_message": "Your key {key} has expired."},
        {"repeat": 4, "cut_after": 2},
    ]
    for api in APIS:
        for script in scripts:
            for own_key in (True, False):
                with pytest.raises(RunError) as caught:
                    client.run_local(stream=True, **arguments(markers, api, own_key=own_key, **script)).result.result(
                        20
                    )
                yield caught.value


def open_stream(client: Client, markers: Markers, *, own_key: bool) -> LocalStream:
    """Return a stream that has begun and does not end by itself."""
    script = {"chunks": [f"{markers.answer} "] * 3, "stall_after": 2}
    stream: LocalStream = client.run_local(stream=True, **arguments(markers, "openai-chat", own_key=own_key, **script))
    next(iter(stream))
    return stream


def said_by_commands(
    place: WatchedEngine, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield each command that shows the engine or its spans, and its output."""
    data = ("--data", place.data)
    commands: list[tuple[str | Path, ...]] = [
        ("status", "--engine", place.address),
        ("status", "--engine", place.address, "--json"),
        ("spans", "list", "--limit", "0", *data),
        ("spans", "list", "--table", *data),
        ("spans", "export", *data),
        *(("spans", "show", name, *data) for name in ids),
    ]
    for command in commands:
        capsys.readouterr()
        words = [*map(str, command)]
        assert main(words) == 0, words
        yield " ".join(words), "".join(capsys.readouterr()).encode()


@pytest.mark.parametrize("policy", POLICIES)
def test_no_key_and_no_prompt_is_left_anywhere(
    provider: SimulatedProvider,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    policy: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    markers = new_markers()
    found: dict[str, bytes] = {}
    ids: list[str] = []
    with engine_with_secrets(provider, tmp_path, markers, policy) as place:
        with Client(place.address, connect_timeout=30.0) as client:
            for api in APIS:
                for own_key in (True, False):
                    result = client.run_local(**arguments(markers, api, own_key=own_key, text=markers.answer))
                    assert result.text == markers.answer
                    ids.append(result.span_id)
            for error in failing_runs(client, markers):
                found[f"error of {error.span_id}"] = f"{error} {error!r}".encode() + pickle.dumps(error)
                ids.append(error.span_id)
            refused = ids[len(APIS) * 2]
            ids += abort_and_lose(client, place, markers, found)
            counts = client.flush(0.5)  # one sink takes nothing
            assert counts.failed == 0
            wait_for_all(place.data, ids)
        wait_until(lambda: all(name.encode() in found_sink(place) for name in ids), 20.0, "all spans at the sink")
        found |= said_by_commands(place, [refused, *ids[-4:]], capsys)
        found |= place.left()
        check_memory(place, markers)
    found |= place.left()
    found["this program's log"] = caplog.text.encode()

    assert found_in(found | place.histories(), markers.never) == []
    assert found_in(found, [markers.answer]) == []
    check_that_it_was_looked_for(place, found, markers, refused)
    kinds = sorted({row.span.error_type or row.span.status for row in stored(place.data).values()})
    print(f"{len(ids)} runs ({', '.join(kinds)}): {len(found)} artefacts, {sum(map(len, found.values())) / 1e6:.1f} MB")


def abort_and_lose(client: Client, place: WatchedEngine, markers: Markers, found: dict[str, bytes]) -> list[str]:
    """Abort two runs, and lose two with their worker; look at what there is while they run."""
    streams = [open_stream(client, markers, own_key=own_key) for own_key in (True, False, True, False)]
    found |= {f"{name}, meanwhile": data for name, data in place.left().items()}
    for stream in streams[:2]:
        stream.abort()
        assert stream.result.result(60).aborted
    os.kill(engine_process(place.address, "--name w1 "), signal.SIGKILL)
    for stream in streams[2:]:
        with pytest.raises(WorkerLostError) as caught:
            stream.result.result(60)
        # What had come is the caller's own; it is in no log.
        found[f"error of {stream.span_id}"] = str(caught.value).encode()
    return [stream.span_id for stream in streams]


def found_sink(place: WatchedEngine) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return (place.folder / "sink.jsonl").read_bytes()
    return b""


def check_memory(place: WatchedEngine, markers: Markers) -> None:
    """Check that processes that need no provider's key have none: neither the engine's nor a run's."""
    pids = {process.name: process.pid for process in engine_status(place.address, 10.0).processes}
    for name in ("broker", "collector"):
        pid = pids[name]
        assert pid is not None
        assert not is_in_memory(pid, markers.run_key), name
        assert not is_in_memory(pid, markers.engine_key), name
    assert pids["broker"] is not None
    assert not is_in_memory(pids["broker"], markers.prompt)


def check_that_it_was_looked_for(place: WatchedEngine, found: Artefacts, markers: Markers, refused: str) -> None:
    """Check that the search finds what there is to find, in each kind of artefact."""
    where = [line.removeprefix(f"{markers.shown} in ") for line in found_in(found, [markers.shown])]
    for part in (".spool, meanwhile", ".db", "sink.jsonl", "spans export", "spans list", f"spans show {refused}"):
        assert any(part in name for name in where), part
    assert b"Incorrect API key provided: [key]." in found[f"spans show {refused} --data {place.data}"]
    assert any(b" INFO " in data for name, data in found.items() if "engine.log" in name)
    assert any("-m headrace_workers" in data.decode() for name, data in found.items() if "command line" in name)
    assert found_in(place.histories(), [markers.answer])
