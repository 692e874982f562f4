"""Conformance classes for plug-in authors: inherit one, give its fixture, and pytest runs the protocol's promises.

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def engine(self): ...

The names of the tests say what is promised; a failure names the promise that is broken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.errors import EngineError
from harness.protocols import Engine, Meter, Task, Trainer, TrainJob
from harness.records import (
    Completion,
    EnergyReading,
    GenerateRequest,
    LoglikelihoodRequest,
    Request,
    Sample,
    Sampling,
)

TIMEOUT_S = 120
TEXTS = ("one two three", "a longer text than the first one, by far", "x")


def answers(engine: Engine, requests: list[Request]) -> list[Completion]:
    """Ask and wait."""
    return [future.result(TIMEOUT_S) for future in engine.submit(requests)]


def ids_of(engine: Engine, text: str) -> tuple[int, ...]:
    return tuple(engine.tokenizer.encode(text, add_special_tokens=False))


class EngineConformance:
    """Fixture `engine`: loaded, with a checkpoint active."""

    def test_greedy_answers_repeat_themselves_alone_and_in_a_batch(self, engine: Engine) -> None:
        requests: list[Request] = [GenerateRequest(ids_of(engine, t), Sampling(max_tokens=8)) for t in TEXTS]
        together = [c.outputs[0].token_ids for c in answers(engine, requests)]
        alone = [answers(engine, [request])[0].outputs[0].token_ids for request in requests]
        assert together == alone

    def test_draws_depend_on_the_seed_alone(self, engine: Engine) -> None:
        drawn = Sampling(max_tokens=12, temperature=1.0, seed=1, n=2)
        request = GenerateRequest(ids_of(engine, TEXTS[0]), drawn)
        other = replace(request, sampling=replace(drawn, seed=2))
        first, again, second = answers(engine, [request, request, other])
        texts = [[output.token_ids for output in c.outputs] for c in (first, again, second)]
        assert texts[0] == texts[1]
        assert texts[0] != texts[2]
        assert len(first.outputs) == 2

    def test_a_later_draw_alone_is_that_draw_of_all(self, engine: Engine) -> None:
        """For engines with takes_first_draw; the others may ignore the field."""
        if not getattr(engine, "takes_first_draw", False):
            return
        drawn = Sampling(max_tokens=12, temperature=1.0, seed=1, n=3)
        request = GenerateRequest(ids_of(engine, TEXTS[0]), drawn)
        later = replace(request, sampling=replace(drawn, n=2), first_draw=1)
        whole, part = answers(engine, [request, later])
        texts = [output.token_ids for output in whole.outputs]
        assert [output.token_ids for output in part.outputs] == texts[1:]
        assert texts[0] != texts[1], "draws that are all alike prove nothing"

    def test_loglikelihoods_obey_the_chain_rule(self, engine: Engine) -> None:
        head, middle, tail = (ids_of(engine, t) for t in TEXTS)
        whole, first, second = answers(
            engine,
            [
                LoglikelihoodRequest(head, middle + tail),
                LoglikelihoodRequest(head, middle),
                LoglikelihoodRequest(head + middle, tail),
            ],
        )
        assert whole.loglikelihood is not None
        assert first.loglikelihood is not None
        assert second.loglikelihood is not None
        assert abs(whole.loglikelihood - first.loglikelihood - second.loglikelihood) < 1e-2

    def test_an_impossible_request_fails_its_own_future(self, engine: Engine) -> None:
        good = GenerateRequest(ids_of(engine, TEXTS[0]), Sampling(max_tokens=2))
        bad, fine = engine.submit([GenerateRequest(()), good])
        assert isinstance(bad.exception(TIMEOUT_S), EngineError)
        assert fine.result(TIMEOUT_S).output_tokens > 0

    def test_it_counts_what_it_does(self, engine: Engine) -> None:
        before = engine.stats()
        done = answers(engine, [GenerateRequest(ids_of(engine, TEXTS[0]), Sampling(max_tokens=3))])[0]
        after = engine.stats()
        assert after.requests == before.requests + 1
        assert after.output_tokens == before.output_tokens + done.output_tokens
        assert done.output_tokens == sum(len(output.token_ids) for output in done.outputs)
        assert done.queued_s <= done.started_s <= done.done_s


class TaskConformance:
    """Fixture `task`: bound to a context with a working engine and a small limit."""

    def test_ids_are_unique_and_the_fingerprint_keeps_still(self, task: Task) -> None:
        assert len(set(task.sample_ids)) == len(task.sample_ids) > 0
        assert task.fingerprint == task.fingerprint
        assert task.n_requests >= 1

    def test_every_sample_is_journalled_once_and_adds_up(self, task: Task) -> None:
        journal: list[Sample] = []
        task.run(task.sample_ids, journal.append)
        graded = [s for s in journal if s.graded] + list(task.grade([s for s in journal if not s.graded]))
        assert sorted(s.sample_id for s in graded) == sorted(task.sample_ids)
        assert {s.task for s in graded} == {task.name}
        metrics = task.aggregate(graded)
        assert metrics
        assert dict(task.aggregate(graded[::-1])) == dict(metrics), "the order of the samples must not matter"
        for metric in metrics.values():
            if metric.value is not None and metric.ci95 is not None:
                assert metric.ci95[0] <= metric.value <= metric.ci95[1]

    def test_a_part_of_the_samples_can_be_run(self, task: Task) -> None:
        journal: list[Sample] = []
        task.run(task.sample_ids[:1], journal.append)
        assert [s.sample_id for s in journal] == list(task.sample_ids[:1])


class TrainerConformance:
    """Fixtures `trainer` and `job` (a few steps, an empty out_dir)."""

    def test_it_leaves_a_checkpoint_that_resolves(self, trainer: Trainer, job: TrainJob) -> None:
        from harness.checkpoints import resolve

        trainer.check(job.stage)
        result = trainer.train(job)
        assert 0 < result.trainable_parameters <= result.total_parameters
        assert result.steps > 0
        if (job.out_dir / "adapter_config.json").exists():
            assert resolve(f"{job.base.base}+{job.out_dir}").adapter is not None
        else:
            assert resolve(str(job.out_dir)).fingerprint != job.base.fingerprint


class MeterConformance:
    """Fixture `meter`."""

    def test_a_window_opens_counts_and_closes(self, meter: Meter) -> None:
        lines: list[EnergyReading] = []
        with meter.window("inference", "conformance", lines.append) as window:
            window.count(3, 40)
        closed = [line for line in lines if line.closed]
        assert not lines[0].closed, "the first line says that a window was opened"
        assert sum(line.queries for line in closed) == 3
        assert sum(line.output_tokens for line in closed) == 40
        assert all(component.provenance for line in closed for component in line.components)

    def test_an_exception_does_not_leak_joules(self, meter: Meter) -> None:
        lines: list[EnergyReading] = []
        try:
            with meter.window("grading", "conformance", lines.append):
                raise KeyError("on purpose")
        except KeyError:
            pass
        assert lines[-1].closed

    def test_it_describes_itself(self, meter: Meter) -> None:
        described: Any = meter.describe()
        assert described
