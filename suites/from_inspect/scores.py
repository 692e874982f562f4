"""inspect's finished samples as journal lines, and journal lines as inspect's own metrics."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from harness.records import Metric, Sample, Score
from harness.stats.intervals import Z95, summarise, without_variance

ERRORS_OF_METRICS = {"stderr", "bootstrap_stderr"}
SPREADS = {"std", "var"}
"""Neither a result nor an error of one: left out."""
REPLICATES = 200
FEWEST_REPLICATES = 40
BOOTSTRAP_SAMPLES = 200_000
"""Most samples that a bootstrap reads in all: inspect's metrics take seconds for as many."""
SELF_JUDGED = " (self-judged)"


class Models(NamedTuple):
    """Names under which inspect books usage."""

    main: str
    judge: str | None
    self_judged: bool


class Scoring(NamedTuple):
    """What an inspect task scores with, kept from the task as it was built."""

    scorers: Sequence[Any] | None
    metrics: Any
    reducers: Any
    higher_is_better: bool


# Sample -> journal


def to_sample(task: str, sample_id: str, done: Any, models: Models) -> Sample:
    """Journal line of an inspect EvalSample; an error of the engine, the judge or the scorer fails it."""
    usage = done.model_usage.get(models.main)
    cached = (usage.input_tokens_cache_read or 0) if usage else 0
    facts = done.output.metadata or {}
    choices = done.output.choices
    reused = reuse(done)
    judged = models.judge is not None and models.judge in done.model_usage
    metadata = {
        **_plain(done.metadata),
        "inspect": {
            "id": done.id,
            "epoch": done.epoch,
            "scores": {name: _plain(score) for name, score in (done.scores or {}).items()},
            "judge": models.judge if judged else None,
            "self_judged": judged and models.self_judged,
        },
    }
    error = done.error.message if done.error else None
    return Sample(
        task=task,
        sample_id=sample_id,
        prompt=prompt_text(done.input),
        outputs=tuple(choice.message.text for choice in choices),
        target=target_text(done.target),
        scores={} if error else _scores(done.scores or {}),
        finish_reasons=tuple("length" if c.stop_reason == "max_tokens" else "stop" for c in choices),
        prompt_tokens=usage.input_tokens + cached if usage else 0,
        cached_tokens=cached,
        output_tokens=usage.output_tokens if usage else 0,
        dropped_prompt_tokens=facts.get("dropped_prompt_tokens", 0),
        first_token_s=facts.get("first_token_s"),
        # reading an answer back says nothing of how long it takes
        total_s=None if reused["reused"] else done.output.time,
        **reused,
        error=None if error is None else " ".join(error.split())[:500],
        metadata=metadata,
    )


def reuse(done: Any) -> dict[str, int]:
    """What of a sample's answers, over all its turns and a checkpoint's judging itself, came from the cache."""
    own = [e for e in done.events if e.event == "model" and e.model.startswith("harness/")]
    facts = [event.output.metadata or {} for event in own]
    return {name: sum(fact.get(name, 0) for fact in facts) for name in ("answers", "reused", "reused_tokens")}


def prompt_text(given: Any) -> str:
    """What a reader sees as the prompt: the text, or the turns of a conversation."""
    if isinstance(given, str):
        return given
    return "\n\n".join(f"[{message.role}] {message.text}" for message in given)


def target_text(target: Any) -> str | None:
    """The right answer as a reader should see it; None where there is none."""
    text = target if isinstance(target, str) else "\n".join(target)
    return text or None


def _scores(scores: Mapping[str, Any]) -> dict[str, Score]:
    """One number per scorer, or per key where a scorer gives several."""
    from inspect_ai.scorer import value_to_float

    to_float = value_to_float()
    found: dict[str, Score] = {}
    for name, score in scores.items():
        detail = {"answer": score.answer, "explanation": score.explanation}
        values = score.value if isinstance(score.value, Mapping) else {"": score.value}
        for key, value in values.items():
            number = None if isinstance(value, (list, Mapping)) else to_float(value)
            if number is not None and not math.isfinite(number):
                found[_join(name, key)] = Score(None, error=_unscored(score), detail=detail)
            elif number is not None:
                found[_join(name, key)] = Score(number, detail=detail)
    return found


