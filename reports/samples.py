"""Samples of a run in pages: all of them, and the wrong, the failed, the truncated ones apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.records import RunRecord, Sample
from reports.text import plain_text

PER_PAGE = 50
TEXT_SHOWN = 20_000
"""Characters of one text on a page; the run folder holds the rest."""
LONG = 700
"""Characters from which a text scrolls in a box of its own."""


class Shown(NamedTuple):
    """A text of the model or of the data set, fit to be shown."""

    text: str
    left_out: int
    """Characters in the middle that the page leaves out."""
    long: bool


class Card(NamedTuple):
    """One sample on a page."""

    number: int
    """Position in the run, from 1."""
    sample: Sample
    prompt: Shown
    outputs: tuple[Shown, ...]
    target: Shown | None
    truncated: bool
    wrong: bool


class Page(NamedTuple):
    """One file of samples."""

    kind: str
    number: int
    count: int
    total: int
    """Samples of this kind."""
    cards: tuple[Card, ...]
    first_of_task: Mapping[str, tuple[int, int]]
    """task -> (page, card number) of its first sample of this kind"""


def shown(text: str) -> Shown:
    """The text, its middle left out where it is longer than a page should carry."""
    left_out = max(0, len(text) - TEXT_SHOWN)
    if left_out:
        half = TEXT_SHOWN // 2
        text = f"{text[:half]}\n[… {left_out:,} characters left out …]\n{text[-half:]}"
    clean = plain_text(text)
    return Shown(clean, left_out, len(clean) > LONG or clean.count("\n") > 14)


def is_wrong(sample: Sample, metric: str | None) -> bool:
    """Scored below one half of the way to the best on its headline metric. A failed sample is not wrong.

    Only scores between 0 and 1 are judged; toxicity and its like count from the other side (see `cards`).
    """
    score = sample.scores.get(metric) if metric else None
    value = None if score is None else score.value
    return not sample.failed and value is not None and 0 <= value < 0.5


def cards(run: RunRecord, samples: Iterable[Sample]) -> Iterator[Card]:
    """Samples as cards, numbered as they come."""
    for number, sample in enumerate(samples, 1):
        metric = run.headline_metrics.get(sample.task) or run.other_metrics.get(sample.task)
        spec = run.metrics.get(sample.task, {}).get(metric or "")
        yield Card(
            number=number,
            sample=sample,
            prompt=shown(sample.prompt),
            outputs=tuple(shown(text) for text in sample.outputs),
            target=None if sample.target is None else shown(sample.target),
            truncated="length" in sample.finish_reasons,
            wrong=_is_bad(sample, metric) if spec and not spec.higher_is_better else is_wrong(sample, metric),
        )


def _is_bad(sample: Sample, metric: str | None) -> bool:
    """Where lower is better: at least one half."""
    score = sample.scores.get(metric) if metric else None
    value = None if score is None else score.value
    return not sample.failed and value is not None and 0.5 <= value <= 1


def sorted_out(found: Sequence[Card]) -> dict[str, list[Card]]:
    """Kind -> its cards; kinds without any are left out, 'all' is always there."""
    kinds = {
        "all": list(found),
        "wrong": [card for card in found if card.wrong],
        "failed": [card for card in found if card.sample.failed],
        "truncated": [card for card in found if card.truncated],
    }
    return {kind: mine for kind, mine in kinds.items() if mine or kind == "all"}


def pages(kind: str, found: Sequence[Card]) -> Iterator[Page]:
    """Cards of one kind, PER_PAGE to a page; at least one page."""
    count = max(1, -(-len(found) // PER_PAGE))
    first: dict[str, tuple[int, int]] = {}
    for index, card in enumerate(found):
        first.setdefault(card.sample.task, (index // PER_PAGE + 1, card.number))
    for number in range(1, count + 1):
        cut = tuple(found[(number - 1) * PER_PAGE : number * PER_PAGE])
        yield Page(kind, number, count, len(found), cut, first)


def page_name(kind: str, number: int) -> str:
    """File name beside the run's page: samples-1.html, wrong-2.html, ..."""
    return f"{'samples' if kind == 'all' else kind}-{number}.html"
