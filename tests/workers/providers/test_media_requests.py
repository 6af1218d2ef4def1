"""Images, audio and files in requests: each format sends what its API takes, and refuses the rest with its place."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, TextPart, ToolCallPart
from tests.cases import case, each
from tests.workers.providers.test_extra_keys import PROVIDERS, body_of, refused, user

JSON = dict[str, Any]
PDF = FilePart("a.pdf", "application/pdf", "JVBERi0x")
TEXT = FilePart("a.txt", "text/plain", text="hi")
WAV = AudioPart("QQ==", "audio/wav")
PNG = ImagePart(data="QQ==", media_type="image/png")
IN_TAGS = '<file name="a.txt">\nhi\n</file>'
HI = Message("user", "hi")


def sent(provider: str, *parts: Part) -> list[JSON]:
    """Return the parts of the user's message, as they are sent."""
    body = body_of(provider, user(*parts))
    if "contents" in body:
        return list(body["contents"][0]["parts"])
    content = (body.get("messages") or body["input"])[0]["content"]
    return [{"text": content}] if isinstance(content, str) else list(content)


SENT: list[tuple[str, Part, JSON]] = [
    (
        "openai",
        PDF,
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}},
    ),
    ("openai", FilePart(file_id="f"), {"type": "file", "file": {"file_id": "f"}}),
    ("openai", WAV, {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}),
    ("openrouter", AudioPart("QQ==", "audio/flac"), {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "flac"}}),
    ("openrouter", AudioPart(url="https://x/a.mp3"), {"type": "audio_url", "audio_url": {"url": "https://x/a.mp3"}}),
    ("openrouter", FilePart(url="https://x/a.pdf"), {"type": "file", "file": {"filename": "file", "file_data": "https://x/a.pdf"}}),
    ("openai", TEXT, {"type": "text", "text": IN_TAGS}),
    (
        "openai-responses",
        PDF,
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"},
    ),
    ("openai-responses", FilePart(url="https://x/a.pdf"), {"type": "input_file", "file_url": "https://x/a.pdf"}),
    ("openai-responses", FilePart(file_id="f", extra={"detail": "low"}), {"type": "input_file", "file_id": "f", "detail": "low"}),
    ("openai-responses", TEXT, {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}),
    ("openai-responses", ImagePart(file_id="f"), {"type": "input_image", "detail": "auto", "file_id": "f"}),
    (
        "anthropic",
        PDF,
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"},
            "title": "a.pdf",
        },
    ),
    (
        "anthropic",
        FilePart(text="hi", extra={"citations": {"enabled": True}}),
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
            "citations": {"enabled": True},
        },
    ),
    ("anthropic", FilePart(url="https://x/a.pdf"), {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}}),
    ("anthropic", FilePart(file_id="f"), {"type": "document", "source": {"type": "file", "file_id": "f"}}),
    ("anthropic", ImagePart(file_id="f"), {"type": "image", "source": {"type": "file", "file_id": "f"}}),
    ("google", PDF, {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0x"}}),
    ("google", WAV, {"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}}),
    ("google", TEXT, {"text": IN_TAGS}),
    (
        "google",
        FilePart(url="https://x/v1/files/a", media_type="video/mp4"),
        {"fileData": {"fileUri": "https://x/v1/files/a", "mimeType": "video/mp4"}},
    ),
    ("google", AudioPart(url="gs://x/a.mp3"), {"fileData": {"fileUri": "gs://x/a.mp3", "mimeType": "audio/mp3"}}),
]  # fmt: skip


@each(("provider", "part", "form"), SENT)
def test_each_api_gets_its_own_form(provider: str, part: Part, form: JSON) -> None:
    assert sent(provider, TextPart("see"), part)[1] == form


def test_a_compatible_server_of_responses_gets_text_files_as_text() -> None:
    assert sent("litellm", TextPart("see"), TEXT)[1] == {"type": "input_text", "text": IN_TAGS}


REFUSED: list[tuple[str, Part, str, str]] = [
    ("openai", FilePart("a.docx", "application/msword", "QQ=="), ".media_type", "files of the types application/pdf"),
    ("openai", FilePart(url="https://x/a.pdf"), ".url", "no address of a file: give its data, or use OpenAI Responses"),
    ("openai", AudioPart("QQ==", "audio/flac"), ".media_type", "audio as wav or mp3, not audio/flac"),
    ("openai", AudioPart(url="https://x/a.mp3"), ".url", "no address of audio"),
    ("openai", ImagePart(file_id="f"), ".file_id", "images by url or data only"),
    ("openai", ImagePart(data="QQ==", media_type="image/heic"), ".media_type", "not image/heic"),
    ("openai", ImagePart("data:image/heic;base64,QQ=="), ".media_type", "not image/heic"),
    ("openai-responses", WAV, "", "takes no audio: use Chat Completions"),
    ("anthropic", WAV, "", "takes no audio"),
    ("anthropic", FilePart("a.docx", "application/msword", "QQ=="), ".media_type", "not application/msword"),
    ("anthropic", ImagePart(data="QQ==", media_type="image/heic"), ".media_type", "image/gif, image/jpeg, image/png"),
    ("anthropic", ImagePart(data="A" * (6 * 2**20), media_type="image/png"), "", "at most 5 MiB, not 6.0 MiB"),
    ("google", FilePart(file_id="f"), ".file_id", "give it as url"),
    ("google", ImagePart(data="QQ==", media_type="image/gif"), ".media_type", "not image/gif"),
    ("anthropic", FilePart(text="x", extra={"cittations": 1}), ".cittations", "did you mean citations"),
]


@each(("provider", "part", "place", "words"), REFUSED)
def test_what_an_api_does_not_take_is_refused_with_its_place(provider: str, part: Part, place: str, words: str) -> None:
    where, reason = refused(provider, user(TextPart("see"), part))

    assert where == f"messages[0].content[1]{place}"
    assert words in reason


def test_a_system_message_and_an_answer_hold_no_files() -> None:
    for provider in ("openai", "openai-responses", "anthropic", "google"):
        for message in (Message("system", [PDF]), Message("assistant", [PDF])):
            if provider == "google" and message.role == "assistant":
                continue  # Google takes files in its model's turns
            with case(provider, message.role):
                where, _ = refused(provider, message, HI)
                assert where == "messages[0].content[0]"


def test_a_request_that_anthropic_refuses_for_its_size_is_not_sent() -> None:
    large = FilePart("a.pdf", "application/pdf", "A" * (33 * 2**20))

    where, reason = refused("anthropic", user(large))

    assert where == "messages"
    assert "33.0 MiB, and Anthropic takes 32 MiB" in reason


def results(provider: str, *parts: Part) -> Any:
    call = Message("assistant", [ToolCallPart("c1", "look", {})])
    body = body_of(provider, HI, call, Message("tool", list(parts), "c1"))
    return (body.get("messages") or body.get("input") or body.get("contents"))[-1]


def test_the_result_of_a_tool_holds_images_and_files_where_the_api_takes_them() -> None:
    text = TextPart("a photo")
    inline = [{"inlineData": {"mimeType": "image/png", "data": "QQ=="}}]
    google = results("google", text, PNG)["parts"][0]["functionResponse"]
    assert google == {"name": "look", "response": {"result": "a photo"}, "parts": inline}
    assert results("google", PNG)["parts"][0]["functionResponse"]["response"] == {}
    assert [block["type"] for block in results("anthropic", text, PNG, PDF)["content"][0]["content"]] == [
        "text",
        "image",
        "document",
    ]
    output = results("openai-responses", text, PNG, PDF)["output"]
    assert [part["type"] for part in output] == ["input_text", "input_image", "input_file"]


def test_a_text_file_is_text_in_the_result_of_a_tool() -> None:
    assert results("openai", TextPart("see "), TEXT)["content"] == f"see {IN_TAGS}"
    assert results("google", TEXT)["parts"][0]["functionResponse"] == {"name": "look", "response": {"result": IN_TAGS}}
    assert body_of("openai", Message("system", [TEXT]), HI)["messages"][0]["content"] == IN_TAGS
    assert body_of("google", Message("system", [TEXT]), HI)["systemInstruction"]["parts"] == [{"text": IN_TAGS}]


def test_the_result_of_a_tool_holds_no_media_where_the_api_takes_none() -> None:
    call = Message("assistant", [ToolCallPart("c1", "look", {})])
    answer = Message("tool", [TextPart("x"), PNG], "c1")
    assert refused("openai", HI, call, answer)[0] == "messages[2].content[1]"
    assert refused("google", HI, call, Message("tool", [WAV], "c1"))[0] == "messages[2].content[0]"


def test_a_gemini_before_3_takes_no_images_in_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "google", (*PROVIDERS["google"][:2], "gemini-2.5-pro"))
    call = Message("assistant", [ToolCallPart("c1", "look", {})])

    where, reason = refused("google", HI, call, Message("tool", [PNG], "c1"))

    assert where == "messages[2].content[0]"
    assert reason == "a tool's result cannot hold an image before Gemini 3: return text"


SPOKEN = AudioPart(
    "QQ==", "audio/wav", transcript="Hello.", provider_data={"api": "openai-chat", "audio": {"id": "audio_1"}}
)


def test_audio_of_a_model_goes_back_by_its_id_or_as_its_words() -> None:
    answer = Message("assistant", [TextPart("Hello."), SPOKEN])

    assert body_of("openai", answer, HI)["messages"][0] == {
        "role": "assistant",
        "content": None,
        "audio": {"id": "audio_1"},
    }
    assert body_of("anthropic", HI, answer, HI)["messages"][1]["content"] == "Hello."
    assert body_of("openai-responses", answer, HI)["input"][0]["content"] == "Hello."
    assert body_of("google", HI, answer, HI)["contents"][1]["parts"] == [{"text": "Hello."}]


def test_audio_without_words_is_refused_where_the_api_does_not_take_it() -> None:
    for provider in ("openai", "openai-responses", "anthropic"):
        assert refused(provider, HI, Message("assistant", [TextPart("x"), WAV]), HI)[0] == "messages[1].content[1]"


def test_the_reference_to_a_file_that_a_model_made_stays_behind() -> None:
    made = FilePart("plot.png", file_id="cfile_1", provider_data={"api": "openai-responses", "container_id": "c"})
    answer = Message("assistant", [TextPart("Done."), made])

    for provider in ("openai", "openai-responses", "anthropic", "google"):
        with case(provider):
            assert "cfile_1" not in str(body_of(provider, HI, answer, HI))


def test_images_of_a_model_go_back_to_servers_that_make_them() -> None:
    answer = Message("assistant", [TextPart("here"), PNG])

    message = body_of("openrouter", answer, HI)["messages"][0]

    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]
    assert refused("openai", answer, HI) == (
        "messages[0].content[1]",
        "a message with role assistant cannot hold an image: put it into a message with role user",
    )
