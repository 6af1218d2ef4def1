"""Tells from the path of a request which provider's API it is for. Pure."""

from __future__ import annotations

import re

import msgspec

_GOOGLE = re.compile(r"/(?P<name>(?:models|tunedModels)/(?P<model>[^/:]+):(?P<method>\w+))$")
_WIRES = {
    "/chat/completions": ("openai", "openai.chat"),
    "/responses": ("openai", "openai.responses"),
    "/embeddings": ("openai", "openai.embeddings"),
    "/v1/messages": ("anthropic", "anthropic.messages"),
}
_OF_ANTHROPIC = "/v1/messages/"


class RecordedEndpoint(msgspec.Struct, frozen=True):
    """The API that a path belongs to.

    ``provider``: ``openai``, ``anthropic`` or ``google``. ``wire``: the name of the format, as recordings have it.
    ``name``: the path without host, prefix and version; equal for all servers of one format. ``model``: the model, if
    the path names it.
    """

    provider: str
    wire: str
    name: str
    model: str | None = None


def endpoint_of(path: str) -> RecordedEndpoint:
    """Return the API of a path without its query. A path that is not known is an OpenAI API of its own name."""
    if (found := _GOOGLE.search(path)) is not None:
        wire = "google.generate" if "enerateContent" in found["method"] else "google.other"
        return RecordedEndpoint("google", wire, found["name"], found["model"])
    for end, (provider, wire) in _WIRES.items():
        if path.endswith(end):
            return RecordedEndpoint(provider, wire, end)
    provider = "anthropic" if path.startswith(_OF_ANTHROPIC) else "google" if path.startswith("/v1beta/") else "openai"
    return RecordedEndpoint(provider, f"{provider}.other", path)
