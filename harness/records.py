"""Frozen facts that pass between the rooms. Units are in the names; None means not known, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

SCHEMA_VERSION = 1
J_PER_KWH = 3.6e6
J_PER_WH = 3600.0

Json = Any
FinishReason = Literal["stop", "length"]
Phase = Literal["inference", "grading", "training"]


@dataclass(frozen=True)
class Training:
    """What a checkpoint's harness.json says of how it came to be."""

    method: str
    """Trainer name: sft, dpo, grpo, ..."""
    stage: str
    """Name of the plan's stage."""
    parent: str
    """Fingerprint of the checkpoint it was trained from."""
    root: str
    """Fingerprint of the first checkpoint of the lineage, which nobody here trained."""
    energy: EnergySummary | None
    """Energy of this training run alone."""
    lineage_energy: EnergySummary | None
    """Energy of every training run from the root to this checkpoint, this one included."""
    trainable_parameters: int
    total_parameters: int
    plan_fingerprint: str = ""
    """Hash of the stage that produced it."""
    group: str = ""
    """Name of the plan it belongs to: runs of one group share their root and stages."""
    settings: Mapping[str, Json] = field(default_factory=dict)
    """Hyperparameters the search reads: learning_rate, lora.r, epochs, weights of the mixture, ..."""


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be scored, resolved to what is on disk."""

    spec: str
    """What the user typed."""
    name: str
    """Short label for tables; unique within a plan."""
    base: str
    """Folder or hub id of the base weights; of an endpoint, the URL of its API."""
    adapter: str | None
    """Folder of a PEFT adapter on the base, or None."""
    fingerprint: str
    """Hash over weights, adapter, tokenizer and chat template."""
    base_fingerprint: str
    """Hash over the base weights alone: checkpoints that share it share one load."""
    training: Training | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    parameters: int | None = None
    """Parameters of base plus adapter, where the weight files tell."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0 is greedy decoding."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0
    """Draw i of a request depends on (seed, i, prompt) alone: never on its batch."""
    n: int = 1
    """Completions of one prompt; they share one prefill."""
    ignore_eos: bool = False
    """Go on to max_tokens whatever is drawn; for latency."""


@dataclass(frozen=True)
class GenerateRequest:
    """Ask for `sampling.n` continuations of a prompt."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling = Sampling()
    first_draw: int = 0
    """Draws first_draw .. first_draw + n - 1 are asked for. Only for engines with `takes_first_draw = True`."""


@dataclass(frozen=True)
class LoglikelihoodRequest:
    """Ask for log p(continuation | context), in nats. context_ids holds at least one token."""

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]


Request = GenerateRequest | LoglikelihoodRequest


ChunkKind = Literal["role", "reasoning", "text", "empty", "end", "usage"]


class Chunk(NamedTuple):
    """A piece of a streamed answer, as it came."""

    at_s: float
    """Seconds after the request was queued."""
    kind: ChunkKind
    """role: opens a chat's answer; reasoning, text: hold some; empty: a piece of an answer without text (half a
    letter, a special token); end: only says that the answer is over; usage: only counts tokens."""
    tokens: int | None = None
    """Tokens in it, where their ids came with it."""
    usage: int | None = None
    """Answer tokens up to here, where the server's count came with it."""


@dataclass(frozen=True)
class Output:
    """One continuation."""

    text: str
    """Decoded without special tokens, cut before the first stop string."""
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    """stop: an end token or a stop string; length: max_tokens or the context ran out."""
    token_times_s: tuple[float, ...] = ()
    """When each token was ready, in seconds after the request was queued."""
    chunks: tuple[Chunk, ...] = ()
    """What a server streamed, piece by piece; none where the answer came in one, or from an engine here."""


@dataclass(frozen=True)
class Completion:
    """An engine's answer to one request."""

    outputs: tuple[Output, ...] = ()
    loglikelihood: float | None = None
    """Sum over the continuation, nats."""
    is_greedy: bool | None = None
    """Every continuation token was the most probable one."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were not computed again."""
    output_tokens: int = 0
    dropped_prompt_tokens: int = 0
    """Tokens cut from the left because the prompt was longer than the context."""
    reused: int = 0
    """Of its outputs, or of its one loglikelihood, how many came from the response cache."""
    reused_tokens: int = 0
    """Output tokens of those."""
    queued_s: float = 0.0
    """time.perf_counter() when the request came in."""
    sent_s: float | None = None
    """time.perf_counter() when the try that was answered left for a server; None: it was computed here."""
    started_s: float = 0.0
    first_token_s: float | None = None
    done_s: float = 0.0


@dataclass(frozen=True)
class Score:
    """One metric of one sample. value None with an error is a failure, never a wrong answer."""

    value: float | None
    error: str | None = None
    detail: Json = None
    """What an aggregation needs beyond the number (JSON)."""


