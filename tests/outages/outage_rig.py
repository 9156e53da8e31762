"""A guarded application in a process, a real authority in another, and the fault proxy between them; and load."""

import asyncio
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

from fault_proxy import FaultProxy, _message, contexts

HERE = Path(__file__).parent
POLICY = """
[limits]
admin = 0
submit = 0

[[policy]]
name = "all"
decision = "approved"
risk_score = 10
reason = "a test"
"""
DEADLINE = 1.0
PROBE = 1.0
CONNECTIONS = 64
# What the machine may add to a deadline: three processes share its cores with others.
ALLOWANCE = 3.0


_serial = itertools.count(1)


class Load:
    """So many connections, each asking an open and a closed route in turn; results as they come."""

    def __init__(self, port, cause, *, connections=CONNECTIONS, pause=0.4, most=20_000, seed=7):
        self.port = port
        # Every handler run is called by a name of its own.
        self.cause = f"{cause}.{next(_serial)}"
        self.results = []  # (began, seconds, rule, status, problem)
        self._most = most
        self._pause = pause
        self._random = Random(seed)
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._one(number)) for number in range(connections)]

    async def _one(self, number):
        reader = writer = None
        for turn in range(10**6):
            if self._stop or len(self.results) >= self._most:
                break
            rule = "open" if (number + turn) % 2 else "closed"
            name = f"{self.cause}-{rule}-{number}-{turn}".replace(" ", "_")
            began = time.monotonic()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(f"POST /{rule}/{name} HTTP/1.1\r\nhost: site\r\ncontent-length: 0\r\n\r\n".encode())
                reply = await asyncio.wait_for(_message(reader), 30)
                status = int(reply[9:12])
                head, _, body = reply.partition(b"\r\n\r\n")
                problem = json.loads(body)["type"].rpartition(":")[2] if status >= 400 else body.decode()
            except (OSError, TypeError, TimeoutError) as error:
                status, problem = 0, type(error).__name__
                if writer is not None:
                    writer.close()
                    writer = None
            self.results.append((began, time.monotonic() - began, rule, status, problem))
            await asyncio.sleep(self._pause * (0.5 + self._random.random()))
        if writer is not None:
            writer.close()

    async def end(self):
        self._stop = True
        await asyncio.gather(*self._tasks)


