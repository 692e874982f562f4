"""The endpoint engine against a real server that misbehaves: nothing lost or double, nothing hangs, no key shown."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from email.utils import formatdate

import pytest

from harness.endpoints import checkpoint_of
from harness.engines.endpoint import EndpointEngine
from harness.engines.endpoint_client import retry_after_s
from harness.engines.endpoint_probe import TEXT
from harness.errors import BadCheckpoint, BadInput, BadPlan, CostLimitReached, EngineError
from harness.records import GenerateRequest, LoglikelihoodRequest, Sampling
from tests.engines.conftest import QUICK, SECRET, WAIT_S, failure, sums, texts_of
from tests.engines.endpoint_server import MODEL, Act, answer, pieces, running

# Right answers


def test_sums_come_back_in_order_with_the_servers_counts(server, engine_on):
    done = [f.result(WAIT_S) for f in sums(engine_on(server), 40)]
    assert [c.outputs[0].text for c in done] == [str(3 * i) for i in range(40)]
    assert {(c.prompt_tokens, c.output_tokens) for c in done} == {(5, 1)}
    assert all(c.queued_s <= c.started_s <= c.done_s for c in done)
    assert len(server.asked) == 40
    assert {one.path for one in server.asked} == {"completions"}


def test_a_conversation_goes_out_as_messages(server, engine_on):
    engine = engine_on(server)
    turns = [{"role": "system", "content": "Add."}, {"role": "user", "content": "What is 3 + 4?"}]
    text = engine.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    (future,) = engine.submit([GenerateRequest(tuple(engine.tokenizer.encode(text)), Sampling(max_tokens=4))])
    assert texts_of([future]) == ["7"]
    (asked,) = server.asked
    assert (asked.path, asked.body["messages"]) == ("chat/completions", turns)
    assert (asked.body["max_tokens"], asked.body["temperature"]) == (4, 0.0)
    assert not {"seed", "top_p", "top_k", "n"} & asked.body.keys()


def test_streams_give_times_per_token(server, engine_on):
    done = sums(engine_on(server, stream=True), 1, start=300)[0].result(WAIT_S)
    assert (done.outputs[0].text, done.output_tokens) == ("900", 3)
    times = done.outputs[0].token_times_s
    assert len(times) == 3
    assert list(times) == sorted(times)
    assert done.first_token_s == pytest.approx(done.queued_s + times[0])


def test_without_a_stream_no_time_is_made_up(server, engine_on):
    done = sums(engine_on(server), 1)[0].result(WAIT_S)
    assert done.first_token_s is None
    assert done.outputs[0].token_times_s == ()


def test_draws_are_n_answers(server, engine_on):
    done = sums(engine_on(server), 1, Sampling(max_tokens=4, temperature=1.0, n=3, seed=5))[0].result(WAIT_S)
    assert len(done.outputs) == 3
    assert server.asked[-1].body["n"] == 3
    assert server.asked[-1].body["seed"] == 5


def test_greedy_draws_are_asked_once(server, engine_on):
    done = sums(engine_on(server), 1, Sampling(max_tokens=4, n=3))[0].result(WAIT_S)
    assert [output.text for output in done.outputs] == ["0", "0", "0"]
    assert len(server.asked) == 1


def test_a_server_that_ignores_n_is_asked_once_per_draw(server, engine_on):
    server.act = lambda path, body, number: Act(answer(path, {**body, "n": 1}, f"drawn {number}"))
    engine = engine_on(server)
    assert engine.describe()["server"]["draws"] is False
    done = sums(engine, 1, Sampling(max_tokens=4, temperature=1.0, n=3, seed=5))[0].result(WAIT_S)
    assert len({output.text for output in done.outputs}) == 3
    seeds = [one.body["seed"] for one in server.asked if "seed" in one.body]
    assert len(set(seeds)) == 3
    assert done.output_tokens == 3


def test_a_server_that_does_not_sample_is_found_out(server, engine_on):
    server.act = lambda path, body, number: (
        Act(answer(path, body, "always this")) if "model" in body else None
    )
    (future,) = sums(engine_on(server), 1, Sampling(max_tokens=4, temperature=1.0))
    problem = future.exception(WAIT_S)
    assert isinstance(problem, BadInput)
    assert "does not sample" in str(problem)


def test_stop_strings_cut_here_whatever_the_server_does(server, engine_on):
    server.act = lambda path, body, number: Act(answer(path, body, "12\nQ: next\nEND"))
    (future,) = sums(engine_on(server), 1, Sampling(max_tokens=8, stop=("a", "b", "c", "d", "\nQ", "END")))
    output = future.result(WAIT_S).outputs[0]
    assert (output.text, output.finish_reason) == ("12", "stop")
    assert len(server.asked[-1].body["stop"]) == 4  # OpenAI's API takes no more


# Broken servers


def every_other(act):
    """Misbehave the first time that a request comes, and answer it the second time."""
    seen = set()

    def decide(path, body, number):
        key = json.dumps([body.get("prompt"), body.get("messages")])
        if key in seen:
            return None
        seen.add(key)
        return act(path, body)

    return decide


@pytest.mark.parametrize(
    "act",
    [
        lambda path, body: Act({"error": "overloaded"}, 503),
        lambda path, body: Act({"error": "oops"}, 500),
        lambda path, body: Act(b"<html>bad gateway</html>", 502, {"content-type": "text/html"}),
        lambda path, body: Act({"error": {"message": "slow down"}}, 429, {"retry-after": "0.1"}),
        lambda path, body: Act(cut=True),
        lambda path, body: Act(answer(path, body), cut=True),
    ],
    ids=["503", "500", "502-html", "429", "closes", "half-a-body"],
)
def test_what_can_be_asked_again_is_and_no_answer_is_lost_or_doubled(server, engine_on, act):
    engine = engine_on(server)
    server.arm(every_other(act))
    assert texts_of(sums(engine, 30)) == [str(3 * i) for i in range(30)]
    assert len(server.asked) == 60
    assert engine.describe()["retries"] == 30


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_stream_that_breaks_off_is_asked_again_from_its_beginning(server, engine_on, kept):
    engine = engine_on(server, stream=True)
    server.arm(every_other(lambda path, body: Act(stream=pieces(path, body)[:kept], cut=True)))
    assert texts_of(sums(engine, 5, start=100)) == ["300", "303", "306", "309", "312"]


def test_a_stream_that_ends_by_itself_without_an_end_is_no_answer(server, engine_on):
    engine = engine_on(server, stream=True, retries=1)
    server.arm(lambda path, body, number: Act(stream=pieces(path, body)[:2]))
    assert "the stream ended before the answer did" in failure(sums(engine, 1, start=100)[0])


def test_an_error_inside_a_stream_is_asked_again(server, engine_on):
    engine = engine_on(server, stream=True)
    fault = {"error": {"message": "worker died", "code": 500}}
    server.arm(every_other(lambda path, body: Act(stream=[*pieces(path, body)[:1], fault])))
    assert texts_of(sums(engine, 2, start=100)) == ["300", "303"]


def test_a_storm_of_429_is_waited_out_as_long_as_the_server_says(server, engine_on):
    engine = engine_on(server, concurrency=8)
    calm_s = time.monotonic() + 1.0

    def storm(path, body, number):
        left_s = calm_s - time.monotonic()
        return (
            Act({"error": "rate"}, 429, {"retry-after": f"{max(0.05, left_s):.3f}"}) if left_s > 0 else None
        )

    server.arm(storm)
    assert texts_of(sums(engine, 20)) == [str(3 * i) for i in range(20)]
    # the eight in flight were refused once; all others waited with them
    assert len(server.asked) <= 20 + 8 + 8


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "3"}, 3, 3),
        ({"retry-after": "0.5"}, 0.5, 0.5),
        ({"retry-after-ms": "250"}, 0.25, 0.25),
        ({"retry-after": formatdate(0, usegmt=True)}, 0, 0),
        ({"retry-after": "-5"}, 0, 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers, low, high):
    assert low <= retry_after_s(headers) <= high


def test_retry_after_as_a_date_is_counted_from_now():
    in_an_hour = formatdate(time.time() + 3600, usegmt=True)
    assert 3500 <= retry_after_s({"retry-after": in_an_hour}) <= 3600


@pytest.mark.parametrize("headers", [{}, {"retry-after": "soon"}, {"retry-after": "inf"}])
def test_a_retry_after_that_says_nothing_is_none(headers):
    assert retry_after_s(headers) is None


def test_a_request_that_never_ends_fails_at_its_deadline_and_no_other(server, engine_on):
    engine = engine_on(server, deadline_s=1.0)
    server.arm(lambda path, body, number: Act(hang_s=60) if "What is 3 +" in body["prompt"] else None)
    start_s = time.monotonic()
    futures = sums(engine, 8)
    assert "within 1 s, the deadline" in failure(futures[3])
    assert time.monotonic() - start_s < 10
    assert texts_of(futures[:3] + futures[4:]) == ["0", "3", "6", "12", "15", "18", "21"]


def test_a_stream_that_never_ends_fails_at_its_deadline(server, engine_on):
    engine = engine_on(server, stream=True, deadline_s=1.0)
    server.arm(lambda path, body, number: Act(stream=pieces(path, body, "x" * 4000)))
    assert "the deadline" in failure(sums(engine, 1)[0])


GARBAGE = {
    "html": (Act(b"<html><title>Log in</title></html>"), "answered with HTML"),
    "text": (Act(b"hello"), "what is no JSON"),
    "nothing": (Act(b""), "answered with nothing"),
    "list": (Act([1, 2]), "JSON list"),
    "no choices": (Act({"id": "x"}), "without choices"),
    "empty choices": (Act({"choices": []}), "0 choices came where n=1"),
    "too many": (
        Act({"choices": [{"index": i, "text": "a", "finish_reason": "stop"} for i in range(2)]}),
        "2 choices",
    ),
    "no text": (Act({"choices": [{"index": 0, "finish_reason": "stop"}]}), "text is None"),
    "text is a number": (Act({"choices": [{"index": 0, "text": 5, "finish_reason": "stop"}]}), "text is 5"),
    "no end": (Act({"choices": [{"index": 0, "text": "a"}]}), "finish_reason is None"),
    "filtered": (
        Act({"choices": [{"index": 0, "text": "", "finish_reason": "content_filter"}]}),
        "'content_filter'",
    ),
    "choices are strings": (Act({"choices": ["a"]}), "no list of objects"),
    "index": (Act({"choices": [{"index": "x", "text": "a", "finish_reason": "stop"}]}), "index is 'x'"),
    "bad request": (
        Act({"error": {"message": "prompt\nis odd"}}, 400),
        "HTTP 400 Bad Request: prompt is odd",
    ),
    "elsewhere": (Act(b"", 307, {"location": "http://127.0.0.1:9/v1"}), "elsewhere"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_fails_its_sample_and_is_named(server, engine_on, kind):
    act, named = GARBAGE[kind]
    engine = engine_on(server)
    server.arm(lambda path, body, number: act if "What is 1 +" in body["prompt"] else None)
    futures = sums(engine, 3)
    message = failure(futures[1])
    assert named in message
    assert "\n" not in message
    assert texts_of([futures[0], futures[2]]) == ["0", "6"]


def test_a_server_that_is_gone_fails_everything_soon(server, engine_on):
    engine = engine_on(server, concurrency=4, retries=3)
    assert texts_of(sums(engine, 1)) == ["0"]
    server.stop()
    start_s = time.monotonic()
    futures = sums(engine, 200)
    assert all("connection broke" in failure(future) for future in futures)
    assert time.monotonic() - start_s < 20


def test_a_closed_engine_leaves_nobody_waiting(server, engine_on):
    engine = engine_on(server, concurrency=2)
    server.arm(lambda path, body, number: Act(hang_s=3))
    futures = sums(engine, 10)
    time.sleep(0.2)
    engine.close()
    assert all("closed" in failure(future) for future in futures)
    with pytest.raises(EngineError, match="closed"):
        sums(engine, 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint" and thread.is_alive()]


def test_a_cancelled_future_hurts_nobody(server, engine_on):
    server.delay_s = 0.1
    engine = engine_on(server, concurrency=1)
    futures = sums(engine, 4)
    assert futures[2].cancel()
    assert texts_of([futures[0], futures[1], futures[3]]) == ["0", "3", "9"]


# Loading


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda path, body, number: Act(b"<html>hi</html>"), "answers neither completions nor chats"),
        (lambda path, body, number: Act({"error": "no"}, 404), "answers neither completions nor chats"),
        (lambda path, body, number: Act({"choices": []}), "answers neither"),
    ],
)
def test_a_server_that_is_none_is_refused_in_one_line(server, engine_on, act, named):
    server.act = act
    with pytest.raises(BadCheckpoint, match=named) as caught:
        engine_on(server)
    assert "\n" not in str(caught.value)


def test_nobody_there(engine_on):
    with running() as gone:
        pass
    with pytest.raises(BadCheckpoint, match="start the server, or mend the address"):
        engine_on(gone)


def test_a_model_that_the_server_does_not_have(server):
    with pytest.raises(BadCheckpoint, match="has no model 'other'; it has: adder"):
        EndpointEngine.load(checkpoint_of(f"{server.url}#other"), QUICK)


def test_log_likelihoods_are_refused_at_once_where_there_are_none(server, engine_on):
    engine = engine_on(server)
    assert engine.can_score is False
    with pytest.raises(BadInput, match="gives no log-likelihoods"):
        engine.submit([LoglikelihoodRequest((65,), (66,))])


def test_a_chat_server_without_completions_says_so(server, engine_on):
    server.act = lambda path, body, number: Act({"error": "gone"}, 404) if path == "completions" else None
    engine = engine_on(server)
    with pytest.raises(BadInput, match=r"no completions .* --chat on"):
        sums(engine, 1)


def test_max_completion_tokens_where_the_server_wants_that_name(server, engine_on):
    def newer(path, body, number):
        if "max_tokens" in body:
            return Act({"error": {"message": "use 'max_completion_tokens' instead of 'max_tokens'"}}, 400)
        return None

    server.act = newer
    assert texts_of(sums(engine_on(server), 2)) == ["0", "3"]
    assert server.asked[-1].body["max_completion_tokens"] == 8


def test_a_field_that_an_answer_can_do_without_is_left_out_and_told(server, engine_on):
    server.act = lambda path, body, number: (
        Act({"detail": "Unexpected fields: {'stream_options'}"}, 422) if "stream_options" in body else None
    )
    engine = engine_on(server, stream=True)
    assert texts_of(sums(engine, 3, start=100)) == ["300", "303", "306"]
    assert "the server takes no stream_options: asked without" in engine.describe()["notes"]


# Tokens


def test_a_tokenizer_that_disagrees_is_refused_when_loading(server, tiny_llama, engine_on):
    named = f"disagrees with http.*{len(TEXT.encode())} tokens here and {len(TEXT.split())} there"
    with pytest.raises(BadCheckpoint, match=named) as caught:
        engine_on(server, tokenizer=str(tiny_llama))
    assert "\n" not in str(caught.value)


def test_a_server_that_changes_its_tokenizer_fails_the_sample(server, tiny_llama, engine_on):
    def counts(path, body, number):
        found = answer(path, body)
        found["usage"]["prompt_tokens"] = len(str(body.get("prompt", "")).encode())
        return Act(found)

    server.act = counts
    engine = engine_on(server, tokenizer=str(tiny_llama))
    assert texts_of(sums(engine, 2)) == ["0", "3"]
    server.arm(lambda path, body, number: None)  # comes back with another model: words are its tokens
    assert "tokenizer here disagrees" in failure(sums(engine, 1)[0])


def test_a_server_that_counts_nothing_leaves_counts_unknown(server, engine_on):
    def silent(path, body, number):
        found = answer(path, body)
        del found["usage"]
        return Act(found)

    server.act = silent
    engine = engine_on(server)
    assert sums(engine, 1)[0].result(WAIT_S).output_tokens == 0
    assert any("does not count tokens" in note for note in engine.describe()["notes"])


# Limits


def test_no_more_than_so_many_at_once(server, engine_on):
    server.delay_s = 0.03
    engine = engine_on(server, concurrency=3)
    texts_of(sums(engine, 20))
    assert server.most_at_once == 3


def test_requests_per_minute_are_spaced_evenly(server, engine_on):
    engine = engine_on(server, rpm=600)
    texts_of(sums(engine, 10))
    times = [one.at_s for one in server.asked]
    assert times[-1] - times[0] >= 9 * 0.1 - 0.05
    assert times[-1] - times[0] < 3


def test_tokens_per_minute_hold_back_what_is_too_much(server, engine_on):
    engine = engine_on(server, tpm=60_000)
    start_s = time.monotonic()
    # 15 characters and at most 500 tokens: counted as 515 until the answer of 6 tokens comes
    texts_of(sums(engine, 6, Sampling(max_tokens=500)))
    assert time.monotonic() - start_s >= 0.5


def test_the_cost_limit_stops_before_it_is_passed_and_keeps_every_answer(server, engine_on):
    # a request costs 5 prompt and 1 answer tokens: 5 * 1 + 1 * 10 = 15 millionths; at most 17 + 80
    engine = engine_on(server, price_in=1.0, price_out=10.0, cost_limit=0.0004, concurrency=2)
    probed = engine.describe()["cost"]
    server.delay_s = 0.02
    futures = sums(engine, 100)
    done = [future.exception(WAIT_S) for future in futures]
    answered = done.count(None)
    # whatever is answered, not one more fits: each may cost 17 + 80, of which two are in flight
    assert (0.0004 - probed - 2 * 97e-6) / 15e-6 <= answered <= (0.0004 - probed) / 15e-6
    assert answered == len(server.asked)
    assert all(isinstance(problem, CostLimitReached) for problem in done if problem is not None)
    spent = engine.describe()["cost"]
    assert spent <= 0.0004
    assert spent == pytest.approx(probed + answered * 15e-6)
    assert isinstance(sums(engine, 1)[0].exception(WAIT_S), CostLimitReached)


# Keys


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(engine_on, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_SERVER_KEY", SECRET)
    with running(key=SECRET) as server:
        engine = engine_on(server, key_env="MY_SERVER_KEY")
        assert texts_of(sums(engine, 2)) == ["0", "3"]
        assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
        # a server that repeats the key, in an error, in garbage and in an answer
        server.arm(lambda path, body, number: Act({"error": {"message": f"bad key {SECRET}!"}}, 400))
        shown = [failure(sums(engine, 1)[0])]
        server.arm(lambda path, body, number: Act(f"<p>{SECRET}</p>".encode()))
        shown.append(failure(sums(engine, 1)[0]))
        server.arm(lambda path, body, number: Act(answer(path, body, f"it is {SECRET}")))
        shown += texts_of(sums(engine, 1))
        shown += [repr(engine._key), repr(vars(engine)), json.dumps(engine.describe()), caplog.text]
    assert "bad key [key]!" in shown[0]
    assert not [text for text in shown if SECRET in text]


def test_a_wrong_key_is_one_line_without_the_key(engine_on, monkeypatch):
    monkeypatch.setenv("HARNESS_API_KEY", SECRET)
    with running(key="another-key-altogether") as server:
        with pytest.raises(BadCheckpoint, match=r"HTTP 401 .*key.*HARNESS_API_KEY") as caught:
            engine_on(server)
        assert SECRET not in str(caught.value)


def test_openais_key_goes_to_openai_alone(server, engine_on, monkeypatch):
    monkeypatch.delenv("HARNESS_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    texts_of(sums(engine_on(server), 1))
    assert "Authorization" not in server.asked[0].headers


def test_a_redirect_does_not_carry_the_key_away(engine_on, monkeypatch):
    monkeypatch.setenv("HARNESS_API_KEY", SECRET)
    with running(key=SECRET) as server, running() as thief:
        engine = engine_on(server)
        server.arm(lambda path, body, number: Act(b"", 302, {"location": f"{thief.url}/completions"}))
        assert "elsewhere" in failure(sums(engine, 1)[0])
        assert thief.asked == []


@pytest.mark.parametrize(
    "options",
    [
        {"key_env": f"sk-{SECRET}"},
        {"key_env": SECRET},
        {"api_key": SECRET},
        {"key": f"sk-{SECRET}"},
    ],
)
def test_a_key_among_the_options_is_refused_and_not_repeated(server, engine_on, options):
    with pytest.raises(BadPlan) as caught:
        engine_on(server, **options)
    assert SECRET not in str(caught.value)


def test_a_variable_that_is_not_set(server, engine_on, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(BadInput, match="NO_SUCH_KEY"):
        engine_on(server, key_env="NO_SUCH_KEY")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rpm": 0}, "rpm"),
        ({"concurrency": "many"}, "concurrency"),
        ({"cost_limit": 1.0}, "price_in"),
        ({"tokenizer": "/no/such/folder"}, "no folder"),
        ({"deadline": 3}, "no option 'deadline'"),
        ({"retries": -1}, "retries"),
    ],
)
def test_options_that_do_not_fit(server, engine_on, options, named):
    with pytest.raises(BadPlan, match=named):
        engine_on(server, **options)


def test_models_of_one_server_share_its_engine(server, engine_on):
    server.act = lambda path, body, number: (
        Act(answer(path, body, str(body["model"]))) if is_model(body) else None
    )
    engine = engine_on(server)
    first = sums(engine, 1)
    engine.activate(checkpoint_of(f"{server.url}#other"))
    assert texts_of(first + sums(engine, 1)) == [MODEL, "other"]
    with pytest.raises(BadCheckpoint, match="another server"):
        engine.activate(checkpoint_of("http://127.0.0.1:1/v1#x"))


def is_model(body) -> bool:
    return "model" in body and "prompt_logprobs" not in body and "echo" not in body


def test_engines_leave_no_sockets_behind(server):
    for _ in range(3):
        engine = EndpointEngine.load(checkpoint_of(server.spec), QUICK)
        texts_of(sums(engine, 3))
        engine.close()
        engine.close()
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
