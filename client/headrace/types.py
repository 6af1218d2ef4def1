"""The public data types: messages, tools, usage, events and results.

All are frozen msgspec Structs: they can be compared, pickled, and sent between processes. They can be hashed where all
their fields can. Messages, tools and results have a form as plain dicts too, for JSON. This module knows nothing of processes,
sockets or providers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Self

import msgspec

from headrace.dict_form import DictForm
from headrace.media.file_content import FileSource, decoded, read_document, read_media
from headrace.text.foreign_attributes import knows_foreign_attributes
from headrace.usage import Usage as Usage  # noqa: PLC0414 - passed on; errors.py needs it below this module
from headrace.usage import UsageSource as UsageSource  # noqa: PLC0414 - passed on

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)  # Python 3.11 has no default; only type checkers need it

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "tool_calls", "max_tokens", "content_filter", "error"]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class TextPart(DictForm, frozen=True, tag="text", omit_defaults=True):
    """Text in a message."""

    text: str
    """The text."""
    provider_data: dict[str, Any] | None = None
    """What the provider needs back, byte for byte, to accept this part again: a signature, or citations."""
    extra: dict[str, Any] | None = None
    """Further keys that you gave, in the provider's own words, such as ``cache_control``.

    They are sent where the provider's format has them. Elsewhere the run fails with an InvalidRequestError that names
    the key.
    """


class ImagePart(DictForm, frozen=True, tag="image", omit_defaults=True):
    """An image in a message: ``url``, or ``data`` with ``media_type``, or ``file_id``."""

    url: str | None = None
    """The image's address."""
    data: str | None = None
    """The image itself, in base64."""
    media_type: str | None = None
    """The type of ``data``, such as ``image/png``."""
    extra: dict[str, Any] | None = None
    """Further keys, such as ``detail``: see :class:`TextPart`."""
    file_id: str | None = None
    """The id of an image that was uploaded to the provider before."""
    provider_data: dict[str, Any] | None = None
    """What the provider needs back to accept an image that its model made."""

    @classmethod
    def from_file(cls, file: FileSource, media_type: str | None = None) -> Self:
        """Return the part for an image file.

        * ``file``: a path, bytes, or an open binary file, of at most 35 MiB. Give an address as ``ImagePart(url=…)``.
        * ``media_type``: its type, such as ``image/png``. Default: the type that the file's first bytes say (PNG, JPEG,
          GIF, WebP, HEIC, HEIF, AVIF, BMP, TIFF). Each provider takes some of them: see docs/providers.md.

        Raises OSError (such as FileNotFoundError) where the path cannot be read, and InvalidRequestError for a file that
        is empty, too large, or no image.
        """
        data, found = read_media(file, media_type, "image")
        return cls(data=data, media_type=found)

    def to_bytes(self) -> bytes:
        """Return the image file. Raises ValueError where the part has only an address or an id."""
        return decoded(self.data, "image")

    def __repr__(self) -> str:
        return _shown(self)


class AudioPart(DictForm, frozen=True, tag="audio", omit_defaults=True):
    """Audio in a message: ``data`` with ``media_type``, or ``url``."""

    data: str | None = None
    """The audio file, in base64."""
    media_type: str | None = None
    """Its type, such as ``audio/wav``. Samples without a file's head have a type such as ``audio/pcm;rate=24000``."""
    url: str | None = None
    """The audio file's address."""
    transcript: str | None = None
    """The words that are said in audio of a model, where the provider tells them."""
    provider_data: dict[str, Any] | None = None
    """What the provider needs back to accept audio that its model made."""
    extra: dict[str, Any] | None = None
    """Further keys: see :class:`TextPart`."""

    @classmethod
    def from_file(cls, file: FileSource, media_type: str | None = None) -> Self:
        """Return the part for an audio file.

        * ``file``: a path, bytes, or an open binary file, of at most 35 MiB.
        * ``media_type``: its type, such as ``audio/wav``. Default: the type that the file's first bytes say (WAV, MP3,
          FLAC, Ogg, AAC, AIFF, M4A, WebM). Each provider takes some of them: see docs/providers.md.

        Raises OSError and InvalidRequestError: see :meth:`ImagePart.from_file`.
        """
        data, found = read_media(file, media_type, "audio")
        return cls(data=data, media_type=found)

    def to_bytes(self) -> bytes:
        """Return the audio file. Raises ValueError where the part has only an address."""
        return decoded(self.data, "audio")

    def __repr__(self) -> str:
        return _shown(self)


