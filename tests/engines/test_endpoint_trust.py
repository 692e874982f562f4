"""What a server, an address or an option says is not taken on trust: made-up scores, overrides, keys, hosts."""

from __future__ import annotations

import json

import pytest

from harness.checkpoints import resolve
from harness.errors import BadCheckpoint, BadInput, BadPlan
from harness.records import LoglikelihoodRequest, Sampling
from tests.engines.conftest import SECRET, WAIT_S, failure, sums, texts_of
from tests.engines.endpoint_server import MODEL, Act, answer, pieces, running

# Scores


def echoing(tops_of):
    """A server that echoes: every character is a token of log p -2, and tops_of says what the likeliest are."""

    def act(path, body, number):
        text = body.get("prompt")
        if path != "completions" or not isinstance(text, str) or "prompt_logprobs" in body:
            return None if path.startswith("chat") else Act({"error": "unknown field"}, 400)
        if not body.get("echo"):
            return None
        most = body["max_tokens"]
        whole = text + "x" * most
        logprobs = {
            "tokens": list(whole),
            "token_logprobs": [None] + [-2.0] * (len(whole) - 1),
            "top_logprobs": tops_of(whole),
            "text_offset": list(range(len(whole))),
        }
        usage = {"prompt_tokens": len(text), "completion_tokens": most}
        choice = {"index": 0, "text": whole, "finish_reason": "length", "logprobs": logprobs}
        return Act({"choices": [choice], "usage": usage})

    return act


def told(text):
    return [None] + [{"z": -0.5 if letter == "l" else -2.0} for letter in text[1:]]


def score(engine, context, tail):
    ids = [tuple(engine.tokenizer.encode(text)) for text in (context, tail)]
    return engine.submit([LoglikelihoodRequest(*ids)])[0]


@pytest.mark.parametrize(
    "tops_of",
    [
        lambda text: [None] * len(text),
        lambda text: [{}] * len(text),
        lambda text: [None] + [{"a": None}] * (len(text) - 1),
        lambda text: [*told(text)[:9], None, *told(text)[10:]],
        lambda text: None,
    ],
    ids=["nulls", "empty", "no numbers", "one is missing", "no list"],
)
def test_an_echo_without_the_likeliest_tokens_is_no_score(server, engine_on, tops_of):
    server.act = echoing(tops_of)
    engine = engine_on(server)
    assert engine.can_score is False
    with pytest.raises(BadInput, match="gives no log-likelihoods"):
        score(engine, "The sky is", " red")


def test_an_echo_that_tells_is_greedy_where_nothing_is_likelier(server, engine_on):
    server.act = echoing(told)
    engine = engine_on(server)
    red, blue = (score(engine, "The sky is", tail).result(WAIT_S) for tail in (" red", " blue"))
    assert (red.loglikelihood, red.is_greedy) == (-8.0, True)
    assert (blue.loglikelihood, blue.is_greedy) == (-10.0, False)


def test_a_server_that_stops_telling_fails_the_sample(server, engine_on):
    server.act = echoing(told)
    engine = engine_on(server)
    server.arm(echoing(lambda text: [None] * len(text)))
    assert "greedy is not known" in failure(score(engine, "The sky is", " red"))


# Further fields


@pytest.mark.parametrize(
    "name",
    ["model", "prompt", "messages", "temperature", "top_p", "top_k", "seed", "n", "stop", "stream", "stream_options",
     "max_tokens", "max_completion_tokens", "echo", "logprobs", "top_logprobs", "prompt_logprobs"],
)  # fmt: skip
def test_what_the_harness_asks_is_not_overridden(server, engine_on, name):
    with pytest.raises(BadPlan, match=f"extra_body may not set '{name}'"):
        engine_on(server, extra_body={"user": "me", name: 1})
    assert server.asked == []


def test_further_fields_go_with_every_request(server, engine_on):
    engine = engine_on(server, extra_body={"user": "me", "chat_template_kwargs": {"eos_token": "x"}})
    texts_of(sums(engine, 2))
    assert {one.body["user"] for one in server.asked} == {"me"}


