"""No key and no account is in a recording; nothing else of it changes, and no length."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.testing.recording.endpoints import endpoint_of
from headrace.testing.recording.key_overwriting import RequestSecrets, decoded
from tests.cases import each

KEY = "sk-proj-7Yq2LmN0pR4sT6uV8wX1zA3bC5dE"


def secrets(headers: dict[str, str] | None = None, address: str = "/v1/x", body: object = None) -> RequestSecrets:
    return RequestSecrets({"authorization": f"Bearer {KEY}"} if headers is None else headers, address, body)


@each(
    ("found", "text"),
    [
        (secrets(), KEY),
        (secrets({"X-Api-Key": KEY}), f"the key {KEY} is wrong"),
        (secrets({"api-key": KEY}), json.dumps({"message": f"Incorrect API key provided: {KEY}."})),
        (secrets({"x-goog-api-key": KEY}), KEY.upper()),
        (secrets({}, f"/v1beta/models/m:generateContent?alt=sse&key={KEY}"), f"key={KEY}&x=1"),
        (secrets({"cookie": f"session={KEY}"}), f"session={KEY}"),
        (secrets({"authorization": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()}), KEY),
        (secrets(), KEY[: len(KEY) // 2]),
        (secrets(), base64.b64encode(KEY.encode()).decode()),
        (secrets({}, body={"tools": [{"type": "mcp", "headers": {"Authorization": f"Bearer {KEY}"}}]}), KEY),
        (secrets({}, body={"mcp_servers": [{"authorization_token": KEY}]}), KEY),
    ],
)
def test_a_secret_is_overwritten_at_equal_length(found: RequestSecrets, text: str) -> None:
    kept = found.overwritten_text(text)

    assert len(kept) == len(text)
    assert KEY[8:20].lower() not in kept.lower()
    assert base64.b64encode(KEY.encode()).decode()[:20] not in kept


def test_what_surrounds_a_secret_stays_and_json_stays_json() -> None:
    said = {"message": f'the key "{KEY}"', "n": 12345678901234567890123, "é": "\u2028😀"}
    kept = decoded(secrets().overwritten(json.dumps(said, ensure_ascii=False).encode()))

    assert kept == said | {"message": f'the key "{"X" * len(KEY)}"'}


@each(
    ("text", "kept"),
    [
        ('"org-AbCdEf1234567890GhIjKlMn"', '"org-' + "X" * 24 + '"'),
        ("in organization org-AbCdEf1234567890GhIjKlMn on", "in organization org-" + "X" * 24 + " on"),
        ("proj_AbCdEf1234567890GhIjKlMn", "proj_" + "X" * 24),
        ("user-friendly and org-wide", "user-friendly and org-wide"),
        ("chatcmpl-AbCdEf1234567890GhIjKlMn", "chatcmpl-AbCdEf1234567890GhIjKlMn"),
    ],
)
def test_ids_of_accounts_are_overwritten_and_words_are_not(text: str, kept: str) -> None:
    assert secrets().overwritten_text(text) == kept


def test_a_dummy_key_removes_no_words() -> None:
    assert secrets({"authorization": "Bearer none"}).overwritten_text("There is none.") == "There is none."


@given(st.binary(max_size=300), st.integers(0, 300))
def test_bytes_around_a_secret_never_change(data: bytes, place: int) -> None:
    before, after = data[:place], data[place:]
    kept = secrets().overwritten(before + b"\n" + KEY.encode() + b"\n" + after)

    assert len(kept) == len(data) + len(KEY) + 2
    assert KEY.encode() not in kept
    assert kept[: len(before)] == before
    assert kept[len(kept) - len(after) :] == after


def test_headers_of_requests_and_responses_are_kept_by_name() -> None:
    found = secrets({"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "X-Stainless-Os": "Linux"})
    given_headers: list[tuple[str, str]] = [
        ("Content-Type", "text/event-stream"),
        ("Set-Cookie", "__cf_bm=1"),
        ("openai-organization", "acme"),
        ("x-request-id", KEY),
        ("x-ratelimit-remaining-tokens", "12"),
        ("retry-after", "3"),
    ]

    assert found.request_headers({"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}) == {
        "content-type": "application/json"
    }
    assert found.response_headers(given_headers) == [
        ("Content-Type", "text/event-stream"),
        ("x-request-id", "X" * len(KEY)),
        ("x-ratelimit-remaining-tokens", "12"),
        ("retry-after", "3"),
    ]


def test_the_key_in_a_query_is_overwritten_even_if_it_is_a_word() -> None:
    assert (
        secrets({}).overwritten_path("/v1beta/models/m:g?key=dummy&alt=sse") == "/v1beta/models/m:g?key=XXXXX&alt=sse"
    )


@each(
    ("path", "facts"),
    [
        ("/v1/chat/completions", ("openai", "openai.chat", "/chat/completions", None)),
        ("/openai/v1/chat/completions", ("openai", "openai.chat", "/chat/completions", None)),
        ("/v1/responses", ("openai", "openai.responses", "/responses", None)),
        ("/v1/embeddings", ("openai", "openai.embeddings", "/embeddings", None)),
        ("/v1/messages", ("anthropic", "anthropic.messages", "/v1/messages", None)),
        ("/v1/messages/count_tokens", ("anthropic", "anthropic.other", "/v1/messages/count_tokens", None)),
        (
            "/v1beta/models/gemini-3-pro:streamGenerateContent",
            ("google", "google.generate", "models/gemini-3-pro:streamGenerateContent", "gemini-3-pro"),
        ),
        (
            "/v1beta/models/gemini-embedding-001:batchEmbedContents",
            ("google", "google.other", "models/gemini-embedding-001:batchEmbedContents", "gemini-embedding-001"),
        ),
        (
            "/v1beta1/publishers/google/models/gemini-2.5-pro:streamGenerateContent",
            ("google", "google.generate", "models/gemini-2.5-pro:streamGenerateContent", "gemini-2.5-pro"),
        ),
        ("/v1/models", ("openai", "openai.other", "/v1/models", None)),
    ],
)
def test_a_path_tells_the_provider(path: str, facts: tuple[Any, ...]) -> None:
    found = endpoint_of(path)

    assert (found.provider, found.wire, found.name, found.model) == facts
