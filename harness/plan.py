"""YAML and command line -> one validated Plan. Everything a run depends on is a field here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from harness.sampling import SamplingSpec
from harness.yamlfile import problem

PLAN_FILE = "plan.yaml"
"""A plan as it was carried out, beside the checkpoints that it made: where the search finds it."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Strict(BaseModel):
    """No unknown keys, no infinite or missing numbers, nothing changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EngineSpec(Strict):
    """Which engine answers, and how it is set."""

    name: str = "transformers"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1, description="None: chosen by a short measurement")
    batch_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of one batch; None: by the device"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of a third-party engine")


class EnergySpec(Strict):
    """How energy is weighed, and what it costs."""

    meter: str = "codecarbon"
    country: str | None = Field(
        default=None, pattern=r"^[A-Z]{3}$", description="ISO 3166 alpha-3, for the grid"
    )
    grid_g_per_kwh: float | None = Field(default=None, gt=0, description="Overrides the country's figure")
    price_per_kwh: float | None = Field(default=None, ge=0)
    currency: str = "EUR"
    idle_s: float = Field(
        default=3.0, ge=0, description="Length of the idle baseline; 0: none, net is unknown"
    )
    segment_s: float = Field(default=10.0, gt=0, description="A kill loses at most this much of a window")
    replay: Path | None = Field(default=None, description="Readings for the replay meter")


class Adds(Strict):
    """What to score with: shared by eval plans and by the evaluate part of a training plan."""

    suites: list[str] = Field(default_factory=list)
    tasks: list[str] = Field(default_factory=list, description="provider:name[,key=value]")
    profile: Literal["starter", "quick", "full"] = "quick"
    limit: int | None = Field(default=None, ge=1)
    strategy: str = "direct"
    seed: int = 0
    chat: Literal["auto", "on", "off"] = "auto"
    num_fewshot: int | None = Field(default=None, ge=0)
    sampling: Annotated[dict[str, Any], WithJsonSchema(SamplingSpec.model_json_schema())] = Field(
        default_factory=dict, description="max_tokens, temperature, n, ..."
    )
    detoxify_checkpoint: Path | None = None
    judge: str | None = Field(
        default=None,
        description="Model that grades where a task wants one: a checkpoint, or PROVIDER/MODEL that inspect knows",
    )
    judge_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Over the plan's engine, for the judge: engine, dtype, device, or options of its engine",
    )
    jitter: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="Batch plans under which all samples are answered, for the spread",
    )

    @field_validator("sampling", mode="before")
    @classmethod
    def _sampling_fits(cls, value: Any) -> Any:
        """Written settings alone, so that what is left out stays the task's own."""
        try:
            return SamplingSpec.model_validate(value).given()
        except ValidationError as exc:
            raise ValueError(problem(exc, SamplingSpec)) from exc


class Common(Strict):
    """Where things lie and what is allowed."""

    data_dir: Path | None = None
    runs: Path = Path("runs")
    engine: EngineSpec = EngineSpec()
    energy: EnergySpec = EnergySpec()
    cache: Literal["write", "read", "off"] = Field(
        default="write",
        description="Response cache: write keeps answers, read uses them too (true), off does neither (false)",
    )
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @field_validator("cache", mode="before")
    @classmethod
    def _cache_as_yaml_has_it(cls, value: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return ("read" if value else "off") if isinstance(value, bool) else value


class EvalPlan(Common, Adds):
    """`harness eval`: every checkpoint on every suite."""

    checkpoints: list[str] = Field(min_length=1)
    adapters: list[str] = Field(
        default_factory=list, description="Folders or globs: adapters of the one checkpoint, scored beside it"
    )
    group: str = ""

    @model_validator(mode="after")
    def _something_to_do(self) -> EvalPlan:
        if not self.suites and not self.tasks:
            raise ValueError("nothing to score: give --suite or --tasks")
        return self

    @model_validator(mode="after")
    def _adapters_have_one_base(self) -> EvalPlan:
        if self.adapters and len(self.checkpoints) > 1:
            given = ", ".join(self.checkpoints)
            raise ValueError(
                f"adapters go on one base, and several checkpoints are given ({given}); name one"
            )
        return self


class LoraSpec(Strict):
    """Low-rank adapters (Hu et al. 2021). `lora: null` in a stage trains all weights."""

    r: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0, description="None: 2 r")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | str = "all-linear"
    use_rslora: bool = False


