"""Figures in the documentation are those of the product: a change of one needs a change of the other."""

from __future__ import annotations

from headrace.runs import session, silence
from headrace_workers.runs import timeouts as clocks


def test_the_graces_are_those_that_the_documentation_states() -> None:
    assert session.ABORT_GRACE == 0.2
    assert session.DRAIN_GRACE == 60.0
    assert session.DEADLINE_GRACE == 5.0
    assert silence.QUERY_AFTER == 15.0
    assert silence.QUERY_TIMEOUT == 10.0
    assert clocks.FINISH_GRACE == 2.0
