"""Promises of what a worker takes for a wire format of a plug-in, and of what it says of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.settings.settings import ProviderConfig, Settings
from headrace.settings.wire_format_names import BUILT_IN_FORMATS, installed_formats
from headrace.types import Message
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ContinuingApi, ProviderFailedError, WireFormat
from headrace_workers.wire_format_plugins import declaration_problem, load_formats
from headrace_workers.worker_settings import Providers
from tests.plugin_packages import documented_plugin, install

REQUEST = RunRequest(provider="mine", model="m", messages=[Message("user", "Hi")], stream=True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, for packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_each_name_that_settings_know_is_declared_once_and_the_other_way_round() -> None:
    assert tuple(WIRE_FORMATS) == BUILT_IN_FORMATS
    assert [declared.name for declared in WIRE_FORMATS.values()] == [*BUILT_IN_FORMATS]
    assert [declaration_problem(name, declared) for name, declared in WIRE_FORMATS.items()] == [None] * 4


def test_only_google_continues_an_answer_and_only_anthropic_has_no_embeddings() -> None:
    assert [name for name, declared in WIRE_FORMATS.items() if declared.has_continuation] == ["google"]
    assert [name for name, declared in WIRE_FORMATS.items() if declared.embeddings is None] == ["anthropic"]


def test_a_plug_in_that_no_provider_names_is_not_imported(site: Path) -> None:
    install(site, "headrace_unnamed", "raise AssertionError('imported')\n", "unnamed-chat = headrace_unnamed:FORMAT")

    assert load_formats({"openai-chat", "google"}).formats == WIRE_FORMATS
    assert "unnamed-chat" in installed_formats()


def test_a_plug_in_cannot_take_the_place_of_a_format_of_headrace_s_own(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "headrace_thief_2", "raise AssertionError('imported')\n", "google = headrace_thief_2:FORMAT")

    loaded = load_formats({"google", "absent-chat"})

    assert loaded.formats["google"] is WIRE_FORMATS["google"]
    assert loaded.problems == {"absent-chat": "no installed package has this wire format"}
    assert "wire format is not used" in caplog.messages


def test_a_format_of_two_packages_is_used_from_neither(site: Path) -> None:
    for package in ("headrace_one", "headrace_two"):
        install(site, package, "raise AssertionError('imported')\n", f"twice-chat = {package}:FORMAT")

    problem = load_formats({"twice-chat"}).problems["twice-chat"]

    assert problem == "several packages have it: headrace_one 1.0, headrace_two 1.0; uninstall all but one"


def test_metadata_that_cannot_be_read_hides_no_other_package(site: Path) -> None:
    install(site, "headrace_fine", documented_plugin()[0], "ollama-chat = headrace_fine:FORMAT")
    install(site, "headrace_odd", "", "odd-chat = headrace_odd:FORMAT")
    (site / "headrace_odd-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[headrace.wire_formats]\n\xff\xfe = \xff\n"
    )

    assert load_formats({"ollama-chat", "odd-chat"}).formats["ollama-chat"].telemetry_provider == "ollama"


def changed(**fields: Any) -> WireFormat:
    return msgspec.structs.replace(WIRE_FORMATS["openai-chat"], name="my-chat", **fields)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (None, "is no WireFormat but NoneType"),
        (WIRE_FORMATS["google"], "has the name 'google'; its entry point says 'my-chat'"),
        (changed(api=object()), "has an api without the methods of ProviderApi"),
        (changed(embeddings=WIRE_FORMATS["openai-chat"].api), "has embeddings without the methods of SteppedApi"),
        (changed(telemetry_provider=""), "has no telemetry_provider"),
        (changed(), None),
    ],
)
def test_what_an_entry_point_leads_to_is_checked(declared: object, problem: str | None) -> None:
    assert declaration_problem("my-chat", declared) == problem


def test_a_plug_in_that_fails_at_a_request_fails_this_run_alone(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = documented_plugin()[0].replace('"model": request.model,', '"model": request.no_such_field,')
    install(site, "headrace_fails", module, "ollama-chat = headrace_fails:FORMAT")
    config = ProviderConfig(api="ollama-chat", base_url="http://127.0.0.1:1")

    with pytest.raises(ProviderFailedError) as caught:
        Providers(Settings(providers={"mine": config}), {}).prepare(REQUEST, None)

    assert caught.value.failure.reason == "the wire format ollama-chat failed to build the request: AttributeError"
    assert "wire format cannot build a request" in caplog.messages


def test_the_interfaces_of_a_format_are_told_apart() -> None:
    assert isinstance(WIRE_FORMATS["google"].api, ContinuingApi)
    assert not isinstance(WIRE_FORMATS["openai-chat"].api, ContinuingApi)