class DataSpec(Strict):
    """One source of training rows."""

    dataset: str = Field(description="id[:config[:split]] of a dataset, or the path of a JSONL file")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="wanted column -> the dataset's; {prompt: question, completion: answer}",
    )
    template: str | None = Field(
        default=None, description="Python format string over the row's columns that makes the prompt"
    )
    weight: float = Field(
        default=1.0, gt=0, description="Share of the mixture, relative to the other sources"
    )
    limit: int | None = Field(default=None, ge=1)
    chat: Literal["auto", "on", "off"] = Field(
        default="auto", description="auto: a chat turn where the tokenizer has a template"
    )


class RewardSpec(Strict):
    """A reward of GRPO and its kin."""

    name: str = Field(description="Installed reward, or path/to/file.py:function")
    weight: float = 1.0


class Stage(Strict):
    """One training run."""

    name: Name
    method: str
    from_: str = Field(default="base", alias="from", description="'base' or the name of another stage")
    data: list[DataSpec] = Field(min_length=1)
    lora: LoraSpec | None = LoraSpec()
    learning_rate: float = Field(default=1e-4, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1, description="Overrides epochs")
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    lr_scheduler: str = "linear"
    max_length: int = Field(default=1024, ge=8)
    save_steps: int = Field(default=50, ge=1, description="A kill loses at most this many steps")
    seed: int = 0
    rewards: list[RewardSpec] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict, description="Fields of the method's TRL config")

    model_config = ConfigDict(populate_by_name=True)  # the rest is inherited

    @field_validator("rewards", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"name": item} if isinstance(item, str) else item for item in value]
        return value


class SearchSpec(Strict):
    """What `harness next` may vary, and what it must respect."""

    suite: str | None = Field(default=None, description="Suite whose headline goes up; None: the mean of all")
    space: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="dotted setting of the last stage -> {choices: [...]} or {low, high, log, step}",
    )
    constraints: dict[str, float] = Field(
        default_factory=dict,
        description="suite.task.metric (or suite) -> ceiling where lower is better, else floor",
    )
    queries: int = Field(default=1000, ge=1, description="Queries over which training energy is spread")


class EvaluateSpec(Adds):
    """The evaluate part of a training plan."""

    base: bool = Field(default=True, description="Score the base checkpoint too")


class Plan(Common):
    """`harness train-then-eval`: stages, what to score them on, what to try next."""

    name: Name
    base: str
    stages: list[Stage] = Field(default_factory=list)
    evaluate: EvaluateSpec
    out: Path = Field(default=Path("checkpoints"), description="Checkpoints go to out/<plan name>/<stage>")
    search: SearchSpec = SearchSpec()
    report: Path | None = Path("report")
    reason: str | None = Field(default=None, description="Why this plan was proposed")

    @model_validator(mode="after")
    def _stages_form_a_tree(self) -> Plan:
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1 or name == "base":
                raise ValueError(f"stage name {name!r} is taken; rename one")
        order_stages(self.stages)
        return self


def order_stages(stages: list[Stage]) -> list[Stage]:
    """Stages with every parent before its children.

    Raises: ValueError: a parent is missing, or stages form a cycle.
    """
    by_name = {stage.name: stage for stage in stages}
    ordered: dict[str, Stage] = {}
    for stage in stages:
        chain: list[str] = []
        name = stage.name
        while name != "base" and name not in ordered:
            if name not in by_name:
                known = ", ".join(["base", *by_name])
                raise ValueError(f"stage {chain[-1]!r} is from {name!r}, which is no stage; known: {known}")
            if name in chain:
                raise ValueError(
                    f"stages form a cycle: {' -> '.join([*chain, name])}; start one of them from base"
                )
            chain.append(name)
            name = by_name[name].from_
        for link in reversed(chain):
            ordered[link] = by_name[link]
    return list(ordered.values())
