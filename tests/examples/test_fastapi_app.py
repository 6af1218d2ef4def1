"""examples/fastapi_app.py behind a real server: statuses before the first chunk, and an abort when the browser leaves."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from headrace.testing import Script, SimulatedProvider
from tests.conftest import ROOT
from tests.examples.test_examples import MODELS
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

_SERVING = "Uvicorn running on http://127.0.0.1:"


@pytest.fixture(scope="module")
def port(session_provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve the example, and return its port."""
    log = tmp_path_factory.mktemp("fastapi") / "log"
    command = ["-m", "uvicorn", "--app-dir", str(ROOT / "examples"), "fastapi_app:app", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: _SERVING in log.read_text(), 30.0, "a server", log.read_text)
        yield int(log.read_text().split(_SERVING, 1)[1].split()[0])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(port: int, model: str) -> http.client.HTTPResponse:
    """Ask as a browser does. The body is not read yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60.0)
    connection.request(
        "POST", f"/chat?{urlencode({'message': 'Hello', 'model': model})}", headers={"Connection": "close"}
    )
    return connection.getresponse()


@pytest.mark.parametrize("model", MODELS)
def test_the_answer_is_streamed(model: str, port: int, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(chunks=["Hello", " from", " the mill"]))

    with ask(port, model) as response:
        assert response.status == 200
        assert response.read() == b"Hello from the mill"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("status", [400, 401, 429, 503])
def test_a_refusal_of_the_provider_has_its_own_status(
    model: str, status: int, port: int, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(status=status, headers={"retry-after": "7"} if status == 429 else {}))

    with ask(port, model) as response:
        assert response.status == status
        assert response.getheader("Retry-After") == ("7" if status == 429 else None)


def test_a_browser_that_leaves_ends_its_run(port: int, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=1_000_000, pace=0.01))

    with ask(port, "gpt-4o") as response:
        assert response.read(4)

    provider.wait_until(lambda records: records[0].outcome == "closed_by_client", 5.0)
