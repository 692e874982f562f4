"""IFBench: every check against lighteval's, the four metrics, data that is not installed, a run on the mirror."""

from __future__ import annotations

import json
import time

import pytest

from harness import registry
from harness.errors import BadColumns, HarnessError
from harness.records import Sample
from suites.following.constraints import ifbench, language
from suites.following.constraints.ifbench import CHECKS, NEEDS, follows, loosened, strict_and_loose
from suites.following.constraints.sentences import sentences
from suites.following.ifbench import followed_scores
from tests.suites.conftest import ref, run_whole
from tests.suites.following import upstream_ifbench
from tests.suites.following.ifbench_answers import ANSWERS


@pytest.fixture(scope="module")
def lighteval_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lighteval")
    upstream_ifbench.install(folder)
    return folder


@pytest.fixture(scope="module")
def nltk_folder(tmp_path_factory):
    """One for the module: nltk remembers where it found a corpus first."""
    return upstream_ifbench.small_nltk_data(tmp_path_factory.mktemp("nltk"))


@pytest.fixture
def nltk_data(nltk_folder, monkeypatch):
    """A small nltk data folder as the only one there is."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(nltk_folder)])
    language._stop_words.cache_clear()
    yield
    language._stop_words.cache_clear()


@pytest.fixture
def no_nltk_data(tmp_path, monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


@pytest.fixture
def upstream(lighteval_folder, nltk_data, monkeypatch):
    monkeypatch.syspath_prepend(str(lighteval_folder))
    return upstream_ifbench.load(monkeypatch)


def arguments(mirror) -> dict[str, list[dict]]:
    """Up to four argument sets of each constraint, from the benchmark."""
    found: dict[str, list[dict]] = {}
    for line in (mirror / "allenai" / "IFBench_test" / "default" / "train.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            args = {key: value for key, value in given.items() if value is not None}
            if args not in found.setdefault(name, []) and len(found[name]) < 4:
                found[name].append(args)
    return found


def test_every_constraint_of_the_benchmark_is_checked(mirror):
    assert set(arguments(mirror)) == set(CHECKS)
    assert len(CHECKS) == 58


@pytest.mark.parametrize("constraint", sorted(CHECKS))
def test_a_check_says_what_lightevals_says(constraint, mirror, upstream):
    verdicts = []
    for args in arguments(mirror)[constraint]:
        if args.get("n_start") == 0:
            continue  # upstream takes 0 for "not given" and draws a start
        extra = [args[key] for key in ("prompt_to_repeat", "reference_text") if key in args]
        extra += [text[5:200] for text in extra] + ["W" + text[1:] for text in extra]
        extra += [" ".join(text.split()[args.get("n_start", 0) : args.get("n_end")]) for text in extra]
        extra += [
            "Go on. " * (int(args["N"]) - 1) + f"The {args['word']} it has." for _ in "x" if "word" in args
        ]
        extra += [diluted(text, args["percentage"]) for text in extra[:1] if "reference_text" in args]
        for answer in (*ANSWERS, *extra):
            theirs = upstream_ifbench.verdict(upstream, constraint, answer, args)
            assert follows(constraint, answer, args) == bool(theirs), (answer, args)
            verdicts.append(theirs)
    assert len(verdicts) >= 150
    assert False in verdicts
    assert True in verdicts or constraint in UNREACHED


def diluted(reference: str, percentage: float) -> str:
    """The reference, and so many strange characters that its trigrams are that share of all."""
    own = len({reference[i : i + 3] for i in range(len(reference) - 2)})
    return reference + "".join(chr(0x4E00 + i) for i in range(round(own * (100 - percentage) / percentage)))


UNREACHED = {"words:keywords_specific_position", "count:keywords_multiple"}
"""Need an answer made for the argument: see below."""


def test_keywords_in_their_places(mirror, upstream):
    position = {"keyword": "giggle", "n": 3, "m": 4}
    counts = {f"keyword{i}": word for i, word in enumerate(["red", "tan", "sky", "owl", "pea"], start=1)}
    both = [
        ("words:keywords_specific_position", position, "Go on. Sit down. One, two giggle!", True),
        ("words:keywords_specific_position", position, "Go on. Sit down. One two, giggle!", True),
        ("words:keywords_specific_position", position, "Go on. Sit down. One two giggle!", False),
        ("count:keywords_multiple", counts, "Red tan TAN" + " sky" * 3 + " owl" * 5 + " pea" * 7, True),
        ("count:keywords_multiple", counts, "Red tan TAN" + " sky" * 3 + " owl" * 5 + " pea" * 8, False),
    ]
    for constraint, args, answer, right in both:
        assert upstream_ifbench.verdict(upstream, constraint, answer, args) is right
        assert follows(constraint, answer, args) is right


def test_strict_and_loose_are_lightevals(mirror, upstream):
    """Whole prompts: the four figures of 300 real rows with answers that follow some constraints."""
    path = mirror / "allenai" / "IFBench_test" / "default" / "train.jsonl"
    agreed = 0
    for number, line in enumerate(path.open(encoding="utf-8")):
        row = json.loads(line)
        answer = ANSWERS[number % len(ANSWERS)]
        kwargs = [{k: v for k, v in given.items() if v is not None} for given in row["kwargs"]]
        inp = upstream.InputExample(0, row["instruction_id_list"], row["prompt"], kwargs)
        try:
            theirs = [
                test(inp, {row["prompt"]: answer})
                for test in (
                    upstream.test_instruction_following_strict,
                    upstream.test_instruction_following_loose,
                )
            ]
        except (IndexError, ZeroDivisionError):
            continue
        ours = strict_and_loose(answer, list(zip(row["instruction_id_list"], kwargs, strict=True)))
        assert [list(side) for side in ours] == [side.follow_instruction_list for side in theirs]
        agreed += 1
    assert agreed > 250


def test_sentences_by_hand():
    assert sentences("Dr. Ann met J. R. Smith. Why? Go!") == ["Dr. Ann met J. R. Smith.", "Why?", "Go!"]
    assert sentences("It costs 3.50 at shop.com... then") == ["It costs 3.50 at shop.com...", "then"]
    assert sentences("no mark") == ["no mark"]
    assert sentences("") == []


def test_loose_variants():
    assert loosened("a*\nb\nc") == ["a*\nb\nc", "b\nc", "a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b"]


def test_a_span_from_the_first_word_is_that_span():
    args = {"prompt_to_repeat": "Tell me a story about cats", "n_start": 0, "n_end": 3}
    assert follows("repeat:repeat_span", "tell me a", args)
    assert not follows("repeat:repeat_span", "me a", args)


def test_a_blank_answer_follows_nothing():
    pairs = [("format:no_whitespace", {}), ("count:numbers", {"N": 0})]
    assert strict_and_loose(" \n ", pairs) == ([False, False], [False, False])


@pytest.mark.parametrize("constraint", sorted(NEEDS))
def test_data_that_is_not_installed_is_named_and_never_a_wrong_answer(constraint, no_nltk_data):
    args = {"keyword": "a", "n": 1, "m": 1, "percentage": 50}
    with pytest.raises(HarnessError, match=rf"python -m nltk.downloader .*{NEEDS[constraint][0]}"):
        follows(constraint, "Go home.", args)


def test_long_answers_cost_little_time(nltk_data):
    """No expression of a check backtracks: every check reads the worst texts of 100,000 characters in seconds.

    nltk takes the most; where one did backtrack, it would be hours.
    """
    args = {
        "N": 2, "small_n": 2, "min_words": 1, "max_words": 2, "percentage": 3, "reference_text": "abc",
        "options": "a/b", "sep": "-", "prompt_to_repeat": "x", "n_start": 1, "n_end": 2, "word": "w", "keyword": "k",
        "n": 1, "m": 1, **{f"keyword{i}": "q" for i in range(1, 6)},
    }  # fmt: skip
    for text in ("\n" * 100_000 + "x", '"' + "," * 100_000, ". " * 50_000, "Question 1" + " " * 100_000):
        for constraint in sorted(set(CHECKS) - {"words:start_verb"}):  # whose tagger is nltk's
            begun_s = time.process_time()
            follows(constraint, text, args)
            assert time.process_time() - begun_s < 30, constraint


def test_the_four_metrics(mirror, context):
    task = registry.load("task", "ifbench")(ref("ifbench"), context(mirror, engine=None))
    flags = [([True, True], [True, True]), ([True, False], [True, True]), ([False], [False])]
    samples = [
        Sample("ifbench", str(i), "?", scores=followed_scores(strict, loose))
        for i, (strict, loose) in enumerate(flags)
    ]
    samples.append(Sample("ifbench", "9", "?", error="scorer: nltk"))
    metrics = task.aggregate(samples)
    assert [(name, round(m.value, 4), m.n, m.n_failed) for name, m in metrics.items()] == [
        ("prompt_level_strict_acc", 0.3333, 3, 1),
        ("inst_level_strict_acc", 0.6, 5, 1),
        ("prompt_level_loose_acc", 0.6667, 3, 1),
        ("inst_level_loose_acc", 0.8, 5, 1),
    ]
    assert [m.interval for m in metrics.values()] == ["wilson", "cluster-wilson", "wilson", "cluster-wilson"]


def test_a_run_on_the_mirror(mirror, context, no_nltk_data):
    task = registry.load("task", "ifbench")(ref("ifbench", max_tokens=8), context(mirror, limit=40))
    samples = run_whole(task)
    assert len(samples) == task.n_requests == 40
    failed = [sample for sample in samples if sample.error is not None]
    assert failed
    for sample in samples:
        if sample.error is None:
            assert list(sample.scores) == list(task.metrics)
        else:
            assert set(NEEDS) & set(sample.metadata["constraints"])
            assert "nltk.downloader" in sample.error
    assert task.aggregate(samples)["prompt_level_strict_acc"].n_failed == len(failed)
    asking = sum(bool(set(NEEDS) & set(s.metadata["constraints"])) for s in samples)
    assert any(note.startswith(f"{asking} prompts may fail for want of data") for note in task.notes)


def test_an_unknown_constraint_is_named(tmp_path, context):
    folder = tmp_path / "allenai" / "IFBench_test" / "default"
    folder.mkdir(parents=True)
    row = {"key": "0", "prompt": "a", "instruction_id_list": ["count:stars"], "kwargs": [{}]}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    (folder.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: default/train.jsonl\n---\n"
    )
    task = registry.load("task", "ifbench")(ref("ifbench"), context(tmp_path))
    with pytest.raises(BadColumns, match="'count:stars'"):
        _ = task.sample_ids


def test_the_registry_of_checks_holds_no_stranger():
    assert set(NEEDS) <= set(CHECKS)
    assert all(callable(check) for check in ifbench.CHECKS.values())
