"""A provider's key never stands in what a run says of a failure, and no word is broken for it."""

from __future__ import annotations

import base64
import json
import secrets
import string
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.settings.known_secrets import provider_secrets
from headrace.settings.settings import ProviderConfig, Settings
from headrace.text.secret_mask import SecretMask
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, Usage
from headrace.wire.messages import Finished
from headrace_workers.masking import RunMasks, masked_terminal
from tests.cases import each
from tests.workers.providers.example_answers import APIS, WHOLE
from tests.workers.runs.driven import JSON, Driven

KEY = "sk-proj-4f9a0c7712"


def failure(message: str, key: str, *, api: str = "openai-chat", status: int = 401, code: str | None = None) -> str:
    run = Driven(api=api, api_key=key).respond(status)
    error = {"type": "error", "error": {"message": message, "type": code or "authentication_error"}}
    run.receive(json.dumps(error).encode() if status != 200 else b"data: " + json.dumps(error).encode() + b"\n\n")
    run.complete()
    return run.failure.reason


@pytest.mark.parametrize("api", APIS)
@each("status", [200, 401])
@each("key", ["mock", "k", "in", "none", "test", "dummy", "x", "sk-", "placeholder", "EMPTY"])
def test_a_dummy_key_breaks_no_word(api: str, status: int, key: str) -> None:
    said = f"{key}s and pre{key} and {key}_model and {key}-model and mocking the things in tests"
    expected = said if key != "in" else said.replace(" in ", " [key] ")

    assert failure(said, key, api=api, status=status) == expected


@pytest.mark.parametrize("key", ["mock", "abc123", "Zx9-1q2", "placeholder", "swordfish", KEY, "a" * 64])
@each("around", ["{}", "'{}'", "Bearer {}", "key={}&x=1", "({}).", '"{}"', "{}: no", "/v1/{}/x", "a\n{}\nb"])
def test_a_key_that_stands_alone_is_taken_out(key: str, around: str) -> None:
    assert failure("say " + around.format(key), key) == "say " + around.format("[key]")


@pytest.mark.parametrize("around", ["{}x", "n{}", "\\n{}", "{}_", "-{}-", "{0}{0}"])
def test_a_real_key_is_taken_out_wherever_it_stands(around: str) -> None:
    assert failure("say " + around.format(KEY), KEY) == "say " + around.format("[key]")


@each("length", range(480, 505))
def test_no_part_of_a_key_is_left_where_the_reason_is_cut_short(length: int) -> None:
    reason = failure("y" * (length - 1) + " " + KEY + " is no key", KEY)

    assert KEY[:6] not in reason


