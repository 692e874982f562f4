"""Samples of an lm-eval task as the journal holds them: what was asked and answered, and what the scorer said."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task as LmTask

from harness.errors import HarnessError
from harness.hashing import hash_json
from harness.records import Completion, Json, Sample, Score
from harness.tasks import answer_fields, scored
from suites.from_lm_eval import scoring

Reader = Callable[[str, str], bool]
"""Whether an answer is right: takes the answer and the right one."""

PASSAGES = ("passage", "context", "article", "story", "paragraph")
"""Columns of lm-eval's data sets with a text that several questions are about: BoolQ, DROP, SQuAD, RACE, CoQA."""


def blank_sample(label: str, sample_id: str, task: LmTask, instances: Sequence[Instance]) -> Sample:
    """What is known of a sample before it is answered."""
    return Sample(
        task=label,
        sample_id=sample_id,
        prompt=prompt_of(instances),
        target=target_of(task, instances[0].doc),
        metadata={"subtask": task.task_name, "doc_id": instances[0].doc_id, **passage_of(instances[0].doc)},
    )


def passage_of(doc: Any) -> dict[str, Json]:
    """What a document shares with others that are asked about the same text; empty where it has no text."""
    texts = [doc.get(column) for column in PASSAGES] if isinstance(doc, dict) else []
    text = next((text for text in texts if isinstance(text, str) and text), None)
    return {} if text is None else {scoring.PASSAGE: hash_json(text)}


def answered_sample(
    blank: Sample, task: LmTask, instances: Sequence[Instance], completions: Sequence[Completion]
) -> Sample:
    """The sample with its answers; the responses stand in the instances already."""
    fields = answer_fields(completions)
    fields["outputs"] = fields["outputs"] or best_choice(task, instances)
    return replace(blank, **fields, metadata={**blank.metadata, **responses_of(instances)})


def scored_sample(
    sample: Sample,
    task: LmTask,
    instances: Sequence[Instance],
    *,
    alone: bool,
    readers: Mapping[str, Reader] | None = None,
) -> Sample:
    """The sample with its scores; a filter or scorer that raises fails this sample and no other.

    Args:
        alone: the filters look at this document alone and are still to be applied.
        readers: metric -> another way of reading the same answer.
    """

    def score() -> dict[str, Score]:
        if alone:
            scoring.apply_filters(task, instances)
        scores = _score(task, instances)
        for name, read in (readers or {}).items():
            scores[name] = Score(float(read(sample.outputs[0], sample.target or "")))
        return scoring.with_disagreement(scores, int(instances[0].repeats or 1))

    return with_extracted(scored(sample, score), instances)


def _score(task: LmTask, instances: Sequence[Instance]) -> dict[str, Score]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # scorers print; stdout is for results
            return scoring.score_doc(task, instances)
    except LookupError as exc:
        if "nltk" not in str(exc):
            raise
        raise HarnessError(
            "nltk's data is not installed: python -m nltk.downloader punkt_tab, or NLTK_DATA=FOLDER that holds it"
        ) from exc


def with_responses(sample: Sample, asked: Sequence[Instance]) -> list[Instance]:
    """The requests of a sample with the responses that the journal holds."""
    group = [replace(instance, resps=[], filtered_resps={}) for instance in asked]
    stored = sample.metadata.get("responses")
    texts = iter(sample.outputs)
    for place, instance in enumerate(group):
        if stored is not None:
            instance.resps = [tuple(r) if isinstance(r, list) else r for r in stored[place]]
            continue
        repeats = instance.repeats or 1
        drawn = repeats if len(sample.outputs) == repeats * len(group) else 1
        instance.resps = [next(texts) for _ in range(drawn)] * (repeats // drawn)
    return group


def with_extracted(sample: Sample, instances: Sequence[Instance]) -> Sample:
    """Add what each filter took from the text, where there is a filter."""
    first = instances[0]
    if first.request_type != "generate_until":
        return sample
    found = {
        name: scoring.to_json(value) for name, value in first.filtered_resps.items() if name != scoring.PLAIN
    }
    return replace(sample, metadata={**sample.metadata, "extracted": found}) if found else sample


def prompt_of(instances: Sequence[Instance]) -> str:
    """The text before the answer; tasks that fill a blank show every filling."""
    contexts = dict.fromkeys(str(instance.args[0]) for instance in instances)
    return "\n\n".join(context for context in contexts if context)


def target_of(task: LmTask, doc: Any) -> str | None:
    """The right answer as a reader should see it; None where the task keeps it to itself."""
    try:
        target = task.doc_to_target(doc)
        if isinstance(target, int) and not isinstance(target, bool) and task.config.doc_to_choice is not None:
            target = task.doc_to_choice(doc)[target]
    except Exception:  # noqa: BLE001  task files are plug-in code, and this is for display alone
        return None
    if isinstance(target, list | tuple):
        return " | ".join(map(str, target))
    return None if target is None else str(target)


def responses_of(instances: Sequence[Instance]) -> dict[str, Json]:
    """Log-likelihoods for the journal; texts are in the sample's outputs already."""
    if all(instance.request_type == "generate_until" for instance in instances):
        return {}
    found: dict[str, Json] = {"responses": [scoring.to_json(instance.resps) for instance in instances]}
    choices = continuations(instances)
    return found | ({"choices": choices} if len(choices) > 1 else {})


def continuations(instances: Sequence[Instance]) -> list[Json]:
    """Texts after the prompt whose likelihoods are asked for."""
    return [str(one.args[1]) for one in instances if one.request_type == "loglikelihood"]


def best_choice(task: LmTask, instances: Sequence[Instance]) -> tuple[str, ...]:
    """The likeliest choice, as the answer a reader sees."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return ()
    best = max(instances, key=lambda one: one.resps[0][0])
    choices = dict.fromkeys(str(one.args[1]) for one in instances)
    return (str(best.args[1] if len(choices) > 1 else best.args[0]),)
