"""The example of an agent, and the programs of docs/agents.md, against a governed service."""

import gc
import importlib.util
import re
import threading
import time
from pathlib import Path

import pytest

from ascend_middleware.agent import ApprovalAuth

ROOT = Path(__file__).parents[2]
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "agents.md").read_text(), re.DOTALL)


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("approval_loop", ROOT / "examples" / "approval_loop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("approved", "status", "printed"), [(True, 0, '{"refunded":true}\n'), (False, 1, "")], ids=["approved", "denied"]
)
def test_the_example_waits_for_a_person(example, site, ascend_authority, capsys, approved, status, printed):
    ascend_authority.hold()
    auth = ApprovalAuth(on_hold=example.tell, sleep=lambda _: ascend_authority.decide(approved=approved))
    assert example.main(f"{site.url}/refunds", '{"amount": 5}', auth) == status
    told = capsys.readouterr()
    assert told.out == printed
    assert "A person has to approve" in told.err
    assert ("did not run" in told.err) is not approved


@pytest.fixture
def run(site, ascend_authority):
    """Runs a program of the page, while a person decides about the action that it asks for."""
    threads = []

    def run(program, *, approved=True, names=None):
        def decide():
            until = time.monotonic() + 30
            while not ascend_authority.asked and time.monotonic() < until:
                time.sleep(0.01)
            ascend_authority.decide(approved=approved)

        threads.append(threading.Thread(target=decide))
        threads[-1].start()
        exec(program.replace("https://shop.example", site.url), names := names or {})
        return names

    ascend_authority.hold()
    yield run
    for thread in threads:
        thread.join(30)
    gc.collect()  # the programs close nothing


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("program", PROGRAMS[:2], ids=["httpx2", "requests"])
def test_the_programs_that_wait(run, program):
    assert run(program)["answer"].json() == {"refunded": True}


def test_the_program_that_waits_tells_of_a_denial(run, capsys):
    run(PROGRAMS[0], approved=False)
    assert capsys.readouterr().out.startswith("not refunded:")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_program_that_goes_on_later(run):
    first, later = PROGRAMS[2].split("# later, elsewhere")
    names = run(first)
    assert "answer" not in names
    exec(later, names)
    assert names["answer"].json() == {"refunded": True}
