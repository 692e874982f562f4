"""A chat template that opens the model's thought: what was cut off inside it is no answer to any task."""

from __future__ import annotations

import pytest

from harness.records import Completion, Output
from harness.tasks import Item
from harness.thoughts import TAGS, final_answer, opening_of, whole_turn, whole_turns
from suites.confidence import calibration
from suites.harms.harmful_requests import AdvBench
from tests.conftest import CHAT_TEMPLATE, byte_tokenizer
from tests.suites.confidence.test_calibration_tasks import Oracle, run
from tests.suites.conftest import ref, run_whole
from tests.suites.own.test_task import Answering, bind, suite, values  # noqa: F401  suite: a fixture
from tests.test_turns import Echo

OPENED = CHAT_TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n")


def thinking(engine):
    engine.tokenizer.chat_template = OPENED
    return engine


@pytest.mark.parametrize("tags", TAGS)
def test_the_tag_at_the_prompts_end_is_the_turns_beginning(tags):
    assert opening_of(f"user: hi\n{tags.open}\n") == f"{tags.open}\n"
    cut = whole_turn(f"hi {tags.open}", "It may be 4")
    assert (cut, final_answer(cut)) == (f"{tags.open}\nIt may be 4", "")
    assert final_answer(whole_turn(f"hi {tags.open}\n", f"It may be 4{tags.close}5")) == "5"


def test_other_prompts_open_nothing():
    assert whole_turn("hi", "4") == "4"
    assert whole_turn("hi <think>\n\n</think>\n\n", "4") == "4", (
        "a thought that the template has closed again"
    )
    assert whole_turn("is <think> a tag?", "yes") == "yes"
    assert whole_turn("hi <think>\n", "<think>4") == "<think>4", "said again by the model"
    same = Completion((Output("4", (1,), "stop"),))
    assert whole_turns("hi", same) is same


def test_tags_that_no_text_shows_say_nothing():
    hidden = byte_tokenizer()
    hidden.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)
    ids = hidden.encode("[THINK]4[/THINK] 5", add_special_tokens=False)
    assert hidden.decode(ids, skip_special_tokens=True) == "4 5"
    said = Completion((Output("It may be 4. 5", (1,), "stop"),))
    assert whole_turns("hi [THINK]", said, hidden) is said
    assert whole_turns("hi [THINK]", said, byte_tokenizer()).outputs[0].text == "[THINK]\nIt may be 4. 5"


@pytest.mark.mirror
def test_a_thought_that_was_cut_off_is_no_answer(mirror, context):
    said = iter(
        [
            "The user wants help. I cannot say yet",
            "Harmless.</think>\n\nSure, like this.",
            "No</think>I'm sorry",
        ]
    )
    engine = thinking(Answering(lambda prompt: next(said), chat=True))
    task = AdvBench(ref("advbench"), context(mirror, engine=engine, limit=3))
    cut, complied, refused = run_whole(task)
    assert cut.outputs == ("<think>\nThe user wants help. I cannot say yet",)
    assert [sample.scores["no_answer"].value for sample in (cut, complied, refused)] == [1.0, 0.0, 0.0]
    assert [s.scores["refusal_opening"].value for s in (cut, complied, refused)] == [0.0, 0.0, 1.0]


def test_scorers_of_own_suites_read_no_thoughts(suite):  # noqa: F811
    said = {
        "France": "It is not Lyon. Paris, I think",
        "Japan": "Osaka? No.</think>Tokyo",
        "Spain": "Madrid.</think>Seville",
    }
    engine = thinking(
        Answering(lambda prompt: next(text for key, text in said.items() if key in prompt), chat=True)
    )
    task = bind(suite("prompt: Where? {country}\ntarget: city\nscorer: [contains, exact_match]"), engine)
    samples = run_whole(task)
    assert [s.scores["contains"].value for s in samples] == [0.0, 1.0, 0.0]
    assert values(task, samples)["exact_match"] == pytest.approx(1 / 3)


def test_a_judge_of_an_own_suite_is_shown_no_thoughts(suite):  # noqa: F811
    from tests.suites.harms.test_refusals import Said

    judge = Said("3", "3", "3")
    engine = thinking(Answering(lambda prompt: "Lyon? No.</think>Paris", chat=True))
    task = bind(
        suite("prompt: Where? {country}\ntarget: city\nscorer: {name: judge, rubric: Is it right}"),
        engine,
        judge=judge,
    )
    run_whole(task)
    assert all("<answer>\nParis\n</answer>" in asked for asked in judge.asked)


def test_a_dialogue_is_read_with_the_tag_and_goes_on_without(context):
    class Heard(Echo):
        lengths = (2,)

        def reply(self, item: Item, answers):
            heard.append(final_answer(answers[-1].outputs[0].text))
            return super().reply(item, answers)

    heard: list[str] = []
    said = iter(["cut off", "yes?</think>no"])
    engine = thinking(Answering(lambda prompt: next(said), chat=True))
    (sample,) = run_whole(Heard(ref("echo"), context(None, engine=engine)))
    assert heard == ["", "no"]
    assert sample.outputs == ("<think>\ncut off", "<think>\nyes?</think>no")
    assert [m["content"] for m in sample.metadata["messages"] if m["role"] == "assistant"] == [
        "cut off",
        "yes?</think>no",
    ]


@pytest.mark.mirror
def test_the_likelihood_is_asked_behind_what_was_written(mirror, context):
    thought = "Answer: Rome\nConfidence: 0.1</think>\n"
    engine = thinking(Oracle([f"{thought}Answer: x\nConfidence: 0.9", "Answer: x\nConfidence: 0.9"]))
    task = calibration.load(ref("calibration"), context(mirror, engine=engine, limit=2))
    done, cut = run(task)
    assert engine.compared == [(f"{engine.generated[0]}{thought}Answer:", " x")]
    assert done.scores["verbal_confidence"].value == 0.9
    assert cut.scores["confidence_unreadable"].detail == "none"
