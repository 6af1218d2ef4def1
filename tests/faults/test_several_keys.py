"""Several keys of one provider: runs are spread over them, a refused key gets no more runs, new keys come without a restart."""

from __future__ import annotations

from collections import Counter

import pytest

from headrace.testing import key_hash
from tests.faults.commands import headrace
from tests.faults.flows import LimitedEngine, kinds_of, limited_engine
from tests.faults.limited_load import Flow
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

KEYS = ("sk-first", "sk-second")
FLOW = Flow(name="keys", provider="several", key="", streams=20, script={"repeat": 3, "first_token_delay": 0.02})


def counts(engine: LimitedEngine) -> Counter[str]:
    """Return how many requests each key had, by its hash."""
    return Counter(arrival.key for arrival in engine.provider.arrivals())


def keys_of_last(engine: LimitedEngine, count: int) -> set[str]:
    """Return the keys of the latest requests."""
    return {arrival.key for arrival in engine.provider.arrivals()[-count:]}


@pytest.mark.tries(3)
def test_runs_are_spread_a_refused_key_leaves_and_a_new_file_counts_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    keys = tmp_path_factory.mktemp("keys") / "several"
    keys.write_text("\n".join(KEYS) + "\n")
    keys.chmod(0o600)
    config = f'[keys.several]\nfile = "{keys}"\n'
    with limited_engine(config, names=("several",), workers=2) as engine, engine.programs(1) as programs:
        first, second = map(key_hash, KEYS)
        engine.provider.limit(requests_per_minute=100_000)
        programs.begin(FLOW)
        wait_until(lambda: sum(counts(engine).values()) >= 200, 30.0, "200 requests")
        shares = counts(engine)
        assert min(shares[first], shares[second]) >= 0.25 * sum(shares.values())

        engine.provider.refuse_key(KEYS[0])
        wait_until(lambda: any(pool.out_of_rotation for pool in engine.pools("several")), 20.0, "a key out of rotation")
        before = counts(engine)
        wait_until(lambda: counts(engine)[second] >= before[second] + 100, 30.0, "100 requests with the second key")
        assert counts(engine)[first] == before[first]

        with engine.client() as client:
            stream = client.run_local(
                provider="several",
                model="gpt-4o",
                messages="Hello",
                stream=True,
                custom_options={"simulate": {"repeat": 100, "pace": 0.05}},
            )
            chunks = iter(stream)
            next(chunks)
            keys.write_text("sk-third\n")
            headrace("reload", "--engine", engine.address)
            third = key_hash("sk-third")
            # Workers are replaced one after the other.
            wait_until(lambda: keys_of_last(engine, 100) == {third}, 30.0, "a hundred requests with the new key alone")
            assert "".join(chunks).endswith("99 ")
        seen = programs.finish()

    failed = [run for run in seen["keys"] if run.kind != "done"]
    assert {run.kind for run in failed} <= {"AuthenticationError"}
    assert len(failed) <= 2 * FLOW.streams, "only what was under way with the refused key"
    assert kinds_of(seen["keys"]) >= {"done"}
