"""A wire format of an installed package, from ``headrace.toml`` to the span; and packages that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from headrace import Client, ConfigurationError, InvalidRequestError, LocalStream, ProviderError
from headrace.cli.main import main
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.plugin_packages import documented_plugin, install

pytestmark = pytest.mark.slow

END = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 2}


class OllamaServer:
    """A small Ollama. It sends the second half of a stream when ``goes_on`` is set."""

    def __init__(self) -> None:
        self.goes_on = Event()
        self.requests: list[dict[str, Any]] = []
        server = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.requests.append(asked | {"path": self.path})
                if asked["model"] == "missing":
                    self._send(404, "application/json", [{"error": "model 'missing' not found"}])
                elif asked["model"] == "breaks":
                    self._send(200, "application/x-ndjson", [_piece("Hel"), {"error": "out of memory"}])
                elif asked["stream"]:
                    self._send(200, "application/x-ndjson", [_piece("Hel"), _piece("lo"), END])
                else:
                    self._send(200, "application/json", [_piece("Hello") | END])

            def _send(self, status: int, label: str, lines: list[dict[str, Any]]) -> None:
                self.send_response(status)
                self.send_header("content-type", label)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for number, line in enumerate(lines):
                    if number:
                        assert server.goes_on.wait(60)
                    data = json.dumps(line).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _piece(text: str) -> dict[str, Any]:
    return {"model": "llama3", "message": {"role": "assistant", "content": text}, "done": False}


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    server = OllamaServer()
    yield server
    server.close()


Configure = Callable[..., None]


@pytest.fixture
def configure(tmp_path: Path, ollama: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Write a settings file with one provider for each of the given formats, and use it."""

    def write(**formats: str) -> None:
        tables = [f'[providers.{name}]\napi = "{api}"\nbase_url = "{ollama.url}"\n' for name, api in formats.items()]
        path = tmp_path / "settings.toml"
        path.write_text("[engine]\nworkers = 1\n" + "".join(tables))
        monkeypatch.setenv("HEADRACE_CONFIG", str(path))

    return write


@pytest.mark.usefixtures("_without_engine")
def test_a_plug_in_streams_text_and_usage_and_tells_errors_and_its_spans_name_it(
    ollama: OllamaServer,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    install(tmp_path / "site", "headrace_ollama", *documented_plugin())
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    configure(local="ollama-chat")
    with Client() as client:
        stream = client.run_local(model="local/llama3", messages=HELLO, stream=True, temperature=0.5)
        assert isinstance(stream, LocalStream)
        assert next(iter(stream)) == "Hel"  # before the server has sent the rest
        ollama.goes_on.set()
        result = stream.result.result(60)
        assert (result.text, result.finish_reason, result.model) == ("Hello", "stop", "llama3")
        assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.source) == (7, 2, "provider")
        assert ollama.requests[0]["path"] == "/api/chat"
        assert ollama.requests[0]["options"] == {"temperature": 0.5}

        assert client.run_local(model="local/llama3", messages=HELLO).text == "Hello"
        with pytest.raises(InvalidRequestError, match="model 'missing' not found"):
            client.run_local(model="local/missing", messages=HELLO)
        broken = client.run_local(model="local/breaks", messages=HELLO, stream=True)
        assert isinstance(broken, LocalStream)
        with pytest.raises(ProviderError, match="out of memory") as caught:
            broken.result.result(60)
        assert caught.value.partial_text == "Hel"
        with pytest.raises(InvalidRequestError, match="the format ollama-chat does not take it"):
            client.run_local(model="local/llama3", messages=HELLO, reasoning_effort="low")
        client.flush(60)

    capfd.readouterr()
    assert main(["spans", "export", "--data", str(tmp_path / "data")]) == 0
    spans = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    attempts = [span["attempts"][0] for span in spans if span["status"] == "ok"]
    assert [(said["wire_format"], said["telemetry_provider"]) for said in attempts] == [("ollama-chat", "ollama")] * 2


@pytest.mark.usefixtures("_without_engine")
def test_a_plug_in_that_cannot_be_used_is_told_and_harms_no_other_run(
    ollama: OllamaServer,
    provider: SimulatedProvider,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    site = tmp_path / "site"
    install(site, "headrace_ollama", *documented_plugin())
    install(
        site, "headrace_broken", "raise OSError('no such file: model.bin')\n", "broken-chat = headrace_broken:FORMAT"
    )
    install(site, "headrace_exits", "raise SystemExit(3)\n", "exits-chat = headrace_exits:FORMAT")
    install(site, "headrace_other", "FORMAT = object()\n", "other-chat = headrace_other:FORMAT")
    install(site, "headrace_thief", "raise AssertionError\n", "openai-chat = headrace_thief:FORMAT")
    monkeypatch.syspath_prepend(site)
    formats = {"a": "broken-chat", "b": "exits-chat", "c": "other-chat", "d": "absent-chat", "local": "ollama-chat"}
    reasons = {
        "a": 'providers.a.api is "broken-chat": headrace_broken 1.0 cannot be loaded: OSError: no such file: model.bin',
        "b": 'providers.b.api is "exits-chat": headrace_exits 1.0 cannot be loaded: SystemExit: 3',
        "c": 'providers.c.api is "other-chat": headrace_other 1.0: headrace_other:FORMAT is no WireFormat but object',
        "d": 'providers.d.api is "absent-chat": no installed package has this wire format',
    }
    configure(**formats)
    monkeypatch.setenv("HEADRACE_LOG", "WARNING")
    ollama.goes_on.set()
    with Client() as client:
        for name, reason in reasons.items():
            with pytest.raises(ConfigurationError) as caught:
                client.run_local(model=f"{name}/m", messages=HELLO)
            assert reason in str(caught.value)
        assert client.run_local(model="local/llama3", messages=HELLO).text == "Hello"
        assert client.run_local(model="gpt-4o", messages=HELLO).finish_reason == "stop"
    log = capfd.readouterr().err
    assert "wire format cannot be used" in log
    assert "wire format is not used" in log

    assert main(["config", "show"]) == 0
    shown = capfd.readouterr().out
    assert "ollama-chat (of headrace_ollama 1.0)" in shown
    assert "absent-chat (no installed package has this wire format)" in shown
    assert "not used: this name is a format of Headrace's own" in shown


def test_no_plug_in_is_loaded_from_the_current_directory(
    configure: Configure, ollama: OllamaServer, tmp_path: Path
) -> None:
    planted = tmp_path / "planted"
    mark = tmp_path / "was-imported"
    install(planted, "headrace_planted", f"open({str(mark)!r}, 'w')\n", "planted-chat = headrace_planted:FORMAT")
    configure(mine="planted-chat")
    program = (
        "import headrace\nheadrace.Client().run_local(model='mine/m', messages=[{'role': 'user', 'content': 'Hi'}])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=planted, capture_output=True, text=True, env=dict(os.environ), check=False
    )

    assert ended.returncode == 1
    assert 'providers.mine.api is "planted-chat": no installed package has this wire format' in ended.stderr
    assert not mark.exists()
    assert ollama.requests == []
