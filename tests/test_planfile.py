"""Plan files: what is wrong is said with path and line, and settings land where they are pointed."""

from __future__ import annotations

import pytest

from harness.errors import BadPlan
from harness.plan import EvalPlan, Plan, Stage
from harness.planfile import (
    ENGINE_OPTION,
    apply_settings,
    dump,
    from_options,
    load_eval_plan,
    load_plan,
    schema,
)

GOOD = """\
name: demo
base: bundled:starter
stages:
  - name: sft
    method: sft
    data: [{dataset: starter/tasks:sft}]
    learning_rate: 1e-4
  - name: dpo
    method: dpo
    from: sft
    data:
      - dataset: starter/tasks:dpo
evaluate:
  suites: [reasoning]
"""


@pytest.fixture
def write(tmp_path):
    def write_plan(text):
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        return path

    return write_plan


def test_a_good_plan_loads_and_survives_a_round_trip(write):
    plan = load_plan(write(GOOD))
    assert [stage.from_ for stage in plan.stages] == ["base", "sft"]
    assert plan.stages[0].learning_rate == 1e-4  # YAML reads 1e-4 as text
    assert load_plan(write(dump(plan))) == plan


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate: 1e-4", "learning_rat: 1e-4", r"plan\.yaml:7: .*learning_rat'; did you mean 'learning_rate'"),
        ("learning_rate: 1e-4", "learning_rate: fast", r"plan\.yaml:7: .*learning_rate: .*valid number.*'fast'"),
        ("learning_rate: 1e-4", "learning_rate: -1", r"plan\.yaml:7: .*greater than 0, found -1"),
        ("learning_rate: 1e-4", "method: dpo", r"plan\.yaml:7: key 'method' stands twice \(first on line 5\)"),
        ("from: sft", "from: sfx", r"plan\.yaml:10: stage 'dpo' is from 'sfx', which is no stage; known: base, sft"),
        ("method: sft", "{method: sft, from: dpo}", r"plan\.yaml:\d+: no valid YAML"),
        ("    method: sft\n", "    method: sft\n    from: dpo\n", r"plan\.yaml:6: .*cycle: sft -> dpo -> sft"),
        ("name: dpo", "name: sft", r"plan\.yaml.*(taken|cycle)"),
        ("base: bundled:starter\n", "", r"plan\.yaml:1: 'base' is missing; add it"),
        ("stages:", "stages: [1]\nx:", r"plan\.yaml:\d+: "),
        ("suites: [reasoning]", "suites: reasoning", r"plan\.yaml:14: evaluate\.suites: .*valid list"),
        ("suites: [reasoning]", "suites: [!!python/object/apply:os.system [ls]]", r"plan\.yaml:14: no valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_path_and_line(write, old, new, message):
    assert old in GOOD
    with pytest.raises(BadPlan, match=message) as caught:
        load_plan(write(GOOD.replace(old, new, 1)))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_plan(write, tmp_path):
    with pytest.raises(BadPlan, match=r"no file .*nope\.yaml"):
        load_plan(tmp_path / "nope.yaml")
    with pytest.raises(BadPlan, match="expected a mapping"):
        load_plan(write("- a\n- b\n"))
    with pytest.raises(BadPlan, match="the file is empty"):
        load_plan(write(""))


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("lora.r=8", ("lora", "r"), 8),
        ("a.b.c=[1, x]", ("a", "b", "c"), [1, "x"]),
        ("name=true", ("name",), True),
        ("name='true'", ("name",), "true"),
        ("empty=", ("empty",), None),
        ("text=a=b", ("text",), "a=b"),
        ("stages.dpo.epochs=2", ("stages", 1, "epochs"), 2),
        ("stages.0.epochs=3", ("stages", 0, "epochs"), 3),
    ],
)
def test_settings_land_where_they_point(setting, path, value):
    data = {"lora": None, "stages": [{"name": "sft"}, {"name": "dpo"}]}
    result = apply_settings(data, [setting])
    for part in path:
        result = result[part]
    assert result == value
    assert data == {"lora": None, "stages": [{"name": "sft"}, {"name": "dpo"}]}  # the file's data stay


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lora", "not key=value"),
        ("=1", "not key=value"),
        ("a..b=1", "not key=value"),
        ("name.x=1", "nothing below a plain value"),
        ("stages.grpo.epochs=1", "no item 'grpo'; known: sft"),
        ("stages.7.epochs=1", "no item '7'"),
        ("x=[1", "no YAML value"),
    ],
)
def test_settings_that_point_nowhere(setting, message):
    with pytest.raises(BadPlan, match=message):
        apply_settings({"name": "n", "stages": [{"name": "sft"}]}, [setting])


