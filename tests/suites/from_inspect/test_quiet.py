from __future__ import annotations

import asyncio
import threading
import time

import anyio.to_thread

from suites.from_inspect.quiet import WORKER, quiet


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == WORKER]


def test_no_thread_of_a_closed_loop_stays_behind():
    """A loop that stops before its task is done leaves anyio's worker, which would keep Python from exiting."""

    async def never_done() -> None:
        await anyio.to_thread.run_sync(time.monotonic)
        await asyncio.sleep(60)

    with quiet():
        loop = asyncio.new_event_loop()
        task = loop.create_task(never_done())
        loop.call_later(0.3, loop.stop)
        loop.run_forever()
        loop.close()
        assert [thread.daemon for thread in workers()] == [False]
    for thread in workers():
        thread.join(5)
    assert workers() == []
    assert not task.done()
