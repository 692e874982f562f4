"""What can happen to a cache: lines torn or altered, two writers, kill -9, a full disk, a folder that is none."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from harness.answers.cache import FOLDER
from harness.answers.files import ABOUT, Segment, body_of, is_held, scan, seal, segments
from harness.answers.index import Index
from harness.answers.writer import Writer
from tests.answers.conftest import ask, requests, told

FORK = multiprocessing.get_context("fork")
KEYS = [b"%032x" % (number << 64) for number in range(1, 6)]
BODIES = [{"text": f"answer {number}, \u00e9 \ud800 \n"} for number in range(1, 6)]


@pytest.fixture
def five(tmp_path) -> Path:
    """A segment of five answers."""
    segment = Segment(tmp_path / "1.answers")
    lines = [seal(key, json.dumps(body).encode()) for key, body in zip(KEYS, BODIES, strict=True)]
    segment.append(seal(ABOUT, b'{"model":"m"}') + b"".join(lines))
    segment.close()
    return segment.path


def found(path: Path) -> tuple[list, int]:
    """What an index finds under the five keys, and how much damage it counts."""
    index = Index(lambda: [path.parent])
    index.refresh()
    held = [index.find(key) for key in KEYS]
    index.close()
    return held, index.damaged


def test_whole_lines_are_found(five):
    assert found(five) == (BODIES, 0)


def test_a_segment_cut_at_any_byte_loses_its_end_and_nothing_else(five):
    data = five.read_bytes()
    ends = [place for place in range(1, len(data) + 1) if data[place - 1 : place] == b"\n"]
    for cut in range(len(data)):
        five.write_bytes(data[:cut])
        whole = max(sum(end <= cut for end in ends) - 1, 0)
        at_a_line = cut == 0 or cut in ends
        assert found(five) == (BODIES[:whole] + [None] * (5 - whole), 0 if at_a_line else 1), cut


def test_any_bit_flipped_anywhere_is_seen_and_its_answer_not_used(five):
    data = five.read_bytes()
    dice = random.Random(0)
    for place in range(len(data)):
        five.write_bytes(data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :])
        held, damaged = found(five)
        wrong = [h for h, b in zip(held, BODIES, strict=True) if h not in (b, None)]
        assert not wrong, place
        assert damaged >= 1, place
        assert sum(h is None for h in held) <= 2, "a flipped end of a line joins two"


def test_a_line_altered_after_the_look_is_not_used(five):
    index = Index(lambda: [five.parent])
    index.refresh()
    five.write_bytes(five.read_bytes().replace(b"answer 3", b"answer 7"))
    assert [index.find(key) for key in KEYS] == [*BODIES[:2], None, *BODIES[3:]]
    assert index.damaged == 1
    five.unlink()
    index.close()
    assert index.find(KEYS[0]) is None


def test_lines_of_another_key_do_not_pass_for_it():
    line = seal(KEYS[0], b'{"text":"a"}')
    assert body_of(line, KEYS[0]) == {"text": "a"}
    assert body_of(line, KEYS[1]) is None


def test_nothing_is_unpickled(five):
    five.write_bytes(seal(KEYS[0], b"cos\nsystem\n(S'touch /tmp/x'\ntR.") + seal(KEYS[1], b"[1]"))
    assert found(five)[0] == [None, [1], None, None, None]


def test_damage_is_counted_said_once_and_computed_again(engine, open_answers, tmp_path):
    answers = open_answers(reads=False)
    fresh = [told(c) for c in ask(answers, requests(), lambda: engine)]
    answers.close()
    (path,) = tmp_path.glob(f"{FOLDER}/*/*")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"prompt_tokens":2', b'"prompt_tokens":9')
    path.write_bytes(b"".join(lines)[:-20])
    answers = open_answers()
    again = [told(c) for c in ask(answers, requests(), lambda: engine)]
    for got, expected in zip(again, fresh, strict=True):
        assert got.pop("loglikelihood") == pytest.approx(expected.pop("loglikelihood"), abs=1e-4)
        assert got == expected
    assert answers.counts.misses in (2, 3)
    (said,) = answers.problems()
    assert "2 damaged lines" in said
    assert "computed again" in said
    assert answers.problems() == []
    answers.close()
    assert all(c.reused for c in ask(open_answers(), requests())), "what was computed again is kept"


def test_a_writer_that_is_alive_is_not_damage(tmp_path):
    segment = Segment(tmp_path / "1.answers")
    segment.append(seal(KEYS[0], json.dumps(BODIES[0]).encode()) + b"0badc0de torn")
    assert is_held(segment.path)
    assert found(segment.path) == ([BODIES[0], *[None] * 4], 0)
    segment.close()
    assert not is_held(segment.path)
    assert found(segment.path) == ([BODIES[0], *[None] * 4], 1)


# Processes


def write_for_ever(folder: Path) -> None:
    """Answers whose text says their key, until killed."""
    writer = Writer(folder, dict, Index(lambda: [folder]))
    number = 0
    while True:
        number += 1
        key = b"%032x" % (os.getpid() << 96 | number << 64)
        writer.put(lambda key=key: {key: {"text": key.decode() * 20}})
        if number % 100 == 0:
            writer.flush()
            time.sleep(0.005)


def wait_for(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_kill_9_while_two_processes_write_leaves_nothing_wrong(tmp_path):
    processes = []
    for count in (2, 4, 6):
        both = [FORK.Process(target=write_for_ever, args=(tmp_path,)) for _ in range(2)]
        for process in both:
            process.start()
        processes += both
        wait_for(lambda count=count: len(segments(tmp_path)) == count)
        time.sleep(random.uniform(0.0, 0.3))
        for process in both:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    assert len(segments(tmp_path)) == 6, "every process has a file of its own"
    assert all(process.exitcode == -signal.SIGKILL for process in processes)
    index = Index(lambda: [tmp_path])
    index.refresh()
    keys = [place.key for path in segments(tmp_path) for place in scan(path).places if place.key != ABOUT]
    assert len(keys) > 1000, "nothing was written: the test proves nothing"
    assert all(index.find(key) == {"text": key.decode() * 20} for key in keys)
    assert sum(scan(path).damaged for path in segments(tmp_path)) == 0
    assert index.damaged <= 6, "at most the line at which each was killed"


def test_a_reader_sees_what_another_process_writes_meanwhile(tmp_path):
    index = Index(lambda: [tmp_path])
    index.refresh()
    process = FORK.Process(target=write_for_ever, args=(tmp_path,))
    process.start()
    sizes = []
    try:
        for _ in range(6):
            time.sleep(0.3)
            index.refresh()
            sizes.append(len(index))
    finally:
        process.kill()
        process.join()
    assert sizes[-1] > sizes[1] > 0
    assert sizes == sorted(sizes)
    assert index.damaged == 0


def fill(folder: Path) -> None:
    """Write under a limit of 64 kB a file; exits with 0 if what was written is whole and the trouble is known."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    writer = Writer(folder, dict, Index(lambda: [folder]))
    for number in range(1, 400):
        writer.put(lambda number=number: {b"%032x" % (number << 64): {"text": "x" * 500}})
        if number % 10 == 0:
            writer.flush()
    writer.close()
    (path,) = segments(folder)
    seen = scan(path)
    os._exit(0 if isinstance(writer.problem, OSError) and len(seen.places) > 50 and not seen.torn else 1)