def test_settings_of_an_option_go_below_its_key_and_messages_name_the_option():
    data = apply_settings({"engine": {"name": "vllm"}}, ["extra_body.user=me", "rpm=60"], ENGINE_OPTION)
    assert data == {"engine": {"name": "vllm", "options": {"extra_body": {"user": "me"}, "rpm": 60}}}
    for setting, why in (
        ("rpm", "is not key=value"),
        ("rpm=[1", "'[1' is no YAML value"),
        ("rpm.x=1", "nothing below"),
    ):
        with pytest.raises(BadPlan) as caught:
            apply_settings(data, [setting], ENGINE_OPTION)
        assert str(caught.value).startswith(f"--engine-option {setting!r}")
        assert why in str(caught.value)


def test_settings_go_over_the_file(write):
    plan = load_plan(write(GOOD), ["stages.dpo.lora.r=4", "evaluate.limit=5"])
    assert plan.stages[1].lora.r == 4
    assert plan.evaluate.limit == 5


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "inf", "nan"])
@pytest.mark.parametrize(
    "setting",
    [
        "stages.sft.learning_rate",
        "stages.sft.epochs",
        "stages.sft.lora.alpha",
        "stages.sft.lora.dropout",
        "stages.sft.data.0.weight",
        "energy.price_per_kwh",
        "energy.grid_g_per_kwh",
        "energy.idle_s",
        "energy.segment_s",
        "search.constraints.safety",
    ],
)
def test_numbers_are_finite(write, setting, number):
    with pytest.raises(BadPlan, match=r"should be a finite number|should be (greater|less) than"):
        load_plan(write(GOOD), [f"{setting}={number}"])


def test_reward_weights_are_finite():
    stage = {"name": "a", "method": "grpo", "data": [{"dataset": "x.jsonl"}]}
    with pytest.raises(BadPlan, match=r"rewards\.0\.weight: input should be a finite number, found -inf"):
        from_options(Stage, stage | {"rewards": [{"name": "format", "weight": float("-inf")}]})


def test_options_alone_name_no_file():
    with pytest.raises(BadPlan, match=r"^limit: input should be greater than or equal to 1, found 0$"):
        from_options(EvalPlan, {"checkpoints": ["x"], "suites": ["s"], "limit": 0})
    assert from_options(EvalPlan, {"checkpoints": ["x"], "suites": ["s"]}).profile == "quick"


def test_eval_plans_load_too(write):
    plan = load_eval_plan(write("checkpoints: [a, b]\nsuites: [safety]\n"), ["limit=3"])
    assert (plan.checkpoints, plan.limit) == (["a", "b"], 3)


def test_dump_leaves_defaults_out():
    stage = Stage(name="a", method="sft", data=[{"dataset": "x.jsonl"}])
    assert dump(stage) == "name: a\nmethod: sft\ndata:\n- dataset: x.jsonl\n"


def test_schema_names_every_key():
    found = schema(Plan)
    assert set(found["properties"]) == {
        "name", "base", "stages", "evaluate", "out", "search", "report", "reason", "data_dir", "runs", "engine",
        "energy", "cache", "allow_pickle", "trust_remote_code",
    }  # fmt: skip
    assert "from" in found["$defs"]["Stage"]["properties"]
    assert found["additionalProperties"] is False
