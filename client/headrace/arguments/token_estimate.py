"""Estimates how many tokens a request has, for the limits of its provider. Pure, and cheap: it counts no tokens."""

from __future__ import annotations

from headrace.types import AudioPart, FilePart, ImagePart
from headrace.wire.run_request import RunRequest

BYTES_PER_TOKEN = 4
"""English text has about 4 characters for each token."""
TOKENS_OF_MEDIA = 1000
"""Tokens of an image, a file or a piece of audio. Its base64 text says nothing about them."""
_SMALL = 16 * 1024
"""Bytes of a request that is not looked into: media of this size change little."""


def input_tokens(request: RunRequest, encoded: bytes) -> int:
    """Return the estimate. The broker corrects it by what the provider has counted for earlier runs."""
    size = len(encoded)
    if size <= _SMALL:
        return size // BYTES_PER_TOKEN
    data = media = 0
    for message in request.messages:
        if type(message.content) is not str:
            for part in message.content:
                if isinstance(part, ImagePart | AudioPart | FilePart):
                    media += 1
                    data += len(part.data or "")
    return max(size - data, 0) // BYTES_PER_TOKEN + media * TOKENS_OF_MEDIA
