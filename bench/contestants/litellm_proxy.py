"""The LiteLLM proxy with one worker process, read by the floor's client, which adds the least. Runs in ``.venv-litellm``."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.contestants import floor
from bench.contestants.common import API_KEY, BASE_URL, run_async
from bench.works import MODEL

_STARTED_WITHIN = 90.0
"""Seconds: LiteLLM imports much."""


def main() -> None:
    """Start the proxy, be the contestant, and end the proxy."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-litellm-") as folder:
        settings = Path(folder) / "litellm.yaml"  # JSON is YAML
        key = f"sk-{secrets.token_hex(32)}"  # without a strong key of its own, the proxy does not start
        model = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}
        models = [{"model_name": MODEL, "litellm_params": model}]
        settings.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": key}}))
        port = _free_port()
        program = Path(sys.executable).with_name("litellm")
        command = [sys.executable, str(program), "--config", str(settings), "--host", "127.0.0.1", "--port", str(port)]
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as proxy,
        ):
            try:
                _wait_for(proxy, port, Path(folder) / "log")
                run_async(lambda: floor.Floor(f"http://127.0.0.1:{port}/v1", key))
            finally:
                proxy.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(proxy: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while time.monotonic() < deadline and proxy.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"LiteLLM's proxy did not start: {' | '.join(log.read_text().splitlines()[-3:])}")


if __name__ == "__main__":
    main()
