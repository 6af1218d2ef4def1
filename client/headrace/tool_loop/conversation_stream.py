"""What ToolStream and AsyncToolStream share: their ids, their messages, one reader, and an abort when they are dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable

from headrace.errors import ForkedStreamError, StreamConsumedError
from headrace.process.own_process import own_process
from headrace.streams import Stream
from headrace.text.foreign_attributes import knows_foreign_attributes
from headrace.tool_loop.tool_conversation import ToolConversation
from headrace.types import Message


@knows_foreign_attributes
class ConversationStream:
    """A conversation with tools that goes on while its events are read."""

    def __init__(self, conversation: ToolConversation, first: Stream, abort: Callable[[], None]) -> None:
        """Take the conversation, and the stream of its first turn. ``abort``: called when this stream is dropped."""
        self._conversation = conversation
        self._span_id = first.span_id
        self._trace_id = first.trace_id
        self._pid = own_process.pid
        self._consumed = threading.Lock()
        self._handle = _Handle(abort)

    @property
    def span_id(self) -> str:
        """The id of the first turn's run. It is the parent of the runs of all other turns."""
        return self._span_id

    @property
    def trace_id(self) -> str:
        """The id of the trace that all turns belong to."""
        return self._trace_id

    @property
    def messages(self) -> list[Message]:
        """The conversation so far. After an error it has all turns before the error, so that you can go on with it."""
        return list(self._conversation.messages)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.span_id}>"

    def check_process(self) -> None:
        """Raise ForkedStreamError in a child of the process that made the stream."""
        if own_process.pid != self._pid:
            raise ForkedStreamError(self.span_id)

    def consume(self) -> None:
        """Begin the only iteration. Raises StreamConsumedError the second time."""
        self.check_process()
        if not self._consumed.acquire(blocking=False):
            raise StreamConsumedError(self.span_id)

    def keep_going(self) -> None:
        """Let the conversation go on to its end, also if the stream is dropped."""
        self._handle.release()


class _Handle:
    """Aborts the conversation when the stream and its iterator were dropped."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self._abort: Callable[[], None] | None = abort
        self._pid = own_process.pid

    def release(self) -> None:
        """Abort no more."""
        self._abort = None

    def __del__(self) -> None:
        if self._abort is not None and own_process.pid == self._pid:
            self._abort()
