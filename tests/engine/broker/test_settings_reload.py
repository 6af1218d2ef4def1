"""A broker hands on the limits of settings that it reads again; settings that cannot be used change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.settings.settings import Settings
from headrace_engine.broker.settings_reload import SettingsReload


def test_limits_are_handed_on_and_a_mistake_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "headrace.toml"
    path.write_text("[limits.openai]\nmax_concurrency = 3\n")
    monkeypatch.setenv("HEADRACE_CONFIG", str(path))
    taken: list[Settings] = []
    reload = SettingsReload(taken.append)

    reload.reload()
    assert [settings.limits["openai"].max_concurrency for settings in taken] == [3]

    path.write_text("[limits.openai]\nmax_concurrency = 0\n")
    reload.reload()
    assert len(taken) == 1
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "limits are not read again"
    ]