class FilePart(DictForm, frozen=True, tag="file", omit_defaults=True):
    """A file in a message, such as a PDF: ``data`` with ``media_type``, or ``text``, or ``url``, or ``file_id``."""

    name: str | None = None
    """The file's name, for the model."""
    media_type: str | None = None
    """The file's type, such as ``application/pdf``."""
    data: str | None = None
    """The file itself, in base64."""
    text: str | None = None
    """The content of a text file. Variables in it are not filled."""
    url: str | None = None
    """The file's address."""
    file_id: str | None = None
    """The id of a file that was uploaded to the provider before, or that its model made."""
    provider_data: dict[str, Any] | None = None
    """What the provider needs back to accept a file that its model made."""
    extra: dict[str, Any] | None = None
    """Further keys, such as ``citations``: see :class:`TextPart`."""

    @classmethod
    def from_file(cls, file: FileSource, media_type: str | None = None, *, name: str | None = None) -> Self:
        """Return the part for a PDF, a text file, or another document.

        * ``file``: a path, bytes, or an open binary file, of at most 35 MiB.
        * ``media_type``: its type. Default: the type that the file's first bytes say. Files of no known binary type are
          read as text in UTF-8.
        * ``name``: its name, for the model. Default: the name of the file, without its folder.

        Raises OSError and InvalidRequestError: see :meth:`ImagePart.from_file`.
        """
        found = read_document(file, media_type, name)
        return cls(name=found.name, media_type=found.media_type, data=found.data, text=found.text)

    def to_bytes(self) -> bytes:
        """Return the file. Text is UTF-8. Raises ValueError where the part has only an address or an id."""
        return decoded(self.data, "file") if self.text is None else self.text.encode()

    def __repr__(self) -> str:
        return _shown(self)


_SHOWN_LENGTH = 80
"""Characters of base64, of an address or of a file's text that ``repr`` shows."""


def _shown(part: ImagePart | AudioPart | FilePart) -> str:
    """Return a part as text, without the megabytes that it may have."""
    fields: list[str] = []
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, str) and len(value) > _SHOWN_LENGTH:
            fields.append(f"{name}={value[:_SHOWN_LENGTH]!r}… ({len(value)} characters)")
        elif value is not None:
            fields.append(f"{name}={value!r}")
    return f"{type(part).__name__}({', '.join(fields)})"


class ToolCallPart(DictForm, frozen=True, tag="tool_call", omit_defaults=True):
    """A call of a tool, in a message of the assistant."""

    id: str
    """The call's id. The tool's answer names it as ``tool_call_id``."""
    name: str
    """The tool's name."""
    arguments: dict[str, Any]
    """The arguments that the model chose."""
    provider_data: dict[str, Any] | None = None
    """What the provider needs back to accept this part again."""
    extra: dict[str, Any] | None = None
    """Further keys: see :class:`TextPart`.

    Its key ``function`` holds the keys that stood inside ``function`` of OpenAI's form.
    """


class ReasoningPart(DictForm, frozen=True, tag="reasoning", omit_defaults=True):
    """Reasoning of the model, in a message of the assistant. It is kept so that it can be sent back."""

    text: str = ""
    """The reasoning, as far as the provider shows it."""
    provider_data: dict[str, Any] | None = None
    """What the provider needs back to accept this part again, such as a signature."""
    extra: dict[str, Any] | None = None
    """Further keys: see :class:`TextPart`."""


Part = TextPart | ImagePart | AudioPart | FilePart | ToolCallPart | ReasoningPart


@knows_foreign_attributes
class Message(DictForm, frozen=True, omit_defaults=True):
    """One message of a conversation."""

    role: Role
    """``system``, ``developer``, ``user``, ``assistant`` or ``tool``."""
    content: str | list[Part] = ""
    """The text, or a list of parts."""
    tool_call_id: str | None = None
    """For role ``tool``: the id of the call that this message answers."""
    tool_name: str | None = None
    """For role ``tool``: the name of the tool. Only Google's format sends it."""
    extra: dict[str, Any] | None = None
    """Further keys of the message: see :class:`TextPart`."""

    @property
    def text(self) -> str:
        """The message's text parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> list[ToolCallPart]:
        """The message's tool calls."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.content if isinstance(part, ToolCallPart)]

    @property
    def images(self) -> list[ImagePart]:
        """The message's images."""
        return [] if isinstance(self.content, str) else [part for part in self.content if isinstance(part, ImagePart)]

    @property
    def audio(self) -> list[AudioPart]:
        """The message's audio."""
        return [] if isinstance(self.content, str) else [part for part in self.content if isinstance(part, AudioPart)]

    @property
    def files(self) -> list[FilePart]:
        """The message's files."""
        return [] if isinstance(self.content, str) else [part for part in self.content if isinstance(part, FilePart)]


