"""One AsyncLLM of vLLM in an event loop of its own: started, asked, watched and ended from other threads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from harness.engines.loading import first_line
from harness.engines.vllm_quiet import log, quiet
from harness.engines.vllm_setup import Start
from harness.errors import BadCheckpoint
from harness.protocols import Tokenizer

T = TypeVar("T")

STOP_S = 10.0
"""How long a closing engine process may take before it is killed."""
TRACE_REPLAY, FORCING = "trace replay", "logits processor"


class Core:
    """A running engine process and the loop that talks to it.

    Raises: BadCheckpoint: vLLM does not load the model.
    """

    def __init__(self, start: Start) -> None:
        self._log_start = log().size()
        self._numbers = itertools.count()
        self._peak_bytes: int | None = None
        self.forcing = FORCING
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="vllm", daemon=True)
        self._thread.start()
        self.llm: Any = None
        before = set(multiprocessing.active_children())
        try:
            self.llm = self.run(self._start(start))
            self.facts: dict[str, Any] = self.run(self.llm.collective_rpc("harness_facts"))[0]
        except BaseException as exc:  # Ctrl-C while loading must not leave the engine process behind
            for child in set(multiprocessing.active_children()) - before:
                child.kill()
            self.close()
            if isinstance(exc, Exception):
                raise BadCheckpoint(
                    f"vLLM does not load {start.arguments['model']!r}: {self.last_words() or first_line(exc)}"
                ) from exc
            raise

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    async def _start(self, start: Start) -> Any:
        """Inside the loop, where AsyncLLM wants to be made. Blocks it; nothing else runs there yet."""
        with quiet(**start.variables):
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            try:
                config = AsyncEngineArgs(**start.arguments, enable_trace_replay=True).create_engine_config()
                self.forcing = TRACE_REPLAY
            except ValueError as exc:
                # without Triton there is no V2 model runner, which has trace replay built in
                if "trace replay requires" not in str(exc):
                    raise
                own = {"logits_processors": ["harness.engines.vllm_worker:Forcing"]}
                config = AsyncEngineArgs(**start.arguments, **own).create_engine_config()
            return AsyncLLM.from_vllm_config(config, disable_log_stats=True)

    def last_words(self) -> str:
        """What vLLM's log says of an error since the start."""
        return log().last_words(self._log_start)

    # Asking

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def ask(self, prompt: tuple[int, ...], params: Any, lora: Any) -> Any:
        """An async iterator over the outputs of one request; vLLM raises EngineDeadError when its process is dead."""
        from vllm.inputs.engine import tokens_input

        number = str(next(self._numbers))
        return self.llm.generate(tokens_input(list(prompt)), params, number, lora_request=lora)

    @property
    def dead(self) -> bool:
        return self.llm is None or bool(self.llm.errored)

    def add_adapter(self, lora: Any) -> None:
        """Load an adapter; one that vLLM refuses leaves the engine whole. Raises: BadCheckpoint."""
        try:
            self.run(self.llm.add_lora(lora))
        except Exception as exc:  # vLLM's remote calls raise bare Exception
            reason = first_line(exc).removeprefix("Call to add_lora method failed: ")
            raise BadCheckpoint(f"adapter {lora.lora_path!r} does not load in vLLM: {reason}") from exc

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Look for stop strings with this tokenizer; vLLM itself was started without one."""
        self.llm.output_processor.tokenizer = tokenizer

    # Facts

    @property
    def pids(self) -> list[int]:
        """Processes of the engine."""
        manager = None if self.llm is None else self.llm.engine_core.resources.engine_manager
        return [process.pid for process in manager.processes] if manager else []

    @property
    def kv_tokens(self) -> int | None:
        """Tokens that the KV cache holds."""
        cache = self.llm.vllm_config.cache_config
        return cache.num_gpu_blocks * cache.block_size if cache.num_gpu_blocks else None

    def peak_bytes(self) -> int | None:
        """Peak memory of the engine process so far: resident set on a CPU, torch's allocator on a GPU.

        None where nobody has told. On a GPU the workers alone know, so they are asked.
        """
        on_cpu = self.facts["device"] == "cpu"
        found = sum(map(_peak_resident, self.pids)) if on_cpu else self._workers_peak()
        self._peak_bytes = larger(self._peak_bytes, found or None)
        return self._peak_bytes

    def _workers_peak(self) -> int:
        """Bytes of the worker that has taken most; 0 where none answers."""
        if self.dead or threading.current_thread() is self._thread:  # which could not wait for itself
            return 0
        asked = asyncio.run_coroutine_threadsafe(self.llm.collective_rpc("harness_peak_bytes"), self.loop)
        try:
            return max(map(int, asked.result(STOP_S)), default=0)
        except Exception:  # noqa: BLE001  whatever ails a worker, its memory is not worth a run
            asked.cancel()
            return 0

    def close(self) -> None:
        """End the engine process and the loop; twice is fine."""
        if self.loop.is_closed():
            return
        if self.llm is not None:
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(_shut(self.llm), self.loop).result(timeout=3 * STOP_S)
            self.llm = None
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=STOP_S)


def larger(one: int | None, other: int | None) -> int | None:
    """The larger of what is known."""
    return max((value for value in (one, other) if value is not None), default=None)


async def _shut(llm: Any) -> None:
    """Cancel what is still asked, then end the process."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    await asyncio.to_thread(llm.shutdown, STOP_S)


def _peak_resident(pid: int) -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
