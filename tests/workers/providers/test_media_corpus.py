"""Recorded requests with images and documents: Headrace sends what their clients sent. Recorded images are in results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.arguments.conversation import read_messages
from tests.workers import corpus
from tests.workers.providers.test_extra_keys import body_of
from tests.workers.providers.test_server_tools import play

pytestmark = corpus.needs_recordings

SENT = {
    "anthropic-messages--anthropic--cite--012791": ("anthropic", "messages"),
    "openai-responses--openrouter--text--74e5d2": ("litellm", "input"),
}


def recorded_request(name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((corpus.WIRE / name / "request.json").read_text())["body"]
    return said


@pytest.mark.parametrize(("name", "provider", "key"), [(name, *facts) for name, facts in SENT.items()])
def test_the_parts_of_a_recorded_request_are_sent_as_they_were(name: str, provider: str, key: str) -> None:
    said = recorded_request(name)[key]

    sent = body_of(provider, *read_messages(said, {}))[key]

    content = sent[0]["content"]
    for part in content:
        if part["type"] == "input_image":
            assert part.pop("detail") == "auto"  # Headrace writes the default
    assert content == said[0]["content"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai-responses--openai--text--a2f197", "image/webp"),
        ("openai-responses--xai--text--71a8f0", "image/png"),
    ],
)
def test_a_recorded_image_is_in_the_result(name: str, kind: str) -> None:
    completion = play("openai-responses", *events_of(corpus.load(name).body))

    assert completion.message is not None
    assert [image.media_type for image in completion.message.images] == [kind]
    assert all(image.data for image in completion.message.images)


def events_of(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]
