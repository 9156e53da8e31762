"""A policy file that changes under a serving authority: whole ones are taken once they are written, others never."""

import os
import re
import signal
import time

import pytest
from authority_process import Process
from kit.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.socket, pytest.mark.skipif(os.name != "posix", reason="needs signals")]

ALL = '[[policy]]\nname = "{}"\naction_types = ["*"]\ndecision = "{}"\n'
DENIED, APPROVED = ALL.format("none", "denied"), ALL.format("all", "approved")
# None of these may be taken, whatever they look like while they are written.
WRONG = {
    "half a line": DENIED[:30],
    "deep": "x = " + "[" * 100_000,
    "a number without end": "x = " + "9" * 100_000,
    "empty": "",
    "no UTF-8": b"\xff",
    "an unknown key": "[limit]\nsubmit = 1\n",
    "names a file that is not there": DENIED + '[jwt]\nissuer = "x"\naudience = "y"\nkey_file = "none.pem"\n',
}


@pytest.fixture
def served(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(DENIED)
    with Process(policy, "--no-access-log", log=tmp_path / "log") as authority:
        authority.policy = policy
        authority.told = lambda: (tmp_path / "log").read_text()
        yield authority
        assert authority.call("/health", None)[0] == 200 and authority.end() == 0
    assert "Traceback" not in authority.told()


def put(policy, text):
    """Put a new file in the place of the old one, in one step."""
    new = policy.with_name("new.toml")
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    new.replace(policy)


def decides(authority):
    body = {"agent_id": "a", "action_type": "read"}
    return authority.call("/api/v1/actions/submit", authority.keys["user"], body)[1]["status"]


def test_what_is_no_whole_policy_is_never_taken_and_the_next_whole_one_is(served):
    for name, text in WRONG.items():
        count = served.told().count("was not taken")
        put(served.policy, text)
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda count=count: served.told().count("was not taken") > count, name)
        assert decides(served) == "denied", name
        assert served.call("/ready", None)[1]["policy_problem"] == "policy.toml on disk is not whole", name
    served.policy.unlink()
    served.policy.symlink_to("policy.toml")
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "symbolic links" in served.told())
    served.policy.unlink()
    served.policy.mkdir()
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Is a directory" in served.told())
    assert decides(served) == "denied"
    served.policy.rmdir()
    put(served.policy, APPROVED)
    wait_until(lambda: decides(served) == "approved")
    assert served.call("/ready", None)[1]["policy_problem"] is None


def test_a_link_that_leads_elsewhere_is_another_file(served, tmp_path):
    """As a cluster does that mounts a policy: the link in the middle is replaced."""
    for name, text in (("one", DENIED), ("two", APPROVED)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.toml").write_text(text)
    (tmp_path / "now").symlink_to("one")
    link = tmp_path / "link"
    link.symlink_to("now/policy.toml")
    link.replace(served.policy)
    time.sleep(0.5)
    assert decides(served) == "denied"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    wait_until(lambda: decides(served) == "approved")


def test_half_of_a_file_is_not_taken_while_it_is_written_however_often_somebody_asks(served):
    """Its first half is a policy as well, and a looser one."""
    own = served.call("/ready", None)[1]["policy_version"]
    longest, until, before = 0.0, time.monotonic() + 2, time.monotonic()
    while time.monotonic() < until:
        with served.policy.open("w") as file:
            for part in (APPROVED, "# more\n", "# more\n", DENIED):
                file.write(part)
                file.flush()
                now = time.monotonic()
                longest, before = max(longest, now - before), now
                for _ in range(20):
                    served.process.send_signal(signal.SIGHUP)
                time.sleep(0.02)
    wait_until(lambda: "policy file loaded" in served.told())
    wait_until(lambda: decides(served) == "denied")
    loaded = re.findall(r"policy file loaded: version (\w+)", served.told())
    assert len(loaded) < 20  # not once for each signal
    # Where this test stood still for as long as an unchanged file counts as written, it says nothing.
    if longest < 0.1:
        now = served.call("/ready", None)[1]["policy_version"]
        assert set(loaded) == {now} and now != own
