"""Builds a request for one model, and tells what was refused before it could be sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from headrace.types import Message
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.wire_format import ProviderApi, ProviderFailedError, ProviderSettings

HI = Message("user", "hi")


def body_sent(
    api: ProviderApi, settings: ProviderSettings, model: str, *messages: Message, **fields: Any
) -> dict[str, Any]:
    """Return the body of a streamed request to the settings' provider. Without messages it says hi."""
    request = RunRequest(provider=settings.name, model=model, messages=list(messages or [HI]), stream=True, **fields)
    body: dict[str, Any] = json.loads(api.build_request(request, settings, None).body)
    return body


def refusal_of(build: Callable[[], object]) -> tuple[str, str] | None:
    """Return the argument that is refused, and the reason; None if the request is built."""
    try:
        build()
    except ProviderFailedError as error:
        return str(error.failure.argument), error.failure.reason
    return None