def _unscored(score: Any) -> str:
    """Why a scorer gave no number, e.g. a judge without a verdict."""
    reason = getattr(score, "reason", None) or "no reason given"
    return f"inspect left it unscored: {reason} ({' '.join((score.explanation or '').split())[:80]})"


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _plain(value: Any) -> Any:
    """JSON; numbers that JSON does not have become the strings 'nan', 'inf', '-inf'."""
    from pydantic_core import to_jsonable_python

    return _finite(to_jsonable_python(value, fallback=str, exclude_none=True))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# Journal -> metrics


def metrics_of(samples: Sequence[Sample], scoring: Scoring) -> dict[str, Metric]:
    """inspect's metrics over all journalled samples of a task, with its own reducers over epochs.

    The interval is the harness's own (Wilson, t, clustered by sample over epochs) where a metric is the mean of the
    samples' scores, inspect's standard error where it gives one, and else a bootstrap over samples.
    """
    good = [sample for sample in samples if sample.error is None]
    n_failed = len(samples) - len(good)
    rows = [_sample_scores(sample) for sample in good]
    if not any(rows):
        return {}
    ids = [str(sample.metadata["inspect"]["id"]) for sample in good]
    suffix = SELF_JUDGED if any(s.metadata["inspect"]["self_judged"] for s in good) else ""
    found = _compute(rows, scoring)
    metrics: dict[str, Metric] = {}
    for name, figure in found.items():
        scored = _Scored.of(figure.scorer, good, ids)
        metrics[name] = _metric(figure, scored, n_failed, (len(good), scoring.higher_is_better))
    bare = [name for name, metric in metrics.items() if metric.ci95 is None and metric.value is not None]
    spread = _bootstrap(rows, ids, scoring) if bare and len(set(ids)) > 1 else {}
    for name in set(bare) & set(spread):
        stderr, low, high = spread[name]
        if low == high:
            metrics[name] = _without_variance(metrics[name], len(set(ids)))
        else:
            metrics[name] = _with_interval(metrics[name], stderr, (low, high), "bootstrap")
    return {name + suffix: metric for name, metric in metrics.items()}


class _Figure(NamedTuple):
    value: float
    scorer: str
    stderr: float | None


def _sample_scores(sample: Sample) -> dict[str, Any]:
    from inspect_ai.scorer import SampleScore
    from inspect_ai.scorer import Score as InspectScore

    own = sample.metadata["inspect"]
    rest = {key: value for key, value in sample.metadata.items() if key != "inspect"}
    return {
        name: SampleScore(
            score=InspectScore.model_validate(_nan(score)), sample_id=own["id"], sample_metadata=rest
        )
        for name, score in own["scores"].items()
    }


def _nan(score: Mapping[str, Any]) -> dict[str, Any]:
    """A journalled 'nan' value as the number that it stands for."""

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: number(item) for key, item in value.items()}
        return float(value) if value in ("nan", "inf", "-inf") else value

    return {**score, "value": number(score.get("value"))}


def _compute(rows: Sequence[Mapping[str, Any]], scoring: Scoring) -> dict[str, _Figure]:
    """Metric name -> value by inspect's own computation."""
    from inspect_ai._eval.task.results import eval_results

    results, _ = eval_results(
        samples=len(rows),
        scores=[dict(row) for row in rows],
        reducers=scoring.reducers,
        scorers=list(scoring.scorers) if scoring.scorers else None,
        metrics=scoring.metrics,
    )
    several = len({score.name for score in results.scores}) > 1
    reducers = {score.reducer for score in results.scores}
    found: dict[str, _Figure] = {}
    for score in results.scores:
        prefix = _join(score.name if several else "", (score.reducer or "") if len(reducers) > 1 else "")
        errors = [m.value for m in score.metrics.values() if m.name in ERRORS_OF_METRICS]
        for key, metric in score.metrics.items():
            if metric.name not in ERRORS_OF_METRICS | SPREADS:
                stderr = float(errors[0]) if errors and metric.name in ("accuracy", "mean") else None
                found[_join(prefix, key)] = _Figure(float(metric.value), score.name, stderr)
    return found


