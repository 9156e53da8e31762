"""A changed policy file is loaded while the authority serves, if it is whole; otherwise the one before goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Any, Final

from ascend_middleware.exceptions import ConfigurationError

from .keys import DEFAULT_TENANT
from .policy import PolicySet
from .policy.policy_file import load_policy
from .service import Service
from .store.database import StorageError

__all__ = ["Reloader"]

log = logging.getLogger(__name__)

# Seconds between two looks at the file; one that is the same for so long counts as written.
_PERIOD: Final = 0.2


class Reloader:
    """Loads the policy file of a serving authority when it changes, and at SIGHUP."""

    def __init__(self, service: Service, path: str | Path) -> None:
        self._service = service
        self._authority = service.authority
        self._path = Path(path)
        self._loading = asyncio.Lock()

    async def run(self) -> None:
        """Watch the file until cancelled."""
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        # Not on Windows, and only where the main thread serves.
        with contextlib.suppress(AttributeError, NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(signal.SIGHUP, asked.set)
        await asyncio.gather(self._watch(), self._obey(asked))

    async def _obey(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            # What the file names, a key's file, may be another one though the text is the same.
            await self.load(again=True)

    async def _written(self) -> tuple[int, ...]:
        """Wait until the file is not being written, and return how it was last seen.

        The first half of one may be a policy too, which lacks the rest.
        """
        seen = await asyncio.to_thread(self._look)
        while True:
            await asyncio.sleep(_PERIOD)
            found = await asyncio.to_thread(self._look)
            if found == seen:
                return found
            seen = found

    async def _watch(self) -> None:
        # Not told by the system, which would tell of each write to the database in the same folder, too.
        seen = await self.load()  # it may have changed while the server started
        while True:
            await asyncio.sleep(_PERIOD)
            if await asyncio.to_thread(self._look) != seen:
                seen = await self.load()  # what is written from there on is another change

    def _look(self) -> tuple[int, ...]:
        """Return what is another one after each change, nothing where there is no file; a link is followed."""
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    async def load(self, *, again: bool = False) -> tuple[int, ...]:
        """Load the file once it is written, if it is another one, or in any case with `again`; say what came of it.

        Returns what the file looked like.
        """
        async with self._loading:
            while True:
                seen = await self._written()
                problem, policy = await asyncio.to_thread(self._read)
                if seen == await asyncio.to_thread(self._look):
                    break
                log.info("the policy file was written while it was read; it is read again")
            authority = self._authority
            before = authority.policy.version
            if policy is None or seen[-1:] == (0,):
                problem = problem or f"the policy file {self._path} is empty"
                authority.policy_problem = f"{self._path.name} on disk is not whole"
                log.error("the policy file was not taken, version %s goes on: %s", before, problem)
            elif policy.version == before and not again:
                authority.policy_problem = ""
            else:
                await self._take(policy, before)
        return seen

    def _read(self) -> tuple[str, PolicySet | None]:
        try:
            return "", load_policy(self._path)
        except ConfigurationError as error:
            return str(error), None

    async def _take(self, policy: PolicySet, before: str) -> None:
        try:
            # In the writer, as every decision: none is made by parts of both.
            await self._service.change(lambda: self._use(policy, before))
        except StorageError as error:
            self._authority.policy_problem = f"{self._path.name} on disk could not be taken"
            log.error("the policy file was not taken, version %s goes on: %s", before, error)
            return
        log.info("policy file loaded: version %s in the place of %s", policy.version, before)
        try:
            await asyncio.to_thread(self._authority.warn)
        except StorageError as error:
            log.error("whether the policies fit what is registered could not be looked up: %s", error)

    def _use(self, policy: PolicySet, before: str) -> None:
        store = self._authority.store
        data: dict[str, Any] = {"version": policy.version, "before": before}
        held = policy.retention.legal_hold
        if held or self._authority.policy.retention.legal_hold:
            data["legal_hold"] = [*held]
        with store.write():
            store.audit("POLICY_LOADED", tenant=DEFAULT_TENANT, actor="authority", data=data)
            store.after_commit(lambda: self._authority.use(policy))
