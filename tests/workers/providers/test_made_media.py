"""Images, audio and files that a model made are in the message of its answer, and go back where the API takes them."""

from __future__ import annotations

import base64
from typing import Any

from headrace.types import AudioPart, FilePart, ImagePart, Message, TextPart
from headrace_workers.providers.shared.wire_format import Completion
from tests.workers.providers.test_extra_keys import body_of
from tests.workers.providers.test_server_tools import HI, JSON, play, whole

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 16).decode()
WAV = base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 8).decode()


def message_of(completion: Completion) -> Message:
    assert completion.message is not None
    return completion.message


def chat_stream(*deltas: JSON) -> list[JSON]:
    chunks: list[JSON] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return [*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]


def test_audio_of_openai_is_kept_with_its_words_as_text() -> None:
    audio = {"id": "audio_1", "data": WAV, "expires_at": 1729018505, "transcript": "Hello there."}
    body = {"choices": [{"index": 0, "message": {"content": None, "audio": audio}, "finish_reason": "stop"}]}

    message = message_of(whole("openai-chat", body))

    kept = {"api": "openai-chat", "audio": {"id": "audio_1", "expires_at": 1729018505}}
    assert message.text == "Hello there."
    assert message.audio == [AudioPart(WAV, "audio/wav", transcript="Hello there.", provider_data=kept)]
    assert body_of("openai", HI, message, HI)["messages"][1]["audio"] == {"id": "audio_1"}


def test_streamed_audio_is_put_together() -> None:
    pieces = [base64.b64encode(piece).decode() for piece in (b"ab", b"cde", b"f")]
    deltas: list[JSON] = [{"audio": {"id": "audio_1", "transcript": "Hel"}}]
    deltas += [{"audio": {"data": piece}} for piece in pieces]
    deltas += [{"audio": {"transcript": "lo"}}, {"audio": {"expires_at": 5}}]

    message = message_of(play("openai-chat", *chat_stream(*deltas)))

    assert message.text == "Hello"
    assert message.audio[0].to_bytes() == b"abcdef"
    assert message.audio[0].media_type == "audio/pcm;rate=24000"
    assert message.audio[0].transcript == "Hello"


def test_images_of_openrouter_are_kept_streamed_or_whole() -> None:
    images = [{"type": "image_url", "index": 0, "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    body = {"choices": [{"index": 0, "message": {"content": "", "images": images}, "finish_reason": "stop"}]}

    for completion in (
        whole("openai-chat", body),
        play("openai-chat", *chat_stream({"content": "Here."}, {"content": "", "images": images})),
    ):
        message = message_of(completion)
        assert message.images == [ImagePart(data=PNG, media_type="image/png")]
        assert body_of("openrouter", HI, message, HI)["messages"][1]["images"][0]["image_url"] == images[0]["image_url"]


def test_an_image_among_the_parts_of_the_content_is_kept() -> None:
    content = [{"type": "text", "text": "Here."}, {"type": "image_url", "image_url": {"url": "https://x/a.png"}}]
    body = {"choices": [{"index": 0, "message": {"content": content}, "finish_reason": "stop"}]}

    for completion in (whole("openai-chat", body), play("openai-chat", *chat_stream({"content": content}))):
        assert completion.message == Message("assistant", [TextPart("Here."), ImagePart("https://x/a.png")])


def test_an_image_of_openai_responses_is_kept_once_and_goes_back_whole() -> None:
    item: JSON = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "output_format": "png",
        "result": PNG,
    }
    said: JSON = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Here."}]}
    response = {"status": "completed", "output": [item, said]}

    message = message_of(play("openai-responses", {"type": "response.completed", "response": response}))

    assert message.text == "Here."
    assert message.images[0].data == PNG
    assert PNG not in str(message.images[0].provider_data)
    assert body_of("openai-responses", HI, message, HI)["input"][1] == item
    assert message_of(whole("openai-responses", response)).images == message.images


def test_a_failed_image_of_openai_is_kept_as_the_item_that_it_is() -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None}

    message = message_of(whole("openai-responses", {"status": "completed", "output": [item]}))

    assert message.images == []
    assert body_of("openai-responses", HI, message, HI)["input"][1] == item


def google(*parts: JSON) -> Completion:
    events: list[JSON] = [{"candidates": [{"index": 0, "content": {"parts": [part]}}]} for part in parts]
    return play("google", *events, {"candidates": [{"index": 0, "finishReason": "STOP"}]})


def test_speech_of_google_that_came_in_pieces_is_one_recording() -> None:
    kind = "audio/L16;codec=pcm;rate=24000"
    pieces = [{"inlineData": {"mimeType": kind, "data": base64.b64encode(piece).decode()}} for piece in (b"ab", b"cd")]

    message = message_of(google(*pieces))

    assert [part.to_bytes() for part in message.audio] == [b"abcd"]
    assert message.audio[0].media_type == kind


def test_images_and_files_of_google_keep_their_order_and_signature() -> None:
    parts: list[JSON] = [
        {"text": "A cat:"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}, "thoughtSignature": "s"},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/f"}},
    ]

    message = message_of(google(*parts))

    signed = {"api": "google", "thoughtSignature": "s"}
    assert message.content == [
        TextPart("A cat:"),
        ImagePart(data=PNG, media_type="image/png", provider_data=signed),
        FilePart(media_type="application/pdf", url="https://x/f"),
    ]
    assert body_of("google", HI, message, HI)["contents"][1]["parts"] == parts


def test_files_that_code_wrote_at_anthropic_are_references() -> None:
    result: JSON = {
        "type": "bash_code_execution_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": {
            "type": "bash_code_execution_result",
            "stdout": "",
            "content": [{"type": "bash_code_execution_output", "file_id": "file_1"}],
        },
    }
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "bash_code_execution", "input": {"command": "plot"}}
    body = {"content": [use, result, {"type": "text", "text": "Done."}], "stop_reason": "end_turn", "role": "assistant"}

    message = message_of(whole("anthropic", body | {"type": "message", "usage": {"output_tokens": 1}}))

    assert [part.file_id for part in message.files] == ["file_1"]
    assert body_of("anthropic", HI, message, HI)["messages"][1]["content"] == [use, result, _text("Done.")]


def test_files_that_code_wrote_at_openai_are_references() -> None:
    cited = {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_1", "filename": "plot.png"}
    part = {"type": "output_text", "text": "Done.", "annotations": [cited, cited]}
    item: JSON = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}

    message = message_of(whole("openai-responses", {"status": "completed", "output": [item]}))

    kept = {"api": "openai-responses", "container_id": "cntr_1"}
    assert message.files == [FilePart("plot.png", file_id="cfile_1", provider_data=kept)]
    assert body_of("openai-responses", HI, message, HI)["input"][1] == item


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}
