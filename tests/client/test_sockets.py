"""What the connecting end promises of connections that come and go."""

from __future__ import annotations

from pathlib import Path

from headrace.sockets import Dealer, new_context


def test_a_connection_may_be_made_at_once_after_another_was_closed(tmp_path: Path) -> None:
    """What was closed is let go of a moment later, by another thread; the next one may lie where it lay."""
    context = new_context()
    for _ in range(500):
        Dealer(context, f"ipc://{tmp_path / 'nobody'}").close()
    context.term()
