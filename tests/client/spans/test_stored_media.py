"""Spans keep small images and files, and a note with the size of large ones."""

from __future__ import annotations

from headrace.spans.encoded_span import request_content
from headrace.spans.stored_media import MAX_KEPT, storable_media, storable_messages
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, TextPart
from headrace.wire.run_request import RunRequest
from tests.cases import each

LONG = "A" * (MAX_KEPT + 4)
NOTE = f"(not kept: {len(LONG) * 3 // 4} bytes)"

LARGE: list[tuple[Part, Part]] = [
    (ImagePart(data=LONG, media_type="image/png"), ImagePart(data=NOTE, media_type="image/png")),
    (ImagePart(f"data:image/png;base64,{LONG}"), ImagePart(data=NOTE, media_type="image/png")),
    (AudioPart(LONG, "audio/wav", transcript="Hi"), AudioPart(NOTE, "audio/wav", transcript="Hi")),
    (FilePart("a.pdf", "application/pdf", LONG), FilePart("a.pdf", "application/pdf", NOTE)),
]


@each(("part", "kept"), LARGE)
def test_large_content_becomes_a_note_with_its_size(part: Part, kept: Part) -> None:
    asked = RunRequest(provider="p", model="m", messages=[Message("user", [TextPart("x"), part])], stream=False)

    content = request_content(asked)

    assert content.messages == [Message("user", [TextPart("x"), kept])]
    assert asked.messages[0].content[1] == part


def test_small_content_stays_as_it_is() -> None:
    messages = [
        Message("user", "hi"),
        Message("user", [ImagePart(data="QQ==", media_type="image/png"), FilePart("a.txt", text="x" * 100_000)]),
    ]

    assert storable_messages(messages) is messages


def test_the_media_of_an_answer_are_kept_without_the_providers_data() -> None:
    answer = Message("assistant", [TextPart("x"), ImagePart(data=LONG, provider_data={"api": "google"})])

    assert storable_media(answer) == [ImagePart(data=NOTE)]
    assert storable_media(Message("assistant", "x")) == []
    assert storable_media(None) == []
