"""The error for a ``headrace.toml`` that cannot be used names the file, the table, the key, and the allowed values."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, product
from pathlib import Path

import pytest

from headrace import Client
from headrace.errors import ConfigurationError
from headrace.settings.settings import load_settings
from tests.cases import each
from tests.repetition import repeated

BAD = Path(__file__).resolve().parents[2] / "configurations"

MESSAGES = {
    "api-in-capitals": 'providers.mine.api is "OpenAI-Chat"; did you mean "openai-chat"? It takes "openai-chat", "openai-responses", "anthropic", "google", "openai" or the name of an installed wire format, as in ollama-chat',
    "budget-address-of-another-scheme": "budget.url must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH",
    "budget-address-with-a-bad-port": "budget.url must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH",
    "budget-address-with-a-hash": "budget.url must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH; it has a # in it (in a password write %23)",
    "budget-address-with-a-line-end": "budget.url has a control character in it; take it out",
    "budget-address-with-a-name-as-number": "budget.url must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH",
    "budget-address-without-path": "budget.url must be redis://HOST:PORT/NUMBER, rediss://HOST:PORT/NUMBER or unix:///PATH",
    "budget-engines-none": "budget.engines is 0; it takes a whole number from 1 to 10_000",
    "budget-name-with-a-blank": 'budget.name is "our engines"; it takes at most 100 letters, digits, _, -, . and :',
    "connect-timeout-false": "engine.connect_timeout is false; it takes a number of seconds from 0.001 to 31_622_400",
    "drain-timeout-negative-infinite": "engine.worker_drain_timeout is -inf; it takes a number of seconds from 0 to 31_622_400",
    "engine-as-array-of-tables": "engine is a list; it is a table: [engine]",
    "engine-in-capitals": "ENGINE is not known; did you mean [engine]?",
    "engine-is-a-number": "engine is 4; it is a table: [engine]",
    "engine-setting-in-camel-case": "engine.maxRunsPerWorker is not known; did you mean max_runs_per_worker?",
    "engine-setting-misspelt": "engine.worker is not known; did you mean workers?",
    "engine-setting-twice": "the file is not TOML: Cannot overwrite a value (at line 3, column 12)",
    "engine-setting-unlike-any": "engine.colour is not known; [engine] takes workers, max_runs_per_worker, max_waiting_runs, connect_timeout, first_chunk_timeout, idle_timeout, total_timeout, stalled_reader_timeout, max_worker_age, max_worker_memory, max_retries, worker_drain_timeout",
    "engine-setting-with-hyphens": "engine.idle-timeout is not known; did you mean idle_timeout?",
    "fallback-in-a-circle": 'models."openai/gpt-4o".fallbacks lead in a circle: openai/gpt-4o → anthropic/claude-opus-4-1 → openai/gpt-4o',
    "fallback-is-a-string": 'models."openai/gpt-4o".fallbacks is "claude-opus-4-1"; it takes a list of strings',
    "fallback-to-an-unknown-model": 'models."openai/gpt-4o".fallbacks[1] does not tell its provider; write PROVIDER/MODEL; the providers are: anthropic, azure, deepseek, google, groq, llamacpp, mistral, ollama, openai, openai-chat, openai-responses, openrouter, together, vllm, xai',
    "fallback-to-an-unknown-provider": 'models."openai/gpt-4o".fallbacks[0] does not name a provider that exists; did you mean groq/…?',
    "fallback-to-itself": 'models."openai/gpt-4o".fallbacks[0] is the model itself',
    "fallback-twice": 'models."openai/gpt-4o".fallbacks[1] is in the list twice',
    "first-chunk-timeout-text": 'engine.first_chunk_timeout is "30s"; it takes a number of seconds from 0.001 to 31_622_400',
    "hedge-after-nothing": 'models."openai/gpt-4o".hedge_after_ms is 0; it takes a whole number of milliseconds from 1 to 86_400_000',
    "hedge-in-two-ways": 'models."openai/gpt-4o".hedge_after_ms is set, and hedge is "p95"; take one of the two out',
    "hedge-unknown": 'models."openai/gpt-4o".hedge is "p99"; it takes "off" or "p95"',
    "idle-timeout-nan": "engine.idle_timeout is nan; it takes a number of seconds from 0.001 to 31_622_400",
    "idle-timeout-negative": "engine.idle_timeout is -5; it takes a number of seconds from 0.001 to 31_622_400",
    "idle-timeout-of-400-digits": "engine.idle_timeout is a number of many digits; it takes a number of seconds from 0.001 to 31_622_400",
    "idle-timeout-zero": "engine.idle_timeout is 0; it takes a number of seconds from 0.001 to 31_622_400",
    "include": "include is not known; the file takes providers, engine, spans, sinks, prices, limits, models, keys, spending, budget",
    "json": "the file is not TOML: Invalid statement (at line 1, column 1)",
    "keys-empty-variable": "keys.openai.env[1] does not fit; it takes the name of an environment variable (letters, digits and _): the key itself does not belong in the file",
    "keys-none": "keys.openai names no key; set env, file, or both",
    "keys-of-no-provider": "keys.opnai is about a provider that does not exist; did you mean openai?",
    "keys-themselves": "keys.openai.env[0] does not fit; it takes the name of an environment variable (letters, digits and _): the key itself does not belong in the file",
    "keys-twice": "keys.openai.env[1] is in the list twice",
    "limit-fraction": "limits.openai.requests_per_minute is 0.5; it takes a whole number from 1 to 1_000_000_000",
    "limit-infinite": "limits.openai.tokens_per_minute is inf; it takes a whole number from 1 to 1_000_000_000",
    "limit-negative": "limits.openai.requests_per_minute is -5; it takes a whole number from 1 to 1_000_000_000",
    "limit-text": 'limits.openai.max_concurrency is "8"; it takes a whole number from 1 to 1_000_000_000',
    "limits-misspelt": "limits.openai.request_per_minute is not known; did you mean requests_per_minute?",
    "limits-none": "limits.openai sets no limit; it takes requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute, max_concurrency",
    "limits-of-a-model-without-provider": 'limits.gpt-4o is not about a provider; did you mean [limits."openai/gpt-4o"]?',
    "limits-of-a-version": 'limits."openai/gpt-4o-2024-08-06" is about one version of a model; providers limit all versions together: write limits."openai/gpt-4o"',
    "limits-of-any-provider": 'limits."*" is about a provider that does not exist; the providers are: anthropic, azure, deepseek, google, groq, llamacpp, mistral, ollama, openai, openai-chat, openai-responses, openrouter, together, vllm, xai',
    "limits-of-no-model": 'limits."openai/" names no model after the /; write limits.openai for all models',
    "limits-of-no-provider": "limits.anthropc is about a provider that does not exist; did you mean anthropic?",
    "limits-twice": "limits.mine.requests_per_minute is set in providers.mine too; take one of the two out",
    "limits-with-a-question-mark": 'limits."openai/gpt-?" fits no model: only * stands for other characters',
    "limits-with-a-version-behind-a-pattern": 'limits."openai/gpt-*-2024-08-06" is about one version of a model; providers limit all versions together: write limits."openai/gpt-*"',
    "max-retries-negative": "engine.max_retries is -1; it takes a whole number from 0 to 100",
    "models-of-no-provider": 'models."mine/large" is about a provider that does not exist; the providers are: anthropic, azure, deepseek, google, groq, llamacpp, mistral, ollama, openai, openai-chat, openai-responses, openrouter, together, vllm, xai',
    "models-with-a-question-mark": 'models."openai/gpt-?" fits no model: only * stands for other characters',
    "models-without-provider": 'models.gpt-5 is not about a model; write PROVIDER/MODEL, as in [models."openai/gpt-4o"]',
    "nested-too-deeply": "the file cannot be read as TOML: it is nested too deeply",
    "not-toml": "the file is not TOML: Expected ']' at the end of a table declaration (at line 1, column 8)",
    "price-is-a-number": "prices.gpt-4o is 2.5; it is a table with a name: [prices.NAME]",
    "price-misspelt": "prices.gpt-4o.cached is not known; did you mean cached_input?",
    "price-nan": "prices.gpt-4o.input is nan; it takes a number of dollars from 0 to 1_000_000",
    "price-negative": "prices.gpt-4o.input is -1; it takes a number of dollars from 0 to 1_000_000",
    "price-with-a-dot-in-its-name": 'prices.gpt-4.1 is not known; did you mean [prices."gpt-4.1"]? A name with a dot takes quotes',
    "price-without-input": "prices.gpt-4o.input is missing",
    "prices-as-array-of-tables": "prices is a list; it takes tables: [prices.NAME]",
    "provider-address-empty": "providers.mine.base_url must begin with http:// or https://",
    "provider-address-is-a-number": "providers.mine.base_url is 8080; it takes a string",
    "provider-address-with-a-bad-port": "providers.mine.base_url must be an http:// or https:// address; its host or its port cannot be used",
    "provider-address-with-a-blank": "providers.mine.base_url has a blank, a line end or another character that is not allowed in an address",
    "provider-address-with-a-host-of-a-shell": "providers.mine.base_url must be an http:// or https:// address; its host or its port cannot be used",
    "provider-address-with-a-password": "providers.mine.base_url has a user name or a password in it; a key belongs in the provider's environment variable",
    "provider-address-with-an-empty-label": "providers.mine.base_url must be an http:// or https:// address; its host or its port cannot be used",
    "provider-address-with-another-scheme": "providers.mine.base_url must begin with http:// or https://",
    "provider-address-without-scheme": "providers.mine.base_url must begin with http:// or https://; did you mean https://api.example.com/v1?",
    "provider-api-misspelt": 'providers.mine.api is "openai_chat"; did you mean "openai-chat"? It takes "openai-chat", "openai-responses", "anthropic", "google", "openai" or the name of an installed wire format, as in ollama-chat',
    "provider-api-unlike-any": 'providers.mine.api is "soap 1.2"; it takes "openai-chat", "openai-responses", "anthropic", "google", "openai" or the name of an installed wire format, as in ollama-chat',
    "provider-as-array-of-tables": "providers.mine is a list; it is a table with a name: [providers.NAME]",
    "provider-key-in-place-of-its-variable": "providers.mine.api_key_env does not fit; it takes the name of an environment variable (letters, digits and _): the key itself does not belong in the file",
    "provider-limit-zero": "providers.mine.max_concurrency is 0; it takes a whole number from 1 to 1_000_000_000",
    "provider-variables-of-another-kind": "providers.mine.api_key_env[1] is 5; it takes the name of an environment variable (letters, digits and _): the key itself does not belong in the file",
    "provider-with-a-dot-in-its-name": 'providers.our.gateway is not known; did you mean [providers."our.gateway"]? A name with a dot takes quotes',
    "provider-with-a-proxy": "providers.mine.proxy is not known; [providers.mine] takes api, base_url, api_key_env, requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute, max_concurrency",
    "provider-with-a-slash": 'providers: "a/b" cannot be a name; it takes a name without blanks and without /, as in NAME/model',
    "provider-with-a-steering-character": 'providers: "a\\u009bb" cannot be a name; it takes a name without blanks and without /, as in NAME/model',
    "provider-with-headers": "providers.mine.headers is not known; [providers.mine] takes api, base_url, api_key_env, requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute, max_concurrency",
    "provider-with-its-key": "providers.mine.api_key is not known; did you mean api_key_env?",
    "provider-without-a-name": "providers.api is a string; it is a table with a name: [providers.NAME]",
    "provider-without-address": "providers.mine.base_url is missing",
    "provider-without-api": "providers.mine.api is missing",
    "reader-timeout-negative": "engine.stalled_reader_timeout is -0.5; it takes a number of seconds from 0 to 31_622_400",
    "runs-below-none": "engine.max_runs_per_worker is -5; it takes a whole number from 1 to 1_000_000",
    "runs-none": "engine.max_runs_per_worker is 0; it takes a whole number from 1 to 1_000_000",
    "setting-outside-its-table": "workers is not known outside a table; it belongs in [engine]",
    "sink-address-with-an-empty-label": "sinks.mine.url must be an http:// or https:// address",
    "sink-address-without-scheme": "sinks.mine.url must be an http:// or https:// address",
    "sink-batch-zero": "sinks.mine.batch_size is 0; it takes a whole number of spans from 1 to 100_000",
    "sink-file-with-an-address": 'sinks.mine.url is not for a sink of type "jsonl"; take it out',
    "sink-header-is-a-number": "sinks.mine.headers.x-team is 5; it takes a string",
    "sink-header-with-a-blank-in-its-name": "sinks.mine.headers: a header's name has characters that HTTP does not allow",
    "sink-header-with-a-line-break": "sinks.mine.headers.authorization has a control character in it; take it out",
    "sink-semconv-unknown": 'sinks.mine.semconv is "1.0"; it takes "1.41" or "current"',
    "sink-service-with-a-path": 'sinks.mine.path is not for a sink of type "http"; take it out',
    "sink-timeout-zero": "sinks.mine.timeout is 0; it takes a number of seconds from 0.001 to 3_600",
    "sink-type-misspelt": 'sinks.mine.type is "otel"; did you mean "otlp"? It takes "http", "jsonl" or "otlp"',
    "sink-without-a-name": "sinks.type is a string; it is a table with a name: [sinks.NAME]",
    "sink-without-address": "sinks.mine.url is missing",
    "sink-without-path": "sinks.mine.path is missing",
    "sink-without-type": "sinks.mine.type is missing",
    "sinks-as-a-list": "sinks is a list; it takes tables: [sinks.NAME]",
    "spans-content-unknown": 'spans.content is "some"; it takes "full" or "none"',
    "spans-directory-is-a-table": "spans.directory is a table; it takes a string",
    "spans-directory-with-a-zero": "spans.directory has a control character in it; take it out",
    "spans-durability-unknown": 'spans.durability is "ful"; did you mean "full"? It takes "full" or "normal"',
    "spans-enabled-text": 'spans.enabled is "no"; it takes true or false',
    "spans-file-too-small": "spans.max_file_bytes is 0; it takes a whole number of bytes from 100_000 to 1_125_899_906_842_624",
    "spans-memory-negative": "spans.memory_bytes is -1; it takes a whole number of bytes from 0 to 1_125_899_906_842_624",
    "spans-redact-is-a-path": 'spans.redact is "hooks/redact.py:hook"; it takes "module:function"',
    "spans-redact-without-function": 'spans.redact is "my_module"; it takes "module:function"',
    "spans-retention-negative": "spans.retention_days is -1; it takes a number of days from 0 to 36_525",
    "spending-nan": "spending.daily.max_cost is nan; it takes a number of dollars above 0 and at most 1_000_000_000",
    "spending-none": "spending.daily.max_cost is 0; it takes a number of dollars above 0 and at most 1_000_000_000",
    "spending-of-no-provider": "spending.daily.provider is a provider that does not exist; did you mean openai?",
    "spending-with-a-question-mark": "spending.daily.model fits no model: only * stands for other characters",
    "spending-without-a-price": "spending.daily.model has no price, so its cost cannot be counted; give it one in [prices]",
    "spending-without-amount": "spending.daily.max_cost is missing",
    "table-misspelt": "engines is not known; did you mean [engine]?",
    "table-unlike-any": "database is not known; the file takes providers, engine, spans, sinks, prices, limits, models, keys, spending, budget",
    "total-timeout-absurd": "engine.total_timeout is 1e+300; it takes a number of seconds from 0.001 to 31_622_400",
    "total-timeout-infinite": "engine.total_timeout is inf; it takes a number of seconds from 0.001 to 31_622_400",
    "two-tables-of-one-name": "the file is not TOML: Cannot declare ('engine',) twice (at line 3, column 8)",
    "waiting-negative": "engine.max_waiting_runs is -1; it takes a whole number from 0 to 100_000_000",
    "worker-age-nan": "engine.max_worker_age is nan; it takes a number of seconds from 0 to 31_622_400",
    "worker-memory-absurd": "engine.max_worker_memory is 9223372036854775807; it takes a whole number of bytes from 0 to 1_125_899_906_842_624",
    "worker-memory-text": 'engine.max_worker_memory is "2GB"; it takes a whole number of bytes from 0 to 1_125_899_906_842_624',
    "worker-memory-with-a-unit": 'engine.max_worker_memory is "512MB"; it takes a whole number of bytes from 0 to 1_125_899_906_842_624',
    "workers-absurd": "engine.workers is 1000000; it takes a whole number from 0 to 1_024",
    "workers-date": "engine.workers is a date or a time; it takes a whole number from 0 to 1_024",
    "workers-fraction": "engine.workers is 2.5; it takes a whole number from 0 to 1_024",
    "workers-list": "engine.workers is a list; it takes a whole number from 0 to 1_024",
    "workers-negative": "engine.workers is -1; it takes a whole number from 0 to 1_024",
    "workers-of-400-digits": "engine.workers is a number of many digits; it takes a whole number from 0 to 1_024",
    "workers-text": 'engine.workers is "4"; it takes a whole number from 0 to 1_024',
    "workers-true": "engine.workers is true; it takes a whole number from 0 to 1_024",
    "yaml": "the file is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)",
}
"""Each file of ``tests/configurations`` without its ending, and the message after the file's name."""


