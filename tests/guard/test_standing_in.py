"""Whom a guard asks while another authority stands in for its own, and what of it runs by itself."""

import asyncio
import threading

import pytest
from kit.apps import PlainASGI, PlainWSGI
from kit.desk import local_authority
from kit.processes import wait_until

from ascend_middleware import AscendClient
from ascend_middleware.testing import ScriptedAuthority

RULES = [{"match": "GET /pay", "action_type": "pay"}]
MADE = {"agent_id": "bot", "state": "memory:", "journal": "memory:", "kill_switch": "off"}
BOTH = pytest.mark.parametrize("made", [PlainWSGI, PlainASGI])


def close(site):
    ended = site.app.aclose() if hasattr(site.app, "aclose") else site.app.close()
    if ended is not None:
        asyncio.run(ended)


@BOTH
def test_a_guard_asks_who_stands_in_and_then_its_own_authority_again(made):
    other = ScriptedAuthority("other")
    with ScriptedAuthority("own") as own:
        own.approve()
        site = made(RULES, [], api_url=own.api_url, **MADE)
        first = site.app.guard
        assert site.ask("GET", "/pay")[0] == 200
        for _ in range(2):
            with other.standing_in():
                assert site.ask("GET", "/pay")[0] == 403
                assert (len(other.asked), site.app.guard is first) == (1, False)
                other.approve()
                assert site.ask("GET", "/pay")[0] == 200
            assert site.app.guard is first
            assert site.ask("GET", "/pay")[0] == 200
        assert len(own.asked) == 3
        close(site)


@BOTH
def test_a_guard_that_was_made_meanwhile_asks_its_own_authority_afterwards(made):
    other = ScriptedAuthority("other")
    with ScriptedAuthority("own") as own:
        own.approve()
        with other.standing_in():
            site = made(RULES, [], api_url=own.api_url, **MADE)
            assert site.ask("GET", "/pay")[0] == 403
        assert site.ask("GET", "/pay")[0] == 200
        assert (len(own.asked), len(other.asked)) == (1, 1)
        close(site)


@BOTH
def test_what_is_to_be_delivered_is_delivered_while_the_application_runs(made, tmp_path):
    """In the process of its authority too, where nothing is to be done before."""
    url = local_authority(tmp_path, "approved")
    before = set(threading.enumerate())
    site = made(RULES, [], api_url=url, **{**MADE, "report_outcomes": True})
    assert site.ask("GET", "/none")[0] == 403
    assert "ascend-worker" not in {one.name for one in set(threading.enumerate()) - before}
    assert site.ask("GET", "/pay")[0] == 200
    with AscendClient(api_url=url, agent_id="bot") as asking:
        (row,) = asking.list_actions(limit=5).actions
        wait_until(lambda: asking.get_action(row.action_id).to_dict().get("outcome"), seconds=20)
    close(site)
