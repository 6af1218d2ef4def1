"""Streams that last as long as a test needs them."""

from __future__ import annotations

from headrace import Client, LocalStream
from tests.conftest import HELLO, simulate


def start(client: Client, **script: object) -> LocalStream:
    """Start a stream. ``script`` says what the provider does, in place of 100,000 chunks with a pace of 0.01 s."""
    return client.run_local(
        model="gpt-4o",
        messages=HELLO,
        stream=True,
        custom_options=simulate(**({"repeat": 100_000, "pace": 0.01} | script)),
    )