def test_a_disk_that_runs_full_ends_the_writing_and_cuts_the_last_line_off(tmp_path):
    process = FORK.Process(target=fill, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_at_all():
    class Full(Segment):
        def _open(self) -> int:
            return os.open("/dev/full", os.O_WRONLY)

    with pytest.raises(OSError, match="No space left"):
        Full(Path("full.answers")).append(b"x")


def test_a_folder_that_cannot_be_written_stops_nothing_and_is_said_once(engine, open_answers, tmp_path):
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    answers = open_answers()
    assert all(completion.reused == 0 for completion in ask(answers, requests(), lambda: engine))
    answers.settle()
    (said,) = answers.problems()
    assert said.startswith("answers are not kept, the run goes on: ")
    assert str(tmp_path / FOLDER) in said
    ask(answers, requests(), lambda: engine)
    assert answers.problems() == []


def test_a_segment_that_cannot_be_read_is_said_and_passed_over(engine, open_answers, tmp_path):
    answers = open_answers(reads=False)
    ask(answers, requests()[:1], lambda: engine)
    answers.close()
    (path,) = tmp_path.glob(f"{FOLDER}/*/*")
    (path.parent / "0.answers").mkdir()
    answers = open_answers()
    assert ask(answers, requests()[:1])[0].reused == 1
    assert "0.answers: Is a directory" in answers.problems()[0]
