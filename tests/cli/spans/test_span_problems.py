"""`headrace spans` finds out whether a data directory can be used, and changes nothing in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.cli.spans.span_problems import directory_problem


def test_the_check_for_a_writable_directory_leaves_no_file(tmp_path: Path) -> None:
    assert directory_problem(tmp_path / "data") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_takes_the_place_of_the_checked_one_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the parent directory could put another folder of the user in the place of a temporary one."""
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