@dataclass(frozen=True)
class Sample:
    """A sample as it stands in the journal."""

    task: str
    sample_id: str
    prompt: str
    outputs: tuple[str, ...] = ()
    """Of native tasks with the tag before it that opens a thought, where the prompt ends with that tag."""
    target: str | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    finish_reasons: tuple[str, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    dropped_prompt_tokens: int = 0
    first_token_s: float | None = None
    """Seconds from queued to the first token."""
    total_s: float | None = None
    """Seconds from queued to done."""
    answers: int = 0
    """Outputs and loglikelihoods that were asked for it."""
    reused: int = 0
    """How many of them came from the response cache."""
    reused_tokens: int = 0
    """Output tokens of those: no joules of this run were spent on them."""
    error: str | None = None
    """Why the sample could not be scored at all."""
    graded: bool = True
    """False: answered, and waiting for the grading phase."""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    """What the task's aggregation and the report need: subject, domain, choice, ... (JSON)."""

    @property
    def failed(self) -> bool:
        return self.error is not None or any(s.value is None and s.error for s in self.scores.values())

    @property
    def all_reused(self) -> bool:
        return 0 < self.answers == self.reused


@dataclass(frozen=True)
class Metric:
    """A number over samples. ci95 is (low, high); value None: nothing could be scored."""

    value: float | None
    n: int
    n_failed: int
    higher_is_better: bool
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    interval: str | None = None
    """Name of the method behind ci95: wilson, t, bootstrap, ..."""
    unit: str | None = None
    """None for shares and scores; ms, tokens/s, bytes, ..."""
    chance: float | None = None
    """Score of guessing, where it is known."""
    detail: Json = None
    """What stands behind the number (JSON): the bars of a reliability diagram, ..."""
    cluster: str | None = None
    """Metadata key of the samples whose equal values belong together (questions on one passage), which the interval
    and the comparison of two runs rest on; None: each sample stands alone."""
    made_of: tuple[str, ...] = ()
    """Metrics of the task, with values per sample, that this one is made of where no sample has a value of its own: two
    runs are compared by them."""


@dataclass(frozen=True)
class ComponentEnergy:
    """Energy of one component in one window."""

    component: Literal["cpu", "gpu", "ram"]
    provenance: str
    """measured:nvml_counter | measured:rapl_package | estimated:cpu_load | estimated:ram | absent | ...;
    absent:elsewhere where another machine computed."""
    gross_j: float | None
    net_j: float | None = None
    """Gross less idle power times duration; None where no baseline was taken."""
    idle_w: float | None = None


@dataclass(frozen=True)
class EnergyReading:
    """One closed window (or one segment of it) of one phase: a line of energy.jsonl."""

    phase: Phase
    duration_s: float
    components: tuple[ComponentEnergy, ...]
    window: str = ""
    """Windows cut into segments share this name; an attempt that was killed leaves its closed segments."""
    queries: int = 0
    """Samples answered inside."""
    output_tokens: int = 0
    closed: bool = True
    """False on the line that opens a segment: such a line without a later one marks a killed attempt."""
    shared: bool = False
    """Another harness process weighed the same machine meanwhile: the joules hold both."""
    part: str = ""
    """What of the window's work it covers, where that is parted: task and load."""


@dataclass(frozen=True)
class EnergySummary:
    """Readings of one phase added up. Measured and estimated never share a total."""

    duration_s: float
    components: tuple[ComponentEnergy, ...]
    measured_j: float | None
    """Sum of the measured components, gross."""
    estimated_j: float | None
    """Sum of the estimated components without RAM, gross."""
    basis: str | None
    """What a ranking may compare: 'measured' or 'estimated' plus the components' provenance, or None."""
    ranked_j: float | None
    """The joules of that basis; estimated RAM is never in it."""
    ranked_net_j: float | None
    complete: bool
    """False: a killed attempt's last segment is missing, so totals are lower bounds (rates are not)."""
    queries: int | None = None
    output_tokens: int | None = None
    wh_per_1000_queries: float | None = None
    wh_per_1000_queries_ci95: tuple[float, float] | None = None
    j_per_output_token: float | None = None
    kg_co2e: float | None = None
    grid_g_per_kwh: float | None = None
    grid_source: str | None = None
    cost: float | None = None
    price_per_kwh: float | None = None
    currency: str | None = None
    shared: bool = False
    """In some of it another harness process weighed the same machine: totals hold both."""


@dataclass(frozen=True)
class Headline:
    """The suite's one number."""

    name: str
    value: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    higher_is_better: bool
    n: int
    n_failed: int
    reason: str | None = None
    """Why value is None."""


@dataclass(frozen=True)
class Jitter:
    """How much the samples of a run moved between batch plans; the first plan is the run itself."""

    plans: int
    n_samples: int
    n_changed: int
    """Samples of which a score differs between any two plans, or that failed under one."""
    share_changed: float | None
    max_loglikelihood_difference: float | None
    """Largest range of one request's loglikelihoods, nats; None where nothing was scored that way."""
    headline_low: float | None
    headline_high: float | None


@dataclass(frozen=True)
class RunRecord:
    """run.json: written last, so its existence means that the run is whole."""

    run_id: str
    suite: str
    suite_version: str
    profile: str
    strategy: str
    checkpoint: Checkpoint
    headline: Headline
    metrics: Mapping[str, Mapping[str, Metric]]
    """task -> metric -> value."""
    headline_metrics: Mapping[str, str]
    """task -> the metric that enters the headline."""
    n_samples: int
    n_failed: int
    n_truncated: int
    """Samples whose answer ran into max_tokens."""
    n_prompt_truncated: int
    """Samples whose prompt was longer than the context."""
    energy: Mapping[str, EnergySummary]
    """phase -> energy."""
    engine: Mapping[str, Json]
    """Engine name, dtype, device, threads, busy share, peak memory, versions."""
    identity: Mapping[str, Json]
    """What the run id is a hash of."""
    phases_s: Mapping[str, float]
    """Wall seconds: load, data, inference, grading, ..."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the score: 'quick profile: 100 of 1319 samples', a stand-in classifier."""
    started_at: str = ""
    """ISO 8601, UTC."""
    finished_at: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    """Name of the plan this run belongs to."""
    jitter: Jitter | None = None
    """None: not measured."""
    other_metrics: Mapping[str, str] = field(default_factory=dict)
    """task outside the headline -> its main metric."""
    path: Path | None = None
    """The run folder; set when read, never written."""
    schema_version: int = SCHEMA_VERSION
