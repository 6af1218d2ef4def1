"""The first use of the library may be in many threads at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repetition import repeated

PROGRAM = """
import sys, threading
from headrace import Client, EngineUnavailableError

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(16)
unavailable = []


def first_run():
    barrier.wait()
    client = Client("ipc:///nowhere/at-all", connect_timeout=0.1)
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image", "url": "https://x.test/a.png"}]}
    ]
    tools = [{"name": "look", "description": "looks", "parameters": {"type": "object", "properties": {}}}]
    try:
        client.run_local(model="gpt-4o", messages=messages, tools=tools)
    except EngineUnavailableError as error:
        unavailable.append(error)


threads = [threading.Thread(target=first_run) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(unavailable))
"""
CONFIG = """
[engine]
workers = 1

[prices."model"]
input = 1.0
"""


@pytest.mark.slow
def test_sixteen_threads_may_begin_at_the_same_time(tmp_path: Path) -> None:
    """In one out of two such programs msgspec would crash, were the types' first use left to them."""
    config = tmp_path / "headrace.toml"
    config.write_text(CONFIG)
    environment = {**os.environ, "HEADRACE_CONFIG": str(config)}
    for _ in range(repeated(4, 20)):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "16\n"), done.stderr