class Tool(DictForm, frozen=True, omit_defaults=True):
    """A tool that the model may call.

    If the provider runs the tool itself, ``type`` is the provider's word, such as ``web_search_20250305``. Then ``extra``
    has the tool's settings, and ``name`` may be empty. A custom tool of OpenAI has the type ``custom``: your program
    answers its calls.
    """

    name: str
    """The tool's name."""
    description: str = ""
    """What the tool does, for the model."""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    """The arguments that the tool takes, as a JSON schema."""
    strict: bool | None = None
    """Whether the model must keep to the schema exactly. ``None``: the provider decides."""
    type: str = "function"
    """``function``, or the provider's word for a tool that it runs itself."""
    extra: dict[str, Any] | None = None
    """Further keys, such as ``cache_control``: see :class:`TextPart`.

    Its key ``function`` holds the keys that stood inside ``function`` of OpenAI's form.
    """


@knows_foreign_attributes
class ToolCall(DictForm, frozen=True):
    """A complete call that the model made."""

    id: str
    """The call's id. The tool's answer names it as ``tool_call_id``."""
    name: str
    """The tool's name."""
    arguments: dict[str, Any]
    """The arguments that the model chose. Headrace does not check them against the tool's schema."""


class IncompleteToolCall(DictForm, frozen=True):
    """A call that was cut off, by ``max_output_tokens`` or by an abort."""

    id: str
    """The call's id."""
    name: str
    """The tool's name."""
    arguments: str
    """The text of the arguments so far. It is not whole JSON."""


class TopLogprob(DictForm, frozen=True, omit_defaults=True, gc=False):
    """One of the most likely tokens at a place of the answer."""

    token: str
    """The token."""
    logprob: float
    """The natural logarithm of its probability: 0 or less."""
    bytes: list[Byte] | None = None
    """The token in UTF-8, as numbers from 0 to 255: a token may be a part of a character. ``None``: not sent."""


class TokenLogprob(DictForm, frozen=True, omit_defaults=True, gc=False):
    """A token of the answer, and its log probability."""

    token: str
    """The token."""
    logprob: float
    """The natural logarithm of its probability: 0 or less."""
    bytes: list[Byte] | None = None
    """The token in UTF-8, as numbers from 0 to 255: a token may be a part of a character. ``None``: not sent."""
    top_logprobs: list[TopLogprob] = msgspec.field(default_factory=list)
    """The most likely tokens at this place, as many as ``top_logprobs`` asked for."""


# Events. On the wire and in the buffers text is a bare str: it is by far the most frequent event, and a str costs
# least.


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Text that arrived."""

    text: str
    """The text."""


class ReasoningDelta(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Reasoning that arrived."""

    text: str
    """The reasoning."""


