r"""Every exception that Headrace raises on purpose, and nothing else.

::

    HeadraceError
        ConfigurationError              bad settings
        EngineUnavailableError          no engine answered in time, or it went away
        InvalidRequestError             bad arguments, or 400, 404, 413, 422 from the provider
        RunError                        accepted but not finished
            ProviderError
                AuthenticationError         401, 403, or no key
                RateLimitError              429
                ProviderUnavailableError    5xx, overload, connect and read failures
                ProviderProtocolError       the stream was not what the API promises
            WorkerLostError             the worker died or fell silent
            RunTimeoutError             one of the run's clocks ran out
            QueueFullError              refused at admission
            PoisonRunError              present at two worker deaths
        StreamConsumedError             a stream is iterated once
        ForkedStreamError               a stream belongs to the process that made it
        ProtocolError                   the engine's own wire, not the provider's
            LocalProtocolError
            RemoteProtocolError
            ProtocolMismatchError       client and engine speak different major versions

An error carries facts; its text is built once, by ``str()``. Control characters in the text are escaped (``\u001b``): a
traceback that quotes a provider cannot steer a terminal. The facts have them as they came. All arguments are positional so
that errors survive pickling. No error ever carries a provider key.
"""

from __future__ import annotations

from headrace.text.escaping import escaped


class HeadraceError(Exception):
    """Base of all errors raised on purpose."""

    def __str__(self) -> str:
        return escaped(self._words())

    def _words(self) -> str:
        return super().__str__()


class ConfigurationError(HeadraceError):
    """Settings that cannot be used; the text names the setting and what it takes."""


class EngineUnavailableError(HeadraceError):
    """No engine answered within the connect timeout, or the engine went away.

    ``address`` is where it was looked for (``"embedded"`` for an engine of this program's own).
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def _words(self) -> str:
        return f"no engine at {self.address}: {self.reason}"


class InvalidRequestError(HeadraceError):
    """An argument is wrong, found before anything was sent; or the provider refused the request as malformed.

    ``argument`` names the argument (``None`` when the provider refused); ``provider``, ``status_code``, ``request_id``
    and ``code`` are set when the refusal came from the provider (400, 404, 413, 422).
    """

    def __init__(
        self,
        reason: str,
        argument: str | None = None,
        provider: str | None = None,
        status_code: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(reason, argument, provider, status_code, request_id, code)
        self.reason = reason
        self.argument = argument
        self.provider = provider
        self.status_code = status_code
        self.request_id = request_id
        self.code = code

    def _words(self) -> str:
        if self.argument is not None:
            return f"{self.argument}: {self.reason}"
        if self.provider is not None:
            return _provider_text(self.provider, self.reason, self.status_code, self.request_id, self.code)
        return self.reason


class RunError(HeadraceError):
    """A run was accepted but did not finish.

    ``partial_text`` is the text that had reached this process; it is a prefix of what the provider sent.
    """

    def __init__(self, span_id: str, reason: str, partial_text: str = "") -> None:
        super().__init__(span_id, reason, partial_text)
        self.span_id = span_id
        self.reason = reason
        self.partial_text = partial_text

    def _words(self) -> str:
        return f"run {self.span_id}: {self.reason}"


class ProviderError(RunError):
    """The provider refused the run or failed to finish it.

    ``status_code`` is the HTTP status (``None`` when there was none), ``request_id`` the provider's id of the request,
    ``code`` the provider's own code or error type.
    """

    def __init__(
        self,
        span_id: str,
        reason: str,
        partial_text: str = "",
        provider: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, provider, status_code, request_id, code)
        self.provider = provider
        self.status_code = status_code
        self.request_id = request_id
        self.code = code

    def _words(self) -> str:
        text = _provider_text(self.provider, self.reason, self.status_code, self.request_id, self.code)
        return f"run {self.span_id}: {text}"


class AuthenticationError(ProviderError):
    """401 or 403 from the provider, or no key was found for it."""


class RateLimitError(ProviderError):
    """429. ``retry_after`` is the wait that the provider asked for, in seconds (``None`` when it did not say)."""

    def __init__(
        self,
        span_id: str,
        reason: str,
        partial_text: str = "",
        provider: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(span_id, reason, partial_text, provider, status_code, request_id, code)
        self.args = (*self.args, retry_after)
        self.retry_after = retry_after


class ProviderUnavailableError(ProviderError):
    """The provider answered 5xx or "overloaded", or the connection to it could not be made or was lost."""


class ProviderProtocolError(ProviderError):
    """The provider's response was not what its API promises: cut, garbled, or not a stream at all."""


class WorkerLostError(RunError):
    """The worker process that held the run died or fell silent."""


class RunTimeoutError(RunError):
    """One of the run's clocks ran out.

    ``clock`` is ``connect``, ``first_chunk``, ``idle``, ``total`` or ``reader`` (nobody read the stream for so long); ``limit`` is
    what it allowed, in seconds.
    """

    def __init__(self, span_id: str, reason: str, partial_text: str = "", clock: str = "", limit: float = 0.0) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, clock, limit)
        self.clock = clock
        self.limit = limit


class QueueFullError(RunError):
    """Refused at admission. ``retry_after`` is a guess at when there is room, in seconds, or ``None``."""

    def __init__(self, span_id: str, reason: str, partial_text: str = "", retry_after: float | None = None) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, retry_after)
        self.retry_after = retry_after


class PoisonRunError(RunError):
    """The run was present at two worker deaths, or was the only one on a worker that hung at work, and is not tried again."""


class StreamConsumedError(HeadraceError):
    """A stream was iterated a second time, or by a second thread or task while another one waits for its next event."""

    def __init__(self, span_id: str, reason: str = "was iterated already") -> None:
        super().__init__(span_id, reason)
        self.span_id = span_id
        self.reason = reason

    def _words(self) -> str:
        return f"stream {self.span_id} {self.reason}; its text is in stream.result.result().text"


class ForkedStreamError(HeadraceError):
    """A stream was used in a child process; it belongs to the process that made it."""

    def __init__(self, span_id: str) -> None:
        super().__init__(span_id)
        self.span_id = span_id

    def _words(self) -> str:
        return f"stream {self.span_id} was made before the fork; make a new run in the child (the client itself works)"


class ProtocolError(HeadraceError):
    """A message between client, broker and worker broke the protocol of docs/protocol.md."""


class LocalProtocolError(ProtocolError):
    """This process was about to break the protocol."""


class RemoteProtocolError(ProtocolError):
    """The other process broke the protocol."""


class ProtocolMismatchError(ProtocolError):
    """The other process speaks another major version of the protocol."""

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(ours, theirs)
        self.ours = ours
        self.theirs = theirs

    def _words(self) -> str:
        return (
            f"this process speaks protocol {self.ours}, the other side {self.theirs}: "
            "run the same headrace version in client and engine"
        )


def _provider_text(
    provider: str, reason: str, status_code: int | None, request_id: str | None, code: str | None
) -> str:
    facts = [
        f"HTTP {status_code}" if status_code is not None else "",
        code or "",
        f"request id {request_id}" if request_id else "",
    ]
    detail = ", ".join(fact for fact in facts if fact)
    return f"{provider}: {reason} ({detail})" if detail else f"{provider}: {reason}"
