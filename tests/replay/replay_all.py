"""Replays every recording through client, engine and worker, and compares what comes out with what is expected.

Ends with status 1 where anything disagrees. HEADRACE_WIRE says where the recordings are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace import Client, HeadraceError
from tests.replay.recorded_answers import CUTS
from tests.replay.replayed_run import outcome_of
from tests.replay.tables import Replayed, by_feature, by_provider
from tests.workers import corpus
from tests.workers.providers import (
    test_anthropic_corpus,
    test_google_corpus,
    test_openai_chat_corpus,
    test_openai_responses_corpus,
)

# Wire format of the recordings: what provider to run, its base URL below the server's, how to compare.
READINGS: dict[str, tuple[str, str, corpus.Comparison]] = {
    "anthropic.messages": ("anthropic", "", test_anthropic_corpus.READING),
    "google.generate": ("google", "", test_google_corpus.READING),
    "openai.chat": ("openai-chat", "/v1", test_openai_chat_corpus.READING),
    "openai.responses": ("openai-responses", "/v1", test_openai_responses_corpus.READING),
}
AT_ONCE = 64


def main() -> int:
    """Replay what the command line asks for; return the status to exit with."""
    parser = argparse.ArgumentParser(prog="scripts/wire", description=__doc__)
    parser.add_argument("--cut", action="append", choices=list(CUTS), help="in what pieces; default: each way")
    cuts = parser.parse_args().cut or list(CUTS)
    if not (corpus.WIRE / "index.json").exists():
        print(f"no recordings in {corpus.WIRE}", file=sys.stderr)
        return 2
    index = json.loads((corpus.WIRE / "index.json").read_text())
    started_at = time.monotonic()
    with _server() as port, _configured(port):
        replays = asyncio.run(_replay_all(index, cuts))
    _report(index, replays, cuts)
    print(f"\n{len(replays)} replays of {len(index)} recordings in {time.monotonic() - started_at:.0f} s")
    return int(any(replay.problem for replay in replays))


async def _replay_all(index: Sequence[dict[str, Any]], cuts: Sequence[str]) -> list[Replayed]:
    """Replay each recording in each cut, many at once."""
    room = asyncio.Semaphore(AT_ONCE)
    # The longest first: at the end none runs alone.
    work = [(recording, cut) for recording in index for cut in cuts if cut != "bytes" or not _is_too_long(recording)]
    work.sort(key=lambda item: -item[0]["bytes"] if item[1] == "bytes" else 0)
    async with Client(connect_timeout=30) as client:

        async def replay(recording: dict[str, Any], cut: str) -> Replayed:
            async with room:
                problem = await _problem(client, recording, cut)
            facts = {name: recording[name] for name in ("name", "wire", "vendor", "features")}
            return Replayed(**facts, cut=cut, problem=problem)

        return await asyncio.gather(*(replay(recording, cut) for recording, cut in work))


async def _problem(client: Client, recording: dict[str, Any], cut: str) -> str | None:
    """Replay one recording; return what is not as expected."""
    provider, _, reading = READINGS[recording["wire"]]
    case = corpus.load(recording["name"])
    outcome: corpus.AnswerOutcome | None = None
    try:
        outcome = await outcome_of(client, case, provider, cut)
        corpus.compare(reading, case, outcome)
    except (AssertionError, HeadraceError, ValueError) as error:
        rule = traceback.extract_tb(error.__traceback__)[-1].line
        return f"{rule}: {error!r}\n    {outcome}\n    expected {case.expected}"
    return None


def _is_too_long(recording: dict[str, Any]) -> bool:
    return bool(recording["bytes"] >= corpus.MAX_BYTEWISE)


@contextmanager
def _server() -> Iterator[int]:
    """Run the replaying server in a process of its own; yield its port."""
    command = [sys.executable, "-m", "tests.replay.recorded_answers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


@contextmanager
def _configured(port: int) -> Iterator[None]:
    """Have the engines that this program starts know the server as a provider of each wire format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "headrace.toml"
        path.write_text(
            "".join(
                f'[providers.{provider}]\napi = "{provider}"\nbase_url = "http://127.0.0.1:{port}{below}"\n'
                for provider, below, _ in READINGS.values()
            )
        )
        os.environ["HEADRACE_CONFIG"] = str(path)
        os.environ["HEADRACE_DATA"] = str(Path(folder) / "data")
        os.environ.pop("HEADRACE_ENGINE", None)
        yield


def _report(index: Sequence[dict[str, Any]], replays: Sequence[Replayed], cuts: Sequence[str]) -> None:
    print(
        f"Recordings replayed through client, engine and worker: passed/replayed, by cut\n\n{by_provider(replays, cuts)}"
    )
    print(f"\nFeatures of the recordings: passed/replayed, all cuts together\n\n{by_feature(replays)}")
    print("\nExpectations that are wrong; the fields named are not compared:")
    for _, _, reading in READINGS.values():
        for name, (fields, reason) in sorted(reading.wrong.items()):
            print(f"  {name} ({', '.join(sorted(fields))}): {reason}")
    if "bytes" in cuts:
        too_long = sorted(recording["name"] for recording in index if _is_too_long(recording))
        print(f"\nNot replayed one byte at a time, being {corpus.MAX_BYTEWISE} bytes or longer: {', '.join(too_long)}")
    failed = [replay for replay in replays if replay.problem]
    if failed:
        print(f"\n{len(failed)} disagreements:")
    for replay in failed:
        print(f"  {replay.name} ({replay.cut}): {replay.problem}")


if __name__ == "__main__":
    sys.exit(main())