@pytest.mark.parametrize(
    "body",
    [
        {"api_key": SECRET},
        {"X-Api-Key": SECRET},
        {"key": SECRET},
        {"token": SECRET},
        {"headers": {"Authorization": SECRET}},
        {"a": [{"client_secret": SECRET}]},
        {"password": SECRET},
        {"user": f"sk-{SECRET}"},
        {"user": [f"Bearer {SECRET}"]},
        {f"hf_{SECRET.replace('-', '')}": 1},
        f"sk-{SECRET}",
    ],
    ids=str,
)
def test_a_key_among_the_further_fields_is_refused_and_not_repeated(server, engine_on, body):
    with pytest.raises(BadPlan, match=r"holds a key.*environment") as caught:
        engine_on(server, extra_body=body)
    assert "4f1d9c2b7a" not in str(caught.value)


# Keys that come back

SLASHED = "tests/secret+4f1d/9c2b7a=="
SPELLINGS = {
    "\\u": lambda key: "".join(f"\\u{ord(letter):04x}" for letter in key),
    "\\U of capitals": lambda key: "".join(f"\\u{ord(letter):04X}" for letter in key),
    "slashes": lambda key: key.replace("/", "\\/"),
    "every other": lambda key: "".join(
        f"\\u{ord(letter):04x}" if place % 2 else letter for place, letter in enumerate(key)
    ),
    "JSON in JSON": lambda key: "".join(f"\\\\u{ord(letter):04x}" for letter in key),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_key_that_json_spells_otherwise_is_hidden(engine_on, monkeypatch, kind):
    monkeypatch.setenv("HARNESS_API_KEY", SLASHED)
    spelt = SPELLINGS[kind](SLASHED)

    def repeats(path, body, number):
        if path == "models":
            raw = json.dumps({"data": [{"id": MODEL, "owned_by": "KEY", "root": "/KEY"}]})
        else:
            raw = json.dumps(answer(path, body, "it is KEY!", system_fingerprint="fp KEY"))
        return Act(raw.replace("KEY", spelt).encode())

    with running(key=SLASHED) as server:
        server.act = repeats
        engine = engine_on(server)
        shown = texts_of(sums(engine, 1))
        shown.append(json.dumps(engine.describe()))
        server.arm(lambda path, body, number: Act(f'{{"error": "no {spelt}"}}'.encode(), 400))
        shown.append(failure(sums(engine, 1)[0]))
        server.arm(lambda path, body, number: Act(f'{{"text": "{spelt}'.encode()))
        shown.append(failure(sums(engine, 1)[0]))
        server.arm(lambda path, body, number: Act(f'{{"{spelt}": 1}}'.encode()))
        shown.append(failure(sums(engine, 1)[0]))
    assert shown[0] == "it is [key]!"
    for text in shown:
        assert "[key]" in text
        for form in (SLASHED, spelt, json.dumps(spelt)[1:-1]):
            assert form not in text


def test_a_key_that_comes_piece_by_piece_is_hidden(engine_on, monkeypatch):
    monkeypatch.setenv("HARNESS_API_KEY", SECRET)
    with running(key=SECRET) as server:
        engine = engine_on(server, stream=True)
        server.arm(lambda path, body, number: Act(stream=pieces(path, body, f"it is {SECRET}.")))
        done = sums(engine, 1, Sampling(max_tokens=64))[0].result(WAIT_S)
    assert done.outputs[0].text == "it is [key]."


# Addresses


@pytest.mark.parametrize(
    "host", ["xn--", "xn--a", "256.1.1.1", "[::1", "[::g]", "a" * 70, "a..b", "\uff11\uff12\uff17.0.0.1"]
)
def test_a_host_that_is_none_is_one_line(host):
    with pytest.raises(BadCheckpoint, match=r"address is none|is no address") as caught:
        resolve(f"http://{host}/v1#m")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_password_before_a_host_that_is_none_is_not_repeated():
    with pytest.raises(BadCheckpoint) as caught:
        resolve("http://me:S3cretS3cret@xn--/v1#m")
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["xn--bcher-kva.example", "b\u00fccher.example", "host.example.", "a_b", "[::1]:8000"]
)
def test_hosts_that_may_be(host):
    assert resolve(f"http://{host}/v1#m").base.startswith("http://")
