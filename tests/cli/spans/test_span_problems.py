"""What `headrace spans` finds out of a data directory that cannot be used, and what it leaves there: nothing, and all that there was."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.cli.spans.span_problems import directory_problem


def test_it_tries_whether_a_file_can_be_written_and_leaves_none(tmp_path: Path) -> None:
    assert directory_problem(tmp_path / "data") is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_exchanged_meanwhile_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns the directory above can rename a folder of the user's into the place of one that is to be removed with all in it."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "id_ed25519").write_text("a key")

    def exchange(count: int) -> bytes:
        for made in tmp_path.glob(".headrace-*"):
            made.rename(tmp_path / "away")
            precious.rename(made)
        return b"\0" * count

    monkeypatch.setattr("headrace.cli.spans.span_problems.bytes", exchange, raising=False)

    assert directory_problem(tmp_path / "data") is None
    assert [path.read_text() for path in tmp_path.rglob("id_ed25519")] == ["a key"]
