"""What an endpoint may be asked: requests and tokens per minute, money, and the pauses that it asks for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from harness.engines.endpoint_options import EndpointOptions
from harness.engines.endpoint_throttle import Throttle
from harness.errors import CostLimitReached

PER_MILLION = 1e-6
MINUTE_S = 60.0


@dataclass(frozen=True)
class Load:
    """What one request may weigh: upper bounds before it is asked, the server's count after."""

    prompt_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


class Pace:
    """Even spacing: an amount per minute, never more than that in any minute, and no burst at its start."""

    def __init__(self, per_minute: float | None) -> None:
        self._per_minute = per_minute
        self._free_s = 0.0

    def reserve(self, amount: float) -> float:
        """Seconds to wait before this amount may go."""
        if self._per_minute is None:
            return 0.0
        now = time.monotonic()
        start = max(now, self._free_s)
        self._free_s = start + amount * MINUTE_S / self._per_minute
        return start - now

    def give_back(self, amount: float) -> None:
        """Of what was reserved, this was not used (negative: more was)."""
        if self._per_minute is not None:
            self._free_s -= amount * MINUTE_S / self._per_minute


class Limits:
    """Asked before every exchange with the server; lives in the engine's event loop, so it needs no lock."""

    def __init__(self, options: EndpointOptions) -> None:
        self._requests = Pace(options.rpm)
        self._tokens = Pace(options.tpm)
        self._price_in, self._price_out = options.price_in, options.price_out
        self._cost_limit = options.cost_limit
        self._reserved = 0.0
        """Money that the requests in flight may still cost."""
        self.throttle = Throttle(options.backoff_s, options.deadline_s)
        self._settled = asyncio.Condition()
        self.spent = 0.0

    @property
    def priced(self) -> bool:
        return self._price_in is not None and self._price_out is not None

    def cost(self, load: Load) -> float:
        """Price of a request, in the prices' currency."""
        return (
            load.prompt_tokens * (self._price_in or 0.0) + load.output_tokens * (self._price_out or 0.0)
        ) * PER_MILLION

    async def enter(self, most: Load) -> None:
        """Wait until a request of at most this load may go.

        Raises: GivenUp: the server refuses everything.
            CostLimitReached: it could cost more than is left, and nothing in flight can still give money back.
        """
        await self._reserve_money(self.cost(most))
        try:
            await self.throttle.enter()
        except BaseException:
            await self._give_back(most)
            raise
        wait_s = max(self._requests.reserve(1), self._tokens.reserve(most.tokens))
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        await self.throttle.rest()  # which may have begun meanwhile

    async def leave(self, most: Load, used: Load | None) -> None:
        """A request is through; used None: the server did not answer it."""
        if used is not None:
            self.spent += self.cost(used)
            self._tokens.give_back(most.tokens - used.tokens)
        await self.throttle.leave()
        await self._give_back(most)

    async def _give_back(self, most: Load) -> None:
        """The money that was held for a request."""
        self._reserved -= self.cost(most)
        async with self._settled:
            self._settled.notify_all()

    async def _reserve_money(self, most: float) -> None:
        if self._cost_limit is not None:
            limit = self._cost_limit
            async with self._settled:
                await self._settled.wait_for(
                    lambda: self.spent + self._reserved + most <= limit or self._reserved <= limit * 1e-9
                )
            if self.spent + self._reserved + most > limit:
                raise CostLimitReached(
                    f"cost limit: {self.spent:.6g} of {limit:.6g} is spent and the next request may cost {most:.6g}; "
                    "every answer is in the journal: repeat the command to go on, with a higher cost_limit if need be"
                )
        self._reserved += most
