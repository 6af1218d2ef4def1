"""The simulated APIs take images, audio and files as strictly as the real ones, and make some themselves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.testing import Script, SimulatedProvider
from headrace.testing.anthropic import rules as anthropic_rules
from headrace.testing.google import rules as google_rules
from headrace.testing.openai_chat import rules as chat_rules
from headrace.testing.openai_responses import rules as responses_rules
from tests.cases import each
from tests.testing.sdks import Sdk

openai = Sdk("openai")
genai = Sdk("google.genai")

JSON = dict[str, Any]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 16).decode()
SAMPLES = base64.b64encode(b"\1\2" * 50).decode()
PDF_URL = "data:application/pdf;base64,JVBERi0x"


def chat(part: JSON, **fields: Any) -> Any:
    refusal = chat_rules.refusal_of({"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}], **fields})
    return refusal and (refusal.param, refusal.message)


def responses(part: JSON) -> Any:
    refusal = responses_rules.refusal_of({"model": "gpt-5", "input": [{"role": "user", "content": [part]}]})
    return refusal and (refusal.param, refusal.message)


def anthropic(block: JSON) -> Any:
    message = {"role": "user", "content": [block]}
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [message]}
    refusal = anthropic_rules.refusal_of(body, "2023-06-01")
    return refusal and refusal.message


def google(part: JSON) -> Any:
    refusal = google_rules.refusal_of({"contents": [{"role": "user", "parts": [part]}]}, "gemini-3-pro")
    return refusal and refusal.message


def test_what_the_real_apis_take_is_taken() -> None:
    file = {"filename": "a.pdf", "file_data": PDF_URL}
    assert chat({"type": "file", "file": file}) is None
    assert chat({"type": "file", "file": {"file_id": "f"}}) is None
    assert chat({"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}}) is None
    assert responses({"type": "input_file", **file, "detail": "low"}) is None
    assert responses({"type": "input_file", "file_url": "https://x/a.pdf"}) is None
    assert responses({"type": "input_image", "file_id": "f"}) is None
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}
    assert anthropic({"type": "document", "source": pdf, "title": "a", "citations": {"enabled": True}}) is None
    assert anthropic({"type": "document", "source": {"type": "file", "file_id": "f"}}) is None
    assert google({"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}}) is None
    assert google({"inline_data": {"mime_type": "image/heic", "data": "QQ=="}}) is None


REFUSED: list[tuple[Any, JSON, str]] = [
    (chat, {"type": "file", "file": {"filename": "a"}}, "file_id"),
    (chat, {"type": "file", "file": {"file_data": PDF_URL}}, "file.filename"),
    (chat, {"type": "file", "file": {"filename": "a", "file_data": "https://x"}}, "without the data: prefix"),
    (chat, {"type": "file", "file": {"filename": "a", "file_data": "data:text/plain;base64,aGk="}}, "'text/plain'"),
    (chat, {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "flac"}}, "'flac'"),
    (chat, {"type": "input_audio", "input_audio": {"data": "no", "format": "wav"}}, "base64-encoded audio"),
    (chat, {"type": "image_url", "image_url": {"url": "data:image/heic;base64,QQ=="}}, "unsupported image"),
    (chat, {"type": "audio_url", "audio_url": {"url": "https://x"}}, "audio_url"),
    (responses, {"type": "input_file", "file_url": "https://x", "file_id": "f"}, "Exactly one of"),
    (responses, {"type": "input_file", "file_data": PDF_URL}, "filename"),
    (responses, {"type": "input_file", "filename": "a", "file_data": "JVBERi0x"}, "data URL"),
    (responses, {"type": "input_image", "detail": "auto"}, "image_url"),
    (responses, {"type": "input_image", "image_url": "data:image/bmp;base64,QQ=="}, "does not represent a valid image"),
    (responses, {"type": "input_audio", "input_audio": {}}, "input_audio"),
    (anthropic, {"type": "document", "source": {"type": "base64", "media_type": "text/csv", "data": "QQ=="}}, "'application/pdf'"),
    (anthropic, {"type": "document", "source": {"type": "text", "media_type": "text/csv", "data": "x"}}, "'text/plain'"),
    (anthropic, {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": " "}}, "non-whitespace"),
    (anthropic, {"type": "document", "source": {"type": "url", "url": "x"}, "name": "a"}, "Extra inputs"),
    (anthropic, {"type": "image", "source": {"type": "base64", "media_type": "image/heic", "data": "QQ=="}}, "'image/webp'"),
    (anthropic, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}, "Invalid base64"),
    (anthropic, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 6_000_000}}, "5 MB"),
    (google, {"inlineData": {"mimeType": "image/gif", "data": "QQ=="}}, "Unsupported MIME type: image/gif"),
    (google, {"inlineData": {"mimeType": "png", "data": "QQ=="}}, "Unsupported MIME type"),
]  # fmt: skip


@each(("check", "part", "words"), REFUSED)
def test_what_the_real_apis_refuse_is_refused(check: Any, part: JSON, words: str) -> None:
    assert words in str(check(part))


def test_audio_is_made_only_with_a_voice_and_streamed_only_as_samples() -> None:
    text = {"type": "text", "text": "hi"}
    voice = {"voice": "alloy", "format": "wav"}
    assert "'audio' is required" in str(chat(text, modalities=["text", "audio"]))
    assert "'pcm16'" in str(chat(text, modalities=["text", "audio"], audio=voice, stream=True))
    assert chat(text, modalities=["text", "audio"], audio=voice) is None


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


def test_the_official_client_of_openai_reads_audio_and_images(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(text="Hello there.", audio=SAMPLES), Script(text="Here.", images=[PNG]))
    with openai.OpenAI(base_url=provider.base_url, api_key=provider.api_key, max_retries=0) as client:
        ask = [{"role": "user", "content": "hi"}]
        message = client.chat.completions.create(model="gpt-4o", messages=ask).choices[0].message
        assert (message.content, message.audio.transcript, message.audio.data) == (None, "Hello there.", SAMPLES)
        items = client.responses.create(model="gpt-5", input="hi").output
        assert [item.result for item in items if item.type == "image_generation_call"] == [PNG]


def test_the_official_client_of_google_reads_images(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.enqueue(Script(text="Here.", images=[PNG]))
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    with genai.Client() as client:
        (candidate,) = client.models.generate_content(model="gemini-3-pro", contents="hi").candidates
    blobs = [part.inline_data for part in candidate.content.parts if part.inline_data]
    assert [(blob.mime_type, blob.data) for blob in blobs] == [("image/png", base64.b64decode(PNG))]
