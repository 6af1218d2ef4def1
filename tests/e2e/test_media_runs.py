"""Images, audio and files through real processes: each provider is sent its own form, and what models make comes back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from headrace import AudioPart, Client, FilePart, ImagePart, InvalidRequestError, Message
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.provider_runs import PROVIDERS, last_body, run

STREAMED = "sync streamed"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 300_000).decode()
WAV = base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 999).decode()
SAMPLES = base64.b64encode(b"\1\2" * 500).decode()
PDF = FilePart.from_file(b"%PDF-1.7\n", name="report.pdf")
TEXT = FilePart.from_file(b"a,b\n1,2", name="rows.csv")
SPEECH: dict[str, Any] = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}


@pytest.mark.parametrize("name", PROVIDERS)
def test_images_and_files_are_taken_by_each_provider(client: Client, provider: SimulatedProvider, name: str) -> None:
    content = [{"type": "text", "text": "What is in these?"}, ImagePart(data=PNG, media_type="image/png"), PDF, TEXT]

    result = run(client, name, [{"role": "user", "content": content}], STREAMED, {"text": "A report."})

    assert result.text == "A report."
    assert PNG in json.dumps(last_body(provider))
    assert "report.pdf" in json.dumps(last_body(provider)) or name == "google"


@pytest.mark.parametrize("name", ["openai", "google"])
def test_audio_is_taken_by_the_providers_that_hear(client: Client, name: str) -> None:
    heard = Message("user", [AudioPart(WAV, "audio/wav")])

    assert run(client, name, [heard], "sync", {"text": "Hello."}).text == "Hello."


def test_audio_is_refused_before_it_is_sent_where_the_provider_does_not_hear(client: Client) -> None:
    for name in ("openai-responses", "anthropic"):
        with pytest.raises(InvalidRequestError, match="takes no audio") as caught:
            run(client, name, [Message("user", [AudioPart(WAV, "audio/wav")])], "sync", {"text": "x"})
        assert caught.value.argument == "messages[0].content[0]"


def test_what_the_caller_wrote_is_named_in_the_callers_words(client: Client) -> None:
    part = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "flac"}}
    with pytest.raises(InvalidRequestError, match="wav or mp3") as caught:
        client.run_local(model="openai-chat/gpt-4o", messages=[{"role": "user", "content": [part]}])
    assert caught.value.argument == "messages[0].content[0].input_audio.format"


@pytest.mark.parametrize("way", ["sync", STREAMED])
@pytest.mark.parametrize("name", ["openai-responses", "google"])
def test_an_image_that_a_model_made_comes_back_and_goes_on_with_the_conversation(
    client: Client, provider: SimulatedProvider, name: str, way: str
) -> None:
    result = run(client, name, HELLO, way, {"text": "Here it is.", "images": [PNG]})

    assert result.text == "Here it is."
    assert [(image.media_type, image.data == PNG) for image in result.images] == [("image/png", True)]

    history = Message.from_dict(json.loads(json.dumps(result.message.to_dict())))
    assert run(client, name, [*HELLO, history, *HELLO], way, {"text": "Yes."}).text == "Yes."
    assert PNG in json.dumps(last_body(provider))


@pytest.mark.parametrize("way", ["sync", STREAMED])
def test_audio_that_openai_made_comes_back_with_its_words(
    client: Client, provider: SimulatedProvider, way: str
) -> None:
    script = {"text": "Good morning.", "audio": SAMPLES}
    options = SPEECH if way == STREAMED else SPEECH | {"audio": {"voice": "alloy", "format": "wav"}}

    result = client_run(client, way, script, options)

    assert result.text == "Good morning."
    assert result.audio[0].data == SAMPLES
    assert result.audio[0].media_type == ("audio/pcm;rate=24000" if way == STREAMED else "audio/wav")
    run(client, "openai", [*HELLO, result.message, *HELLO], way, {"text": "Yes."})
    assert set(last_body(provider)["messages"][1]["audio"]) == {"id"}
    assert run(client, "anthropic", [*HELLO, result.message, *HELLO], way, {"text": "Yes."}).text == "Yes."


def client_run(client: Client, way: str, script: dict[str, Any], options: dict[str, Any]) -> Any:
    said: dict[str, Any] = {"model": "gpt-4o", "provider": "openai", "messages": HELLO}
    said["custom_options"] = {"simulate": script, **options}
    return client.run_local(**said) if way == "sync" else client.run_local(**said, stream=True).result.result()


@pytest.mark.parametrize("way", ["sync", STREAMED])
def test_speech_of_google_is_one_recording(client: Client, way: str) -> None:
    result = run(client, "google", HELLO, way, {"text": "", "audio": SAMPLES})

    assert result.text == ""
    assert [part.data for part in result.audio] == [SAMPLES]


@pytest.mark.parametrize("way", ["sync", STREAMED])
def test_images_of_a_compatible_server_come_back(client: Client, way: str) -> None:
    result = run(client, "openai", HELLO, way, {"text": "Here.", "images": [PNG]})

    assert (result.text, [image.data == PNG for image in result.images]) == ("Here.", [True])


def test_megabytes_of_images_come_through(client: Client) -> None:
    """12 MB of images, in one answer that is sent twice: as its items, and whole at the end."""
    large = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(4_000_000)).decode()

    result = run(client, "openai-responses", HELLO, STREAMED, {"text": "Three.", "images": [large] * 2})

    assert [len(image.data or "") for image in result.images] == [len(large)] * 2
