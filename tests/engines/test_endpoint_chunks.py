"""Pieces of a stream, each with what it holds: what figures of latency rest on."""

from __future__ import annotations

from harness.engines.endpoint_answers import read_choices, to_output
from harness.engines.endpoint_client import Event, Reply
from harness.records import Chunk


def streamed(*events):
    """Events at 10.1, 10.2, ... s."""
    return Reply([Event(data, 10 + (i + 1) / 10) for i, data in enumerate(events)], 10.0, streamed=True)


def chunks(reply, *, chat):
    (choice,) = read_choices(reply, 1, chat=chat)
    found = to_output(choice, (), 10.0, None).chunks
    return [chunk._replace(at_s=round(chunk.at_s, 6)) for chunk in found]


def piece(end=None, **fields):
    return {"choices": [{"index": 0, "finish_reason": end, **fields}]}


def test_a_chat_opens_thinks_answers_ends_and_counts():
    reply = streamed(
        piece(delta={"role": "assistant", "content": ""}),
        piece(delta={"reasoning_content": "hm"}),
        piece(delta={"content": "4"}),
        piece(delta={"content": ""}),
        piece("stop", delta={}),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}},
    )
    assert chunks(reply, chat=True) == [
        Chunk(0.1, "role"), Chunk(0.2, "reasoning"), Chunk(0.3, "text"), Chunk(0.4, "empty"), Chunk(0.5, "end"),
        Chunk(0.6, "usage", None, 7),
    ]  # fmt: skip


def test_ids_tell_tokens_also_where_half_a_letter_shows_nothing():
    reply = streamed(
        piece(text="a", token_ids=[5]),
        piece(text="", token_ids=[6]),
        piece("length", text="é!", token_ids=[7, 8]),
    )
    assert chunks(reply, chat=False) == [
        Chunk(0.1, "text", 1), Chunk(0.2, "empty", 1), Chunk(0.3, "text", 2),
    ]  # fmt: skip


def test_a_count_that_rides_on_a_piece_stays_with_it():
    reply = streamed(
        {**piece(text="a"), "usage": {"completion_tokens": 1}},
        {**piece("stop", text=""), "usage": {"completion_tokens": 2}},
    )
    assert chunks(reply, chat=False) == [Chunk(0.1, "text", None, 1), Chunk(0.2, "end", None, 2)]


def test_an_answer_in_one_piece_has_no_chunks():
    reply = Reply([Event(piece("stop", text="whole"), 10.5)], 10.0)
    assert chunks(reply, chat=False) == []
