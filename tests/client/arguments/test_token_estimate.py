"""What is promised of the estimate of a request's tokens: it is about right for text, and media count by their number."""

from __future__ import annotations

from headrace.arguments.token_estimate import TOKENS_OF_MEDIA, input_tokens
from headrace.types import ImagePart, Message, TextPart
from headrace.wire.codec import encode_request
from headrace.wire.run_request import RunRequest


def estimate(*messages: Message) -> int:
    request = RunRequest(provider="openai", model="gpt-4o", messages=list(messages), stream=True)
    return input_tokens(request, encode_request(request))


def test_text_counts_by_its_length() -> None:
    words = "word " * 8_000

    assert 10_000 <= estimate(Message("user", words)) < 10_100
    assert estimate(Message("user", "Hello")) < 100


def test_an_image_counts_the_same_whatever_its_size() -> None:
    images = [Message("user", [TextPart("look"), ImagePart(data="A" * size)]) for size in (100_000, 10_000_000)]

    assert abs(estimate(images[0]) - estimate(images[1])) < 10
    assert TOKENS_OF_MEDIA <= estimate(images[0]) < TOKENS_OF_MEDIA + 100
