"""MessageDict, and a TypedDict for each part: the types of messages that are written as dicts.

Types only: :mod:`headrace.arguments.conversation` reads the dicts, and checks them. A dict may have further keys of the
provider, such as ``cache_control``. Type checkers then take it for a ``Mapping[str, Any]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Required

from headrace.types import Part, Role, ToolCall

if TYPE_CHECKING:
    from typing import TypedDict
else:
    try:  # before Python 3.12 pydantic takes only this one, and brings it
        from typing_extensions import TypedDict
    except ImportError:
        from typing import TypedDict


class TextPartDict(TypedDict, total=False):
    """Text in a message. See :class:`TextPart`."""

    type: Required[Literal["text"]]
    text: Required[str]
    provider_data: dict[str, Any] | None
    extra: dict[str, Any] | None


class ImagePartDict(TypedDict, total=False):
    """An image in a message: ``url``, or ``data`` with ``media_type``, or ``file_id``. See :class:`ImagePart`."""

    type: Required[Literal["image"]]
    url: str | None
    data: str | bytes | None
    media_type: str | None
    file_id: str | None
    source: Mapping[str, str]
    """Anthropic's form: ``{"type": "base64", "media_type": …, "data": …}``, or ``{"type": "url", "url": …}``."""
    provider_data: dict[str, Any] | None
    extra: dict[str, Any] | None


class AudioPartDict(TypedDict, total=False):
    """Audio in a message: ``data`` with ``media_type``, or ``url``. See :class:`AudioPart`."""

    type: Required[Literal["audio"]]
    data: str | bytes | None
    media_type: str | None
    url: str | None
    transcript: str | None
    provider_data: dict[str, Any] | None
    extra: dict[str, Any] | None


class FilePartDict(TypedDict, total=False):
    """A file in a message: ``data`` with ``media_type``, ``text``, ``url`` or ``file_id``. See :class:`FilePart`."""

    type: Required[Literal["file"]]
    name: str | None
    media_type: str | None
    data: str | bytes | None
    text: str | None
    url: str | None
    file_id: str | None
    file: Mapping[str, str]
    """OpenAI's form: ``{"filename": …, "file_data": …}``, or ``{"file_id": …}``."""
    provider_data: dict[str, Any] | None
    extra: dict[str, Any] | None


class ImageUrlDict(TypedDict, total=False):
    """The address of an image, in OpenAI's form."""

    url: Required[str]
    detail: str


class ImageUrlPartDict(TypedDict):
    """An image in a message, in OpenAI's form."""

    type: Literal["image_url"]
    image_url: ImageUrlDict | str


class ToolCallPartDict(TypedDict, total=False):
    """A call of a tool, among the parts of the assistant's message. See :class:`ToolCallPart`."""

    type: Required[Literal["tool_call"]]
    id: Required[str]
    name: Required[str]
    arguments: dict[str, Any]
    provider_data: dict[str, Any] | None
    extra: dict[str, Any] | None


class ReasoningPartDict(TypedDict, total=False):
    """Reasoning of the model. See :class:`ReasoningPart`."""

    type: Required[Literal["reasoning"]]
    text: str
    provider_data: dict[str, Any] | None
    extra: dict[str, Any] | None


class FunctionCallDict(TypedDict):
    """The function that a call names, in OpenAI's form. ``arguments`` is the text of a JSON object."""

    name: str
    arguments: str


class ToolCallDict(TypedDict, total=False):
    """A call of a tool, in OpenAI's form: an item of ``tool_calls``."""

    id: Required[str]
    type: Literal["function"]
    function: Required[FunctionCallDict]


PartDict = (
    TextPartDict
    | ImagePartDict
    | ImageUrlPartDict
    | AudioPartDict
    | FilePartDict
    | ToolCallPartDict
    | ReasoningPartDict
)


class MessageDict(TypedDict, total=False):
    """A message of a conversation, as a dict. See :class:`Message`, and ``to_dict`` of a message."""

    role: Required[Role]
    """``system``, ``developer``, ``user``, ``assistant`` or ``tool``."""
    content: str | Sequence[PartDict | Part | Mapping[str, Any] | str] | None
    """The text, or a list of parts; a str in the list is a text part. An assistant's message with ``tool_calls`` may be without it."""
    tool_calls: Sequence[ToolCallDict | ToolCall | Mapping[str, Any]] | None
    """For role ``assistant``: the calls that it made, in OpenAI's form."""
    tool_call_id: str | None
    """For role ``tool``: the id of the call that this message answers."""
    tool_name: str | None
    """For role ``tool``: the name of the tool. Only Google's format sends it."""
    name: str | None
    """The name of who speaks; for role ``tool`` the same as ``tool_name``."""
    extra: dict[str, Any] | None
    """Further keys of the message, in the provider's own words."""