class _Scored(NamedTuple):
    """The samples' own numbers under one scorer."""

    values: list[float]
    ids: list[str]
    n_unscored: int

    @classmethod
    def of(cls, scorer: str, samples: Sequence[Sample], ids: Sequence[str]) -> _Scored | None:
        """None where the scorer gave something other than one number per sample."""
        found = [(sample.scores.get(scorer), name) for sample, name in zip(samples, ids, strict=True)]
        if not any(score for score, _ in found):
            return None
        pairs = [
            (score.value, name) for score, name in found if score is not None and score.value is not None
        ]
        return cls([value for value, _ in pairs], [name for _, name in pairs], len(samples) - len(pairs))

    def has_mean(self, value: float) -> bool:
        n = len(self.values)
        return n > 0 and math.isclose(sum(self.values) / n, value, rel_tol=1e-9, abs_tol=1e-12)


def _metric(figure: _Figure, scored: _Scored | None, failed: int, counts: tuple[int, bool]) -> Metric:
    n_samples, upward = counts
    unscored = scored.n_unscored if scored else 0
    if scored and scored.has_mean(figure.value):
        mean = summarise(
            scored.values,
            n_failed=failed + unscored,
            higher_is_better=upward,
            clusters=scored.ids,
            name=figure.scorer,
        )
        return mean if len(set(scored.ids)) == len(scored.ids) else replace(mean, cluster="inspect.id")
    value = figure.value if math.isfinite(figure.value) else None
    metric = Metric(value, n_samples - unscored, failed + unscored, upward)
    if value is None or figure.stderr is None or not math.isfinite(figure.stderr):
        return metric
    if figure.stderr == 0:
        return _without_variance(metric, metric.n)
    half = Z95 * figure.stderr
    return _with_interval(metric, figure.stderr, (value - half, value + half), "normal")


def _without_variance(metric: Metric, n: int) -> Metric:
    """No variance is seen among the samples; that is not an error of 0."""
    found = without_variance(float(metric.value or 0.0), n)
    return replace(metric, stderr=found.stderr, ci95=found.ci95, interval=found.interval)


def _with_interval(metric: Metric, stderr: float, ci95: tuple[float, float], name: str) -> Metric:
    return Metric(metric.value, metric.n, metric.n_failed, metric.higher_is_better, stderr, ci95, name)


def _bootstrap(
    rows: Sequence[Mapping[str, Any]], ids: Sequence[str], scoring: Scoring
) -> dict[str, tuple[float, float, float]]:
    """Metric -> (standard error, low, high) over resampled samples, epochs of a sample together."""
    import numpy as np

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for sample_id, row in zip(ids, rows, strict=True):
        groups.setdefault(sample_id, []).append(row)
    pools, draw, seen = list(groups.values()), random.Random(0), dict[str, list[float]]()
    replicates = max(FEWEST_REPLICATES, min(REPLICATES, BOOTSTRAP_SAMPLES // len(rows)))
    for _ in range(replicates):
        drawn = [_renamed(row, str(i)) for i, _ in enumerate(pools) for row in draw.choice(pools)]
        for name, figure in _compute(drawn, scoring).items():
            seen.setdefault(name, []).append(figure.value)
    full = {name: v for name, v in seen.items() if len(v) == replicates and np.isfinite(v).all()}
    return {
        name: (float(np.std(v, ddof=1)), *map(float, np.quantile(v, [0.025, 0.975])))
        for name, v in full.items()
    }


def _renamed(row: Mapping[str, Any], sample_id: str) -> dict[str, Any]:
    """A sample drawn twice counts as two."""
    return {name: score.model_copy(update={"sample_id": sample_id}) for name, score in row.items()}
