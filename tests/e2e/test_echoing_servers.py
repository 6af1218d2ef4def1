"""A server, or a proxy, that writes the key or the proxy's password into everything that it says.

Nothing of it is left anywhere.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import secrets
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from headrace import Client, HeadraceError
from headrace.process.history import VARIABLE
from headrace.testing import SimulatedProvider
from tests.e2e.engines import running_engine
from tests.faults.artefacts import files, found_in
from tests.faults.commands import headrace
from tests.faults.span_sets import wait_for_all

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: KEY\r\nConnection: close\r\n\r\n"
STREAM = HEAD.replace("application/json", "text/event-stream")
CALL = {"index": 0, "id": "KEY", "type": "KEY", "function": {"name": "KEY", "arguments": "{}"}}
CHUNK = {"id": "KEY", "object": "KEY", "model": "KEY", "system_fingerprint": "KEY", "service_tier": "KEY"}
ANSWER = {
    **CHUNK,
    "choices": [{"message": {"role": "assistant", "content": "yes", "tool_calls": [CALL]}, "finish_reason": "KEY"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "KEY": 1},
}
DELTAS = [
    {**CHUNK, "choices": [{"delta": {"content": "yes", "tool_calls": [CALL]}}]},
    {**CHUNK, "choices": [{"delta": {}, "finish_reason": "KEY"}]},
]
ERROR = json.dumps({"error": {"message": "no such key: KEY", "type": "KEY", "code": "KEY", "param": "KEY"}})
EVENTS = "".join(f"data: {json.dumps(delta)}\n\n" for delta in DELTAS)
SAYS = {
    "whole": HEAD + json.dumps(ANSWER),
    "stream": f"{STREAM}{EVENTS}data: [DONE]\n\n",
    "named-events": f"{STREAM}event: KEY\nid: KEY\n: KEY\n{EVENTS}data: [DONE]\n\n",
    "cut": STREAM + EVENTS[:-40],
    "error-in-stream": f"{STREAM}data: {ERROR}\n\n",
    "garbage-in-stream": f"{STREAM}data: KEY\n\n",
    "no-json": HEAD + "KEY",
    "html": HEAD + "<html><title>KEY</title>",
    "error-400": HEAD.replace("200 OK", "400 KEY") + ERROR,
    "error-401": HEAD.replace("200 OK", "401 KEY") + ERROR,
    "error-404": HEAD.replace("200 OK", "404 KEY") + "KEY",
    "redirect": HEAD.replace("200 OK", "302 KEY").replace("X-Request-Id", "Location: http://KEY/KEY\r\nX-Request-Id"),
    "early-hints": "HTTP/1.1 103 KEY\r\nLink: KEY\r\n\r\n" + HEAD + json.dumps(ANSWER),
    "no-http": "KEY\r\n\r\n",
    "bad-status": "HTTP/1.1 KEY KEY\r\n\r\n",
    "bad-header": "HTTP/1.1 200 OK\r\nKEY\r\n\r\n",
    "bad-length": "HTTP/1.1 200 OK\r\nContent-Length: KEY\r\n\r\n",
    "bad-chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nKEY\r\nKEY\r\n",
    "bad-encoding": "HTTP/1.1 200 OK\r\nContent-Encoding: KEY\r\nContent-Length: 3\r\n\r\nKEY",
    "bad-transfer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: KEY\r\n\r\nKEY",
}
"""By the model that is asked for. KEY stands for the key, as the caller of this file spells it."""
PIECE = 12
CONFIG = """
[providers.ours]
api = "openai-chat"
base_url = "http://127.0.0.1:{port}/v1"
api_key_env = "OUR_PROVIDER"

[providers.proxied]
api = "openai-chat"
base_url = "http://provider.test/v1?key={in_query}"
api_key_env = "OUR_PROVIDER"

[spans]
redact = "chatty_hook:redact"
"""
HOOK = """
import logging, os, sys

def redact(content):
    print("hook of", os.environ["OUR_PROVIDER"], flush=True)
    logging.getLogger("hook").warning("the key is %s", os.environ["OUR_PROVIDER"])
    raise RuntimeError(os.environ["OUR_PROVIDER"][:-1])
