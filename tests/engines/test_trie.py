"""The tree of shared prefixes: every sequence can be read off it, and what is shared is there once."""

from __future__ import annotations

import random

import pytest

from harness.engines.trie import build_tree


def spelled(tree, piece: int) -> tuple[int, ...]:
    ids: tuple[int, ...] = ()
    for index in tree.path(piece):
        assert tree.pieces[index].start == len(ids)
        ids += tree.pieces[index].ids
    return ids


@pytest.mark.parametrize("seed", range(200))
def test_every_sequence_is_spelled_by_its_path_and_pieces_stand_depth_first(seed):
    rng = random.Random(seed)
    sequences = [tuple(rng.choices(range(3), k=rng.randint(1, 12))) for _ in range(rng.randint(1, 12))]
    longest = rng.choice([2, 5, 100])
    tree = build_tree(sequences, longest, min_saved=rng.choice([0, 1, 4, 16]))
    assert [spelled(tree, last) for last in tree.last] == sequences
    assert all(0 < len(piece.ids) <= longest for piece in tree.pieces)
    for above in range(len(tree.pieces)):
        below = [index for index in range(len(tree.pieces)) if above in tree.path(index)]
        assert below == list(range(above, tree.after[above]))


def test_a_shared_prefix_is_held_once_and_equal_sequences_share_their_end():
    shots, question = tuple(range(100)), tuple(range(200, 240))
    sequences = [(*shots, *question, 7), (*shots, *question, 8, 9), (*shots, 3), (*shots, *question, 7)]
    tree = build_tree(sequences, longest=1000)
    assert sorted(len(piece.ids) for piece in tree.pieces) == [1, 1, 2, 40, 100]
    assert tree.last[0] == tree.last[3]


def test_a_branching_that_saves_too_little_is_not_worth_a_piece():
    tree = build_tree([(1, 2, 3), (1, 2, 4)], longest=10, min_saved=3)
    assert [piece.ids for piece in tree.pieces] == [(1, 2, 3), (1, 2, 4)]
    tree = build_tree([(1, 2, 3), (1, 2, 4)], longest=10, min_saved=2)
    assert [piece.ids for piece in tree.pieces] == [(1, 2), (3,), (4,)]


def test_the_order_of_the_sequences_does_not_matter():
    rng = random.Random(1)
    sequences = [tuple(rng.choices(range(4), k=20)) for _ in range(50)]
    shuffled = rng.sample(sequences, 50)
    assert build_tree(sequences, 8, 2).pieces == build_tree(shuffled, 8, 2).pieces


def test_trees_may_be_deeper_than_pythons_stack():
    sequences = [tuple([1] * length) for length in range(1, 3000)]
    tree = build_tree(sequences, longest=10_000, min_saved=0)
    assert len(tree.pieces) == 2999
    assert len(tree.path(tree.last[-1])) == 2999


def test_no_sequence_gives_no_tree():
    assert build_tree([], longest=10).pieces == []
