"""Sends one reply over a transport: at its pace, not faster than the client reads, and until the client closes.

This is the hot path of the benchmarks. It uses callbacks and no tasks, and one ``transport.write`` for each frame.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from headrace.testing.shared.reply import Frame, Reply
from headrace.testing.shared.request_log import LogEntry
from headrace.testing.ticker import Ticker

_FRAMES_PER_TURN = 64  # then the loop can notice closed connections and serve other streams


class ReplySender:
    """Sends a reply and updates its log entry. Calls ``on_end`` when the connection is free for the next reply."""

    __slots__ = (
        "_due", "_entry", "_is_chunked", "_is_paused", "_is_stopped", "_is_waiting", "_loop", "_on_end", "_reply",
        "_ticker", "_timer", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        reply: Reply,
        entry: LogEntry,
        transport: asyncio.Transport,
        ticker: Ticker,
        on_end: Callable[[], None],
        *,
        is_paused: bool,
    ) -> None:
        self._reply = reply
        self._entry = entry
        self._transport = transport
        self._loop = ticker.loop
        self._ticker = ticker
        self._on_end = on_end
        self._is_chunked = reply.content_length is None
        self._is_paused = is_paused
        self._is_waiting = False  # whether it waits until the client reads again
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = ticker.loop.time() + reply.first_token_delay

    def start(self) -> None:
        """Send the head at once, and the body when its first chunk is due."""
        if self._reply.is_silent:
            if self._reply.is_reset:
                self._reset()
            return
        delay = self._reply.first_token_delay
        if self._reply.one_write or not self._is_chunked:
            step = self._send_at_once
        else:
            self._write_head()
            step = self._step
        if delay > 0:
            self._timer = self._loop.call_later(delay, step)
        else:
            step()

    def _reset(self) -> None:
        """Close the connection so that the other side gets a reset instead of an end."""
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._entry.end("cut", time.monotonic())
        self._transport.abort()

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def pause(self) -> None:
        """Keep the next frame back, because the client does not read."""
        self._is_paused = True

    def resume(self) -> None:
        """Continue, because the client reads again."""
        self._is_paused = False
        if self._is_waiting:
            self._is_waiting = False
            self._due = self._loop.time()  # the next frames keep the pace from now on, without a burst
            self._step()

    def _step(self) -> None:
        if self._reply.pace > 0:
            self._paced_step()
        else:
            self._unpaced_step()

    def _paced_step(self) -> None:
        if self._must_wait():
            return
        for frame in self._reply.frames:
            self._send(frame)
            if frame[2]:
                self._due += self._reply.pace
                self._ticker.call_at(self._due, self._paced_step)
                return
        self._finish()

    def _unpaced_step(self) -> None:
        if self._must_wait():
            return
        remaining = 1 if self._reply.one_frame_per_turn else _FRAMES_PER_TURN
        for frame in self._reply.frames:
            self._send(frame)
            remaining -= 1
            if not remaining or self._is_paused:
                self._loop.call_soon(self._unpaced_step)
                return
        self._finish()

    def _must_wait(self) -> bool:
        self._is_waiting = self._is_paused and not self._is_stopped
        return self._is_paused or self._is_stopped

    def _send(self, frame: Frame) -> None:
        data, text, chunks = frame
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        if chunks:
            self._note(text, chunks)

    def _note(self, text: str, chunks: int) -> None:
        entry = self._entry
        if not entry.chunks_sent:
            entry.first_chunk_at = time.monotonic()
        entry.chunks_sent += chunks
        if text:
            entry.texts.append(text)

    def _send_at_once(self) -> None:
        """Send head and body in one write."""
        out = [self._head()]
        for data, text, chunks in self._reply.frames:
            out.append(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
            if chunks:
                self._note(text, chunks)
        if self._is_chunked and self._ends_cleanly():
            out.append(b"0\r\n\r\n")
        self._begin()
        self._transport.write(b"".join(out))
        self._end()

    def _write_head(self) -> None:
        self._begin()
        self._transport.write(self._head())

    def _begin(self) -> None:
        self._entry.status = self._reply.status
        self._entry.first_byte_at = time.monotonic()

    def _head(self) -> bytes:
        reply = self._reply
        headers = {
            "date": formatdate(usegmt=True),
            "content-type": reply.content_type,
            "connection": "close" if reply.close_after else "keep-alive",
        }
        if reply.content_length is None:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["content-length"] = str(reply.content_length)
        headers |= {name.lower(): value for name, value in reply.headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {reply.status} {_phrase(reply.status)}\r\n{lines}\r\n".encode("latin-1", "replace")

    def _ends_cleanly(self) -> bool:
        return self._reply.ending not in {"open", "cut"}

    def _finish(self) -> None:
        if self._ends_cleanly():
            self._transport.write(b"0\r\n\r\n")
        self._end()

    def _end(self) -> None:
        if self._reply.ending == "open":
            return
        self._entry.end(self._reply.ending, time.monotonic())
        if self._reply.ending == "cut" or self._reply.close_after:
            self._transport.close()
        self._on_end()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