def message(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"HEADRACE_CONFIG": str(path)})
    return str(caught.value)


def test_the_table_has_a_line_for_each_bad_file() -> None:
    assert sorted(MESSAGES) == sorted(path.stem for path in BAD.glob("*.toml"))
    assert len(MESSAGES) >= 40


@each("name", MESSAGES)
def test_the_error_of_a_bad_file_names_the_table_the_key_and_the_allowed_values(name: str) -> None:
    path = BAD / f"{name}.toml"
    said = message(path)
    assert said == f"{path}: {MESSAGES[name]}"
    assert "sk-not-to-be-shown" not in said
    assert "s3cret" not in said


@each("name", MESSAGES)
def test_a_client_reports_a_bad_file_before_it_starts_anything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", str(BAD / f"{name}.toml"))
    with pytest.raises(ConfigurationError) as caught:
        Client()
    assert str(caught.value) == f"{BAD / name}.toml: {MESSAGES[name]}"


COMMANDS = ("run Hello --model gpt-4o", "serve --directory engine", "spans list")
SOME_BAD = ("workers-negative", "runs-none", "not-toml", "spans-redact-without-function")


@pytest.mark.parametrize(
    ("name", "command"),
    repeated([*zip(SOME_BAD, cycle(COMMANDS), strict=False)], [*product(SOME_BAD, COMMANDS)]),
)
def test_a_command_reports_a_bad_file_in_one_line_and_ends_with_2(name: str, command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *command.split()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HEADRACE_CONFIG": str(BAD / f"{name}.toml")},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"headrace: {BAD / name}.toml: {MESSAGES[name]}\n"
    assert list(tmp_path.iterdir()) == [], "nothing was started or made"


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _written(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


TEXT = "[engine]\nworkers = 2\n# Größe\n"
FILES = {
    "a directory": (_directory, "this is a directory; name a file"),
    "a FIFO": (_fifo, "this is not a regular file; name a file"),
    "a link to nothing": (_dangling, "the link leads to no file; mend or remove it"),
    "a link to itself": (_loop, "Too many levels of symbolic links"),
    "UTF-16": (_written(TEXT.encode("utf-16")), "the file is UTF-16; save it as UTF-8"),
    "UTF-16, big-endian": (_written(b"\xfe\xff" + TEXT.encode("utf-16-be")), "the file is UTF-16; save it as UTF-8"),
    "UTF-16 without a mark": (_written("[engine]\n".encode("utf-16-le")), "the file is UTF-16; save it as UTF-8"),
    "Latin-1": (_written(TEXT.encode("latin-1")), "the file is not UTF-8 text (byte 25); save it as UTF-8"),
    "bytes": (_written(bytes(range(256))), "the file is not UTF-8 text"),
    "a figure of many digits": (_written(b"[engine]\nworkers = 1" + b"0" * 5000), "the file is not TOML"),
    "a large file": (_written(b"#" * (1024 * 1024 + 1)), "the file has more than 1048576 bytes"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "found"])
def test_a_file_that_cannot_be_read_is_an_error_and_never_ignored(
    kind: str, is_named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = FILES[kind]
    path = tmp_path / "headrace.toml"
    make(path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"HEADRACE_CONFIG": str(path)} if is_named else {})
    assert str(caught.value).startswith(f"{path}: {words}")


@pytest.mark.parametrize("path", ["/dev/zero", "/nonexistent/headrace.toml", "/dev/null/headrace.toml"])
def test_a_named_file_that_does_not_exist_is_an_error(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"this is not a regular file|there is no such file"):
        load_settings({"HEADRACE_CONFIG": path})


def test_the_null_device_stands_for_no_settings() -> None:
    assert load_settings({"HEADRACE_CONFIG": "/dev/null"}) == load_settings(
        {"HEADRACE_CONFIG": "", "HOME": "/nonexistent"}
    )


def test_a_byte_order_mark_of_UTF_8_is_no_mistake(tmp_path: Path) -> None:  # noqa: N802 - as it is written
    path = tmp_path / "headrace.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_settings({"HEADRACE_CONFIG": str(path)}).engine.workers == 2


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user whom modes of files concern; root may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("environ", [{"HEADRACE_CONFIG": "headrace.toml"}, {}], ids=["named", "found"])
def test_a_file_that_this_user_may_not_read_is_an_error(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "headrace.toml").write_text("")
    (tmp_path / "headrace.toml").chmod(0)
    monkeypatch.chdir(tmp_path)
    with (
        nobody(),
        pytest.raises(ConfigurationError, match=r"headrace\.toml: the file cannot be read: Permission denied"),
    ):
        load_settings(environ)


def test_a_current_directory_that_cannot_be_searched_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    monkeypatch.chdir(shut)
    shut.chmod(0)
    try:
        with nobody():
            with pytest.raises(ConfigurationError, match=r"headrace\.toml: the current directory cannot be searched"):
                load_settings({})
            load_settings({"HEADRACE_CONFIG": "/dev/null"})
    finally:
        shut.chmod(0o700)


def test_a_current_directory_that_was_deleted_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_settings({}).engine.workers == 0


def test_an_unknown_log_level_is_an_error_that_names_the_levels() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"HEADRACE_LOG": "warming"})
    assert str(caught.value) == (
        "HEADRACE_LOG is 'warming'; did you mean WARNING? It takes DEBUG, INFO, WARNING, ERROR, CRITICAL"
    )
    assert load_settings({"HEADRACE_LOG": "info"})


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 10**400, "5", True, None])
def test_a_client_refuses_a_connect_timeout_that_is_none(timeout: object) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^connect_timeout is .*; it takes a number of seconds from 0\.001 to"
    ):
        Client(connect_timeout=timeout)  # type: ignore[arg-type]
