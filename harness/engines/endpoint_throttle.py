"""How many requests may be in flight at a server that says that it has too many, and how long it is left alone."""

from __future__ import annotations

import asyncio
import math
import random
import time

LONGEST_BACKOFF_S = 30.0
LONGEST_PAUSE_S = 600.0
"""A Retry-After beyond this is not waited for in full."""


class GivenUp(Exception):
    """The server has refused everything for too long."""


class Throttle:
    """Half as many in flight each time that the server says so, one more per round of answers (AIMD).

    No bound before the server first asks for one. Lives in one event loop, so it needs no lock of threads.

    Args:
        backoff_s: first pause; doubles from one refusal to the next, until an answer comes.
        patience_s: without one answer for this long, the server is given up.
    """

    def __init__(self, backoff_s: float, patience_s: float) -> None:
        self._backoff_s, self._patience_s = backoff_s, patience_s
        self.most = math.inf
        """Requests in flight."""
        self.in_flight = 0
        self._rounds = 0
        """Times in a row that it refused: what was sent before a refusal came belongs to that one."""
        self._round_s = self._paused_until_s = self._told_s = -math.inf
        self._since_s: float | None = None
        """When it began to refuse everything."""
        self.given_up = False
        """It has refused everything for too long: whoever waits fails, and it is tried again after the pause."""
        self._room = asyncio.Condition()

    async def enter(self) -> None:
        """Wait until one more request may be sent. Raises: GivenUp."""
        while True:
            async with self._room:
                await self._room.wait_for(lambda: self.in_flight < self.most)
                self.in_flight += 1
            if not self.resting:
                return
            self.in_flight -= 1
            if self.given_up:
                await self._tell()
                raise GivenUp
            await self.rest()

    async def rest(self) -> None:
        """Wait until no pause is on."""
        while self.resting:
            await asyncio.sleep(self._paused_until_s - time.monotonic())

    async def leave(self) -> None:
        """A request that entered is through, answered or not."""
        self.in_flight -= 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._room:
            self._room.notify_all()

    def refused(self, sent_s: float, after_s: float | None) -> None:
        """The server said that it has too many; called before leave().

        Args:
            sent_s: time.monotonic() when the request went.
            after_s: the time that the server names; less than the backoff is not enough, or it would not have refused.
        """
        now = time.monotonic()
        if self._since_s is None or now - self._told_s > 2 * LONGEST_PAUSE_S:
            self._since_s = now
        self._told_s = now
        self.given_up = now - self._since_s > self._patience_s
        if sent_s >= self._round_s:
            self._round_s = now
            self._rounds += 1
            self.most = max(1.0, min(self.most, self.in_flight) / 2)
        backoff_s = min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** min(self._rounds - 1, 60))
        pause_s = max(backoff_s * random.uniform(0.5, 1.0), min(after_s or 0.0, LONGEST_PAUSE_S))
        self._paused_until_s = max(self._paused_until_s, now + pause_s)

    def answered(self) -> None:
        self._rounds, self._since_s, self.given_up = 0, None, False
        self.most += 1 / self.most

    @property
    def resting(self) -> bool:
        """Whether a pause is on."""
        return time.monotonic() < self._paused_until_s
