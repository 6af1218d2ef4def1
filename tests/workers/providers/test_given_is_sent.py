"""Each value that a caller gives is in the request body, or the run is refused with the value's path.

Nothing vanishes.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from headrace.arguments.checked_request import build_request
from headrace.arguments.original_paths import OriginalPaths, original_path
from headrace.arguments.run_arguments import RunArguments
from headrace.errors import InvalidRequestError
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.codec import decode_request, encode_request
from headrace_workers.providers.shared.wire_format import ProviderFailedError
from headrace_workers.worker_settings import Providers
from tests.repetition import repeated
from tests.workers.providers.marked_arguments import FURTHER_KEYS, arguments, is_path, marks_in, pairs_in

FORMATS = {
    "openai-chat": "https://api.openai.com/v1",
    "openai-responses": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
MODELS = {
    "openai-chat": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
}
PROVIDERS = Providers(
    Settings(providers={name: ProviderConfig(api=name, base_url=url) for name, url in FORMATS.items()}), {}
)
NAMES = {key for keys in FURTHER_KEYS.values() for key in keys}


def sent(api: str, asked: dict[str, Any]) -> dict[str, Any] | str:
    """Return the request body, or the path in the refusal."""
    whole = cast("RunArguments", {"model": MODELS[api], "provider": api, **asked})
    original_paths: OriginalPaths = {}
    try:
        request = build_request(
            whole, stream=True, trace_id="tr_0123456789abcdef", providers=list(FORMATS), original_paths=original_paths
        )
        prepared = PROVIDERS.prepare(decode_request(encode_request(request)), "sk-1")
    except InvalidRequestError as error:
        return str(error.argument)
    except ProviderFailedError as error:
        return original_path(str(error.failure.argument), original_paths)
    body: dict[str, Any] = msgspec.json.decode(prepared.request.body)
    return body


@pytest.mark.parametrize("api", FORMATS)
def test_each_given_value_is_sent_or_refused_by_its_path(api: str) -> None:
    counts = {"sent": 0, "refused": 0}

    @settings(max_examples=repeated(60, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(asked=arguments())
    def check(asked: dict[str, Any]) -> None:
        result = sent(api, asked)
        if isinstance(result, str):
            counts["refused"] += 1
            assert is_path(asked, result), result
            return
        counts["sent"] += 1
        assert marks_in(asked) <= marks_in(result)
        further = {(key, value) for key, value in pairs_in(asked) if key in NAMES}
        if api == "google":  # strictness is a mode of all calls there, and False is how it is without
            further -= {("strict", True), ("strict", False)}
        assert further <= set(pairs_in(result))

    check()
    assert min(counts.values()) >= 3, counts