class RefusalDelta(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A piece of a refusal, from a provider that sends refusals apart from text."""

    text: str
    """The refusal's words."""


class ToolCallDelta(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A piece of a tool call."""

    index: int
    """Which call of the answer it belongs to, counted from 0."""
    id: str | None = None
    """The call's id; only with its first piece."""
    name: str | None = None
    """The tool's name; only with its first piece."""
    arguments: str = ""
    """A piece of the arguments' JSON text."""


class UsageUpdate(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The usage so far."""

    usage: Usage
    """The totals since the run's start. They replace the totals of the update before."""


RunEvent = str | ReasoningDelta | RefusalDelta | ToolCallDelta | UsageUpdate
"""An event as it crosses process boundaries."""

StreamEvent = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | UsageUpdate
"""An event as ``stream.events()`` yields it."""


@knows_foreign_attributes
class RunLocalResult(DictForm, Generic[T_co], frozen=True, kw_only=True):
    """The result of a run. ``RunLocalResult[Invoice]`` is the result of a run with ``response_type=Invoice``."""

    text: str
    """The answer's text."""
    span_id: str
    """The run's id: ``sp_`` and 16 hex digits."""
    trace_id: str
    """The id of the trace that the run belongs to: ``tr_`` and 16 hex digits."""
    latency_ms: float
    """Milliseconds from the call to the run's end."""
    usage: Usage
    """The tokens of the run."""
    cost: float | None
    """US dollars; ``None`` if the model's price or the usage is not known."""
    provider: str
    """The provider's name."""
    model: str
    """The model's name."""
    tool_calls: list[ToolCall]
    """The complete calls that the model made."""
    incomplete_tool_calls: list[IncompleteToolCall]
    """Calls that were cut off. Do not answer them."""
    finish_reason: FinishReason | None
    """Why the answer ended: ``stop``, ``tool_calls``, ``max_tokens``, ``content_filter`` or ``error``."""
    provider_finish_reason: str | None
    """Why the answer ended, in the provider's word; ``None`` if it gave none."""
    message: Message
    """The assistant's message. Add it to ``messages`` to go on with the conversation."""
    reasoning: str
    """The model's reasoning, as far as the provider shows it."""
    refusal: str | None
    """The words with which the model refused; ``None`` if it did not, or if its provider sends refusals as text."""
    attempts: int
    """How many attempts the run took: more than 1 if a worker died before the first chunk, if the provider failed and
    the run was tried again, or if it was given to a model of ``fallbacks``."""
    wire_format: str | None = None
    """The provider's API that answered: ``openai-chat``, ``openai-responses``, ``anthropic``, ``google``, or the name of
    a plug-in's format. ``None`` if no worker told it, which happens with aborted runs only."""
    logprobs: list[TokenLogprob] | None = None
    """The log probability of each token of the text, or of the refusal.

    ``None`` if the run did not ask for them (``logprobs``), if the provider sent none, and for an aborted run."""
    parsed: T_co = None  # type: ignore[assignment]
    """The answer as an object of the ``response_type``.

    ``None`` without ``response_type``, for an aborted stream, and where the model calls tools instead of an answer.
    """
    queue_ms: float = 0.0
    """Milliseconds that the run waited in the engine before it was given to a worker: over all attempts, without the pauses between them."""
    queue_reason: str | None = None
    """What the run waited for last: ``workers`` (a place on a worker), ``share`` (this program's own share of them),
    ``limit`` (a limit of the provider or of the settings), ``blocked`` (the provider asked to wait) or ``breaker`` (the
    provider failed too often). ``None`` if it did not wait."""

    @property
    def images(self) -> list[ImagePart]:
        """The images that the model made. ``image.to_bytes()`` is the file, ``image.media_type`` its type."""
        return self.message.images

    @property
    def audio(self) -> list[AudioPart]:
        """The audio that the model made. ``text`` has the words, where the provider tells them."""
        return self.message.audio

    @property
    def files(self) -> list[FilePart]:
        """References to files that the model made with the provider's tools: their ``file_id`` or ``url``."""
        return self.message.files


class RunEmbeddingResult(DictForm, frozen=True, kw_only=True):
    """The vectors of some texts."""

    embeddings: list[list[float]]
    """One vector for each text, in the order of the texts."""
    span_id: str
    """The run's id: ``sp_`` and 16 hex digits."""
    trace_id: str
    """The id of the trace that the run belongs to: ``tr_`` and 16 hex digits."""
    latency_ms: float
    """Milliseconds from the call to the run's end."""
    usage: Usage
    """The tokens of the run."""
    cost: float | None
    """US dollars; ``None`` if the model's price or the usage is not known."""
    provider: str
    """The provider's name."""
    model: str
    """The model's name."""
    attempts: int
    """How many attempts the run took: see :class:`RunLocalResult`."""
    queue_ms: float = 0.0
    """Milliseconds that the run waited in the engine: see :class:`RunLocalResult`."""
    queue_reason: str | None = None
    """What the run waited for last: see :class:`RunLocalResult`."""


class FlushCounts(DictForm, frozen=True):
    """How many spans an engine has delivered since its start."""

    delivered: int
    """Spans that are stored, and that every sink has taken."""
    pending: int
    """Spans that are not yet stored, or not yet with every sink."""
    failed: int
    """Spans that will never be stored, or never be with every sink."""


class StreamResult(RunLocalResult[T_co], Generic[T_co], frozen=True, kw_only=True):
    """The result of a streamed run. ``finish_reason`` is ``None`` if the run was aborted."""

    aborted: bool
    """Whether the run was aborted. ``text`` is then the text that had arrived."""
