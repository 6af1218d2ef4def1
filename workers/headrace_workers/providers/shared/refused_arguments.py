"""Refuses arguments of a run that a wire format has no field for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.provider_errors import request_failure


def refuse_given(request: RunRequest, api: str, advice: Mapping[str, str]) -> None:
    """Raise ProviderFailedError (``invalid_request``) for the first given argument of ``advice``.

    ``advice``: argument → what to do instead. An argument that is False counts as not given.
    """
    for name, instead in advice.items():
        value = getattr(request, name)
        if value is not None and value is not False and value not in ([], {}):  # 0 is a value that was given
            raise request_failure(f"{api} does not take it: {instead}", name)
