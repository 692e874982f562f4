"""Reading a judge: what counts as a verdict, what the two orders make, what is off-format."""

from __future__ import annotations

import time

import pytest

from harness.errors import BadPlan
from harness.judging.pairwise import Preference, both_orders, preference, read_choice
from harness.judging.rubric import Rubric, read_rubric

RUBRIC = Rubric(name="help", text="Does it help?", low=1, high=5)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Answer A is clearer. [[A]]", "A"),
        ("[[b]]", "B"),
        ("[[ Tie ]]", "tie"),
        ("B", "B"),
        ("**A**.", "A"),
        ("I prefer [[A]]; so: [[A]]", "A"),
        ("<think>[[A]] or [[B]]?</think> [[B]]", "B"),
        # never guessed
        ("", None),
        ("Answer A is better.", None),
        ("[[A]] at first, but then [[B]]", None),
        ("[[C]]", None),
        ("[A] or [B]", None),
        ("<think>it should be [[A]]", None),
        ("A B", None),
        ("Ａ", None),
        ("[[]]", None),
        ("The verdict is A", None),
    ],
)
def test_a_choice_is_in_double_brackets_or_all_there_is(text, choice):
    assert read_choice(text) == choice


def test_a_long_answer_without_a_verdict_is_read_quickly():
    start_s = time.perf_counter()
    assert read_choice("[[" * 200_000 + " " * 200_000) is None
    assert read_choice("<think>" * 100_000) is None
    assert time.perf_counter() - start_s < 1.0


@pytest.mark.parametrize(
    ("straight", "swapped", "expected"),
    [
        ("[[B]]", "[[A]]", Preference(1.0, False, 0, 1, 1)),
        ("[[A]]", "[[B]]", Preference(0.0, False, 0, 1, 1)),
        ("[[tie]]", "[[tie]]", Preference(0.5, False, 0, 0, 0)),
        # the one shown first, whichever it is
        ("[[A]]", "[[A]]", Preference(0.5, True, 0, 2, 0)),
        ("[[B]]", "[[B]]", Preference(0.5, True, 0, 0, 2)),
        ("[[A]]", "[[tie]]", Preference(0.5, True, 0, 1, 0)),
        ("[[A]]", "no idea", Preference(None, None, 1, 1, 0)),
        ("?", "??", Preference(None, None, 2, 0, 0)),
    ],
)
def test_two_orders_make_a_preference(straight, swapped, expected):
    assert preference([straight, swapped]) == expected


def test_the_second_question_shows_the_answers_swapped():
    first, second = (turns[-1]["content"] for turns in both_orders("Say hi.", "left", "right"))
    assert first.index("left") < first.index("right")
    assert second.index("right") < second.index("left")
    assert first.count("Say hi.") == second.count("Say hi.") == 1


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Good. [[4]]", 4),
        ("5", 5),
        ("[[1]]", 1),
        ("[[0]]", None),
        ("[[6]]", None),
        ("[[4.5]]", None),
        ("[[3]] or [[4]]", None),
        ("4/5", None),
        ("I would say 4", None),
        ("[[٤]]", None),
        ("[[-1]]", None),
        ("", None),
    ],
)
def test_a_grade_is_a_whole_number_of_the_scale(text, grade):
    assert RUBRIC.read(text) == grade


def test_a_rubric_file_is_read_and_shown_to_the_judge(tmp_path):
    path = tmp_path / "rubric.yaml"
    path.write_text("name: help\ntext: Does it help?\nlow: 0\nhigh: 2\nlevels: {0: It harms., 2: It does.}\n")
    rubric = read_rubric(path)
    question = rubric.question("Say hi.", "Hi!")[-1]["content"]
    assert "0: It harms.\n2: It does." in question
    assert "from 0 to 2" in question
    assert "Say hi." in question


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: help\ntext: ok\nhihg: 5\n", r"rubric.yaml:3: unknown key 'hihg'; did you mean 'high'"),
        ("name: help\ntext: ok\nlow: 5\nhigh: 5\n", r"the scale 5..5"),
        ("name: help\ntext: ok\nlow: -2\nhigh: 2\n", r"low is -2; grades begin at 0"),
        ("name: help\ntext: ok\nlevels: {9: odd}\n", r"level 9 is outside the scale 1..5"),
        ("name: help\n", r"'text' is missing"),
    ],
)
def test_a_wrong_rubric_is_refused_by_path_and_line(tmp_path, content, message):
    path = tmp_path / "rubric.yaml"
    path.write_text(content)
    with pytest.raises(BadPlan, match=message):
        read_rubric(path)