"""
TAKEN: dict[str, Callable[[str], str]] = {
    "whole key": lambda key: key,
    "less a letter": lambda key: key[:-1],
    "encoded": lambda key: quote(key, safe="").replace("-", "%2D"),
}


class Echo(socketserver.ThreadingTCPServer):
    """Answers as :data:`SAYS` has it, with the secrets of each request."""

    daemon_threads = True
    allow_reuse_address = True
    spelling = "whole key"

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (line := self.rfile.readline()):
                return
            head += line
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = self.rfile.read(int(length[1])) if length else b"{}"
        assert isinstance(self.server, Echo)
        self.wfile.write(reply(head.decode(), json.loads(body).get("model", ""), self.server.spelling).encode())


def reply(head: str, model: str, spelling: str) -> str:
    """Return what is said to a request, with all that is secret in it."""
    key = re.search(r"authorization: bearer (\S+)", head, re.IGNORECASE)
    login = re.search(r"proxy-authorization: basic (\S+)", head, re.IGNORECASE)
    query = re.search(r"key=([^ &]+) HTTP", head)
    secret = [TAKEN[spelling](key[1])] if key else []
    if login:
        password = base64.b64decode(login[1]).decode().partition(":")[2]
        secret += [TAKEN[spelling](password), login[1]]
    secret += [TAKEN[spelling](query[1])] if query else []
    return SAYS[model].replace("KEY", "/".join(secret))


@contextmanager
def echoing() -> Iterator[Echo]:
    with Echo(("127.0.0.1", 0), EchoHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.mark.timeout(120)
def test_no_secret_that_is_echoed_is_left_anywhere(
    session_provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, own, password, in_query = (f"sk-{secrets.token_hex(20)}" for _ in range(4))
    settings = tmp_path / "settings"
    for folder in (settings, tmp_path / "history"):
        folder.mkdir()
    found: dict[str, bytes] = {}
    ids: list[str] = []
    with echoing() as server:
        (settings / "headrace.toml").write_text(CONFIG.format(port=server.port, in_query=in_query))
        (settings / "chatty_hook.py").write_text(HOOK)
        for name, value in {
            "HEADRACE_CONFIG": f"{settings}/headrace.toml",
            "HEADRACE_DATA": f"{tmp_path}/data",
            "HEADRACE_LOG": "DEBUG",
            VARIABLE: f"{tmp_path}/history",
            "OUR_PROVIDER": key,
            "http_proxy": f"http://me:{password}@127.0.0.1:{server.port}",
            "no_proxy": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(settings), prepend=os.pathsep)
        logged = ["sh", "-c", 'exec "$@" > "$0" 2>&1', str(tmp_path / "engine.log")]
        with running_engine(session_provider, "--workers", "1", wrapper=logged) as address:
            with Client(address, connect_timeout=30.0) as client:
                for spelling in TAKEN:
                    server.spelling = spelling
                    ids += run_all(client, own, spelling, found)
                client.flush(10)
                wait_for_all(tmp_path / "data", ids)
            for command in (("status", "--json"), ("status",)):
                found[" ".join(command)] = headrace(*command, "--engine", address).stdout.encode()
            found["spans"] = headrace("spans", "export", "--data", tmp_path / "data").stdout.encode()
            found |= {f"{name}, meanwhile": data for name, data in files(tmp_path / "data").items()}
    found |= files(tmp_path / "data", tmp_path / "history", tmp_path / "engine.log")
    spelt = [secret.replace("-", "%2D") for secret in (key, own, password, in_query)]
    login = base64.b64encode(f"me:{password}".encode()).decode()
    pieces = [secret[:PIECE] for secret in (key, own, password, in_query, login, *spelt)]
    pieces += [secret[-PIECE - 1 : -1] for secret in (key, own, password, in_query)]

    assert found_in(found, pieces) == []
    # What was looked through is what there was: the marks stand where the secrets stood.
    assert b"hook of [key]" in found[str(tmp_path / "engine.log")]
    assert b"the key is [key]" in found[str(tmp_path / "engine.log")]
    assert found["spans"].count(b"no such key: [key]") >= len(TAKEN)
    assert found["spans"].count(b"\n") >= len(ids)


def run_all(client: Client, own: str, spelling: str, found: dict[str, bytes]) -> list[str]:
    """Ask for each answer in each way; note what the caller is told; return the ids of the runs."""
    asked = []
    for provider in ("ours", "proxied"):
        for number, model in enumerate(SAYS):
            given = own if number % 2 else None
            stream = client.run_local(
                model=model,
                provider=provider,
                messages=[{"role": "user", "content": "Hello"}],
                provider_api_key=given,
                stream=True,
                timeout_ms=20_000,
            )
            asked.append((f"{provider}/{model}, {spelling}", stream))
    for name, stream in asked:
        try:
            events = list(stream.events())
            found[f"result of {name}"] = f"{events!r} {stream.result.result(30)!r}".encode()
        except HeadraceError as error:
            found[f"error of {name}"] = f"{error} {error!r}".encode() + pickle.dumps(error)
    return [stream.span_id for _, stream in asked]