def test_a_key_of_megabytes_takes_no_worker_down() -> None:
    began = time.process_time()
    assert SecretMask(["k3" * 1_000_000]).masked("no such key …") == "no such key …"
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("length", [257, 1_100, 2_000, 16_384])
def test_a_token_of_thousands_of_characters_is_taken_out_whole_and_in_part(length: int) -> None:
    key = (secrets.token_urlsafe(length))[:length]
    began = time.process_time()
    mask = SecretMask([key])
    for part in (key, key[1:], key[:-1], key[:40], key[-40:], key[: length // 2], key[length // 4 : -length // 8]):
        assert mask.masked(f"say {part} so") == "say [key] so"
    assert mask.masked(f"say {key.replace('_', '%5F')}") == "say [key]"
    assert time.process_time() - began < 1.0


def test_a_key_in_the_place_of_a_code_is_taken_out() -> None:
    run = Driven(api_key=KEY).respond(401)
    run.receive(json.dumps({"error": {"message": "no", "code": KEY}}).encode())
    run.complete()

    assert run.failure.code == "[key]"


@pytest.mark.parametrize("api", APIS)
@each("key", ["m", "r1", "c1", "look", "STOP", "mock"])
def test_a_dummy_key_that_is_a_models_name_or_an_id_changes_neither(api: str, key: str) -> None:
    run = Driven(api=api, api_key=key, stream=False).respond(200, {**JSON, "x-request-id": key})
    run.receive(json.dumps(WHOLE[api]).encode().replace(b'"m"', json.dumps(key).encode()))
    run.complete()

    assert run.finished.model == key
    assert [(call.id, call.name) for call in run.finished.tool_calls] == [("c1", "look")]
    assert run.finished.provider_finish_reason
    assert "[key]" not in f"{run.finished} {run.core.request_id} {run.core.response_id}"


def test_a_dummy_key_of_another_provider_changes_nothing() -> None:
    settings = Settings(providers={"p": ProviderConfig(api="google", base_url="http://x", api_key_env=["A", "B"])})
    masks = RunMasks([*provider_secrets(settings, {"A": "test"}), *provider_secrets(settings, {"B": KEY}), "s3cret"])
    mask = masks.mask_of("sk-own-0123456789abcdef", None)

    assert mask.masked(f"a test of {KEY} and sk-own-0123456789abcdef by s3cret") == "a test of [key] and [key] by [key]"
    assert masks.masked_line(f"a test of {KEY} and sk-own-0123456789abcdef") == "a test of [key] and [key]"
    assert masks.mask_of(None, None).masked("a test") == "a test"


def test_the_words_of_a_simulated_provider_stay_whole() -> None:
    assert failure("mock status 401 of the mocked server", "mock") == "[key] status 401 of the mocked server"
    assert failure("the mocking status", "k") == "the mocking status"


@pytest.mark.parametrize(
    "key", ["sk-simulated", "sk-placeholder-key", "lm-studio", "no-key-required", "ollama-local-key"]
)
def test_a_dummy_of_words_breaks_none_of_them(key: str) -> None:
    said = "the simulated provider of LM Studio and Ollama takes a placeholder, and no key is required: read the local docs"

    assert SecretMask([key]).masked(f"{said} ({key})") == f"{said} ([key])"


def test_a_text_without_a_key_stays_as_it_is_whatever_its_spelling() -> None:
    mask = SecretMask([KEY])
    for said in (
        "100% of /v1/a%20b&amp;c",
        '{"a": "\\u00e4\\n"}',
        "C:\\keys\\x",
        "\ud83d half",
        "ⅻ İ K",
        "",
        "x" * 100_000,
    ):
        assert mask.masked(said) == said


def test_a_secret_that_repeats_itself_and_a_text_full_of_it_cost_little() -> None:
    began = time.process_time()
    assert "aaaaaaaaaaaa" not in SecretMask(["a" * 64]).masked(("a" * 63 + "b") * 500)
    assert KEY[:12] not in SecretMask([KEY]).masked(f"{KEY[:-1]} " * 1_700)
    assert time.process_time() - began < 2.0


@settings(deadline=None)
@given(
    key=st.text(string.ascii_letters + string.digits + "-_.+/=~", min_size=16, max_size=60).filter(
        lambda key: any(map(str.isdigit, key)) and len(set(key)) > 8
    ),
    around=st.tuples(st.text(max_size=40), st.text(max_size=40)),
    spelling=st.sampled_from(
        [
            str,
            str.upper,
            lambda key: key[1:],
            lambda key: key[:-1],
            lambda key: quote(key, safe=""),
            lambda key: quote(quote(key, safe=""), safe=""),
            json.dumps,
            lambda key: json.dumps(json.dumps(key)),
            lambda key: "".join(f"&#x{ord(letter):x};" for letter in key),
            lambda key: base64.b64encode(key.encode()).decode(),
            lambda key: base64.urlsafe_b64encode(f"user:{key}".encode()).decode(),
            lambda key: key.encode().hex(),
        ]
    ),
)
def test_a_key_is_found_in_any_spelling_and_any_text(
    key: str, around: tuple[str, str], spelling: Callable[[str], str]
) -> None:
    mask = SecretMask([key])
    said = around[0] + spelling(key) + around[1]
    shown = mask.masked(said)
    small = spelling(key).lower()
    middle = small[len(small) // 4 : -len(small) // 4]

    assert not mask.is_clean(said)
    assert middle not in shown.lower() or middle in "".join(around).lower()
    assert key.lower() not in shown.lower()
    shown.encode("utf-8")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_a_text_of_any_letters_is_masked_without_an_error(said: str) -> None:
    mask = SecretMask([KEY], SecretMask(["mock", "another-key-00"]))

    assert KEY not in mask.masked(said + KEY)
    assert mask.masked(said) == said or any(part in said for part in ("mock", "%", "\\", "&"))


def test_what_a_provider_says_of_images_and_files_has_no_key() -> None:
    mask = RunMasks([]).mask_of(KEY, None)
    parts: list[Part] = [
        ImagePart(f"https://x.test/a.png?key={KEY}", provider_data={"seen": KEY}),
        AudioPart(
            data="QQ==", media_type="audio/wav", transcript=f"I say {KEY}.", provider_data={"audio": {"id": KEY}}
        ),
        ImagePart(data="QQ==", media_type=f"image/{KEY}"),
        FilePart(f"{KEY}.pdf", file_id=f"file_{KEY}", url=f"https://x.test/{KEY}"),
    ]
    finished = Finished("s", 1, 0, 0, "stop", None, Usage(), [], "m", Message("assistant", parts))

    masked = masked_terminal(finished, mask)

    assert isinstance(masked, Finished)
    assert masked.message is not None
    assert str(masked.message.content).count(KEY) == 1  # the model's own words
    assert masked.message.audio[0].transcript == f"I say {KEY}."
    assert masked.message.images[0].url == "https://x.test/a.png?key=[key]"
