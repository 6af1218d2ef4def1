"""``headrace serve --log-format``: the engine gets the format; the lines for people stay away from a log of JSON."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.cli.main import main


class EngineStarted(BaseException):
    """Raised where ``serve`` would become the engine. ``environ`` is the engine's environment."""

    def __init__(self, environ: dict[str, str]) -> None:
        super().__init__()
        self.environ = environ


@pytest.fixture(autouse=True)
def _no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(_program: str, _command: list[str], environ: dict[str, str]) -> None:
        raise EngineStarted(environ)

    monkeypatch.setattr(os, "execve", started)


@pytest.mark.parametrize("is_variable", [True, False])
def test_an_engine_that_logs_json_gets_the_format_and_no_hint_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_variable: bool
) -> None:
    directory = tmp_path / "e"
    options = [] if is_variable else ["--log-format", "json"]
    if is_variable:
        monkeypatch.setenv("HEADRACE_LOG_FORMAT", "json")
    with pytest.raises(EngineStarted) as started:
        main(["serve", "--directory", str(directory), *options])

    assert started.value.environ["HEADRACE_LOG_FORMAT"] == "json"
    assert capsys.readouterr().err == ""


def test_an_option_goes_before_the_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_LOG_FORMAT", "json")
    with pytest.raises(EngineStarted) as started:
        main(["serve", "--directory", str(tmp_path / "e"), "--log-format", "text"])

    assert started.value.environ["HEADRACE_LOG_FORMAT"] == "text"
    assert "headrace status" in capsys.readouterr().err