class Rig:
    """Start everything; `run` runs a coroutine beside the proxy."""

    def __init__(self, directory, *, name, tls=True, **settings):
        self.directory = directory
        self.name = name
        self.level = 0
        self._closed = False
        policy = directory / "policy.toml"
        policy.write_text(POLICY)
        self._log = open(directory / "authority.log", "ab")
        self.authority = subprocess.Popen(
            [sys.executable, "-m", "ascend_middleware.cli", "authority", "--policy", policy, "--port", "0"]
            + ["--no-access-log"],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        key = url = None
        for line in self.authority.stdout:
            words = line.split()
            if words[0] == "user":
                key = words[1]
            if words[-1].startswith("http"):
                url = words[-1]
                break
        assert url, (directory / "authority.log").read_text()
        good, bad, authority = contexts() if tls else (None, None, None)
        self.proxy = FaultProxy(("127.0.0.1", int(url.rpartition(":")[2])), good=good, bad=bad)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self.proxy.start())
        host = "authority.test" if tls else "127.0.0.1"
        given = {
            "api_url": f"{'https' if tls else 'http'}://{host}:{self.proxy.port}",
            "api_key": key,
            "agent_id": "bot",
            "deadline": DEADLINE,
            "circuit_breaker_timeout": PROBE,
            "open_per_minute": 1_000_000,
            "state": str(directory / "state.db"),
            "journal": str(directory / "journal"),
            # A tenth of it makes the background worker deliver without rest.
            "journal_max_bytes": 2_000_000,
            "kill_switch": "poll",
            "kill_poll_interval": 1.0,
            **settings,
        }
        if tls:
            authority.cert_pem.write_to_path(directory / "ca.pem")
            given["ca_file"] = str(directory / "ca.pem")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.app_log = directory / "app.log"
        self._app_log = open(self.app_log, "ab")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASCEND_")}
        self.app = subprocess.Popen(
            [sys.executable, HERE / "outage_app.py", str(self.port), json.dumps(given)],
            # The allocator gives back at once what is freed, so that what is resident is what is held: asyncio has a
            # buffer of 256 KiB for each TLS connection.
            env={**environment, "RAN": str(directory / "ran"), "MALLOC_MMAP_THRESHOLD_": "65536"},
            stdout=self._app_log,
            stderr=self._app_log,
        )
        until = time.monotonic() + 60
        while True:
            try:
                self.vitals()
                break
            except OSError:
                assert self.app.poll() is None, self.app_log.read_text()
                assert time.monotonic() < until, "the application did not start"
                time.sleep(0.05)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(3600)

    async def own(self, path, method="POST"):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"{method} /own/{path} HTTP/1.1\r\nhost: site\r\ncontent-length: 0\r\n\r\n".encode())
            reply = await asyncio.wait_for(_message(reader), 30)
        finally:
            writer.close()
        assert reply and reply[9:12] == b"200", reply
        return reply.partition(b"\r\n\r\n")[2]

    async def look(self):
        return json.loads(await self.own("vitals", "GET"))

    def vitals(self):
        return self.run(self.look())

    # --- faults

    async def begin(self, cause):
        if cause == "clock jumped by a day":
            await self.own("jump/86400")
        elif cause == "DNS gone":
            await self.own("dns/gone")
            await self.proxy.set(cause)
        elif cause != "event loop blocked":
            await self.proxy.set(cause)

    async def end(self, cause):
        if cause == "clock jumped by a day":
            await self.own("jump/0")
        if cause == "DNS gone":
            await self.own("dns/back")
        await self.proxy.set(None)

    async def outage(self, cause, *, seconds, after=1.0, pause=0.4, from_open=False):
        """Run one outage under load; return what the clients got meanwhile, and how the service came back.

        With `from_open`, the seconds begin when the breaker is open and the calls from before are over, however long a
        busy machine takes for it, and how many attempts are under way at once is counted anew.
        """
        before = await self.look()
        proxy = self.proxy
        await self.begin(cause)
        proxy.attempts, proxy.most_at_once = 0, 0
        load = Load(self.port, cause, pause=pause)
        began = time.monotonic()
        blocks = 0
        if from_open:
            while (await self.look())["health"]["breaker"]["state"] == "closed":
                assert time.monotonic() - began < 30, "the breaker did not open"
                await asyncio.sleep(0.1)
            await asyncio.sleep(DEADLINE + ALLOWANCE)
            proxy.count_anew()
            began = time.monotonic()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(0.2)
            if cause == "event loop blocked" and blocks < seconds - 1:
                blocks += 1
                await self.own("block/0.8")
        attempts, most, calls = proxy.attempts, proxy.most_at_once, len(proxy.calls)
        lasted = time.monotonic() - began
        await self.end(cause)
        lifted = time.monotonic()
        back = None
        while time.monotonic() - lifted < 4 * PROBE + 5:
            await asyncio.sleep(0.05)
            good = [at + took for at, took, rule, status, _ in load.results if rule == "closed" and status == 200]
            good = [at for at in good if at > lifted]
            if good and back is None:
                back = min(good) - lifted
            if back is not None and time.monotonic() - lifted > min(after, back + 0.4):
                break
        await load.end()
        return Outcome(
            cause,
            [one for one in load.results if one[0] < lifted],
            lifted=lifted,
            attempts=attempts,
            at_once=most,
            calls=calls,
            lasted=lasted,
            recovery=back,
            before=before,
            after=await self.look(),
        )

    # --- what was recorded

    def handler_runs(self, cause=None):
        """Return every handler run: name, outcome, cause, action id."""
        path = self.directory / "ran"
        lines = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        prefix = f"{cause}.".replace(" ", "_") if cause else ""
        return [line for line in lines if line[0].startswith(prefix)]

    def recorded(self):
        """Return what the authority knows: by resource, a list of (id, status, outcome, passed open)."""
        with closing(sqlite3.connect(self.directory / "policy.db", timeout=30)) as database:
            rows = database.execute("SELECT id, status, outcome, submission FROM actions").fetchall()
        found = {}
        for number, status, outcome, submission in rows:
            action = json.loads(submission)
            entry = (str(number), status, outcome, bool((action.get("context") or {}).get("passed_open")))
            found.setdefault(action["resource"], []).append(entry)
        return found

    def settle(self, *, seconds=60):
        """Wait until the journal is delivered."""
        until = time.monotonic() + seconds
        while (journal := self.vitals()["health"]["journal"])["bytes"]:
            assert time.monotonic() < until, f"the journal is not delivered: {journal}"
            time.sleep(0.1)

    def missing(self, cause=None):
        """Return the handler runs that the authority does not know, or not with their outcome; each with the reason."""
        recorded = self.recorded()
        found = []
        for name, outcome, _, action_id in self.handler_runs(cause):
            entries = recorded.get(name, [])
            if outcome == "allowed":
                entries = [entry for entry in entries if entry[0] == action_id and entry[1] == "approved"]
            else:
                entries = [entry for entry in entries if entry[3]]
            if len(entries) != 1:
                found.append(f"{name} ({outcome}): recorded {len(entries)} times")
            elif not entries[0][2]:
                found.append(f"{name} ({outcome}): no outcome")
        return found

    def close_once(self):
        if not self._closed:
            self._closed = True
            self.close()

    def close(self):
        for process in (self.app, self.authority):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.authority.stdout.close()
        self.run(self.proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._log.close()
        self._app_log.close()


class Outcome:
    """What one outage did."""

    def __init__(self, cause, during, *, lifted, attempts, at_once, calls, lasted, recovery, before, after):
        self.cause = cause
        self.during = during
        self.lifted = lifted
        self.attempts = attempts
        self.at_once = at_once
        self.calls = calls
        self.lasted = lasted
        self.recovery = recovery
        self.before = before
        self.after = after

    def got(self, rule):
        """Return how often the clients got what, before the fault was over."""
        kept = [one for one in self.during if rule == one[2] and one[0] + one[1] < self.lifted]
        return Counter(f"{status} {problem}" for _, _, _, status, problem in kept)

    def slowest(self, part=1.0):
        """Return the seconds within which this part of the requests was answered; 0.99 for the p99."""
        times = sorted(took for _, took, *_ in self.during)
        return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0
