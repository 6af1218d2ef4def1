"""How ``headrace`` ends. Scripts rely on these figures."""

from __future__ import annotations

import enum

from headrace.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    QueueFullError,
    RateLimitError,
    RunTimeoutError,
)


class ExitCode(enum.IntEnum):
    """Exit status of ``headrace``."""

    OK = 0  # done
    FAILED = 1  # the run failed: the provider, its connection or a worker; the same may work later
    USAGE = 2  # the command line, the settings or the request is wrong; the same will not work later
    UNAVAILABLE = 3  # no engine answered, or what is to serve cannot start
    UNAUTHORIZED = 4  # no key, or the provider does not accept it
    TRY_LATER = 5  # too many requests: the provider's limit, or a full queue
    TIMED_OUT = 6  # the run took longer than it may
    INTERRUPTED = 130  # Ctrl-C; as a shell reports SIGINT
    OUTPUT_CLOSED = (
        141  # whoever read the output has gone, as in `| head`, or it was closed before; as a shell reports SIGPIPE
    )


class CommandError(Exception):
    """A command cannot do its work; the text is one line, with what to do next."""

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


def exit_code(error: HeadraceError) -> ExitCode:
    """Return the exit code that an error stands for."""
    match error:
        case ConfigurationError() | InvalidRequestError():
            return ExitCode.USAGE
        case EngineUnavailableError():
            return ExitCode.UNAVAILABLE
        case AuthenticationError():
            return ExitCode.UNAUTHORIZED
        case RateLimitError() | QueueFullError():
            return ExitCode.TRY_LATER
        case RunTimeoutError():
            return ExitCode.TIMED_OUT
        case _:
            return ExitCode.FAILED
