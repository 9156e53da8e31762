"""An authority that is down for longer than the breaker's window: how often it is asked, and how soon it is found again."""

import pytest
from outage_rig import ALLOWANCE, DEADLINE, PROBE, Rig

pytestmark = [pytest.mark.slow, pytest.mark.socket]


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
@pytest.mark.parametrize("cause", ["answering 500", "black-holed"])
def test_a_long_outage_costs_few_attempts_and_one_probe_at_a_time(tmp_path, full, engine, cause):
    rig = Rig(tmp_path, name=engine, engine=engine, tls=False)
    try:
        # Down for several windows, counted from the first one's end: what is on its way then are probes.
        found = rig.run(rig.outage(cause, seconds=30.0 if full else 4.0, pause=0.2, from_open=True))
        print(
            f"\n{engine}, {cause}: {found.attempts} attempts for {len(found.during)} calls, later at most "
            f"{found.at_once} at once, {found.calls} calls in {found.lasted:.1f} s, back after {found.recovery:.2f} s"
        )
        assert len(found.during) > 300
        assert found.attempts <= 1.1 * len(found.during)
        # One call at a time, and a pause after it.
        assert 1 <= found.calls <= found.lasted / PROBE + 2
        if engine == "auto":  # httpx2 keeps the connection of a call that it gave up for a while
            assert found.at_once <= 1
        assert found.recovery <= 2 * PROBE + DEADLINE + ALLOWANCE
    finally:
        rig.close_once()
