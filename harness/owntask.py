"""A task that is written in a suite file: rows of a data file, a prompt template, a scorer by name.

    capitals:
      data: capitals.jsonl
      prompt: "What is the capital of {country}?"
      target: city
      scorer: exact_match

docs/own-suites.md describes every key. The rows are asked and scored by the native task `own`.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from harness.datafiles import is_data_file
from harness.errors import BadInput, HarnessError
from harness.plan import Strict
from harness.records import Json
from harness.templates import template

OWN = "own"
"""The native task behind such an entry."""
SCORERS = (
    "exact_match", "contains", "regex", "number", "f1", "rouge", "math", "letter", "choice", "judge",
)  # fmt: skip
NEEDS_CHOICES = ("choice", "letter")
WITHOUT_TARGET = ("regex", "judge")


class ScorerEntry(Strict):
    """A scorer and its settings; `scorer: f1` is short for `scorer: {name: f1}`."""

    name: str = Field(description=f"{', '.join(SCORERS)}, or path/to/file.py:function")
    ignore_case: bool | None = Field(
        default=None, description="exact_match, regex: default false; contains: default true"
    )
    pattern: str | None = Field(
        default=None, description="regex: its first group (or all of it) is the answer"
    )
    tolerance: float | None = Field(
        default=None, ge=0, description="number: relative difference that counts as equal; default 1e-6"
    )
    rubric: str | None = Field(
        default=None,
        description="judge: what a good answer is, in words, or a rubric file (docs/judge.md)",
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name in SCORERS or ".py:" in name:
            return name
        near = get_close_matches(name, SCORERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no scorer {name!r}; {hint}known: {', '.join(SCORERS)}, or path/to/file.py:function"
        )

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        of = {
            "pattern": ("regex",), "tolerance": ("number",), "rubric": ("judge",),
            "ignore_case": ("exact_match", "contains", "regex"),
        }  # fmt: skip
        for setting, names in of.items():
            if getattr(self, setting) is not None and self.name not in names:
                raise ValueError(f"scorer {self.name!r} has no {setting}; it is for {', '.join(names)}")
        if self.name == "regex" and not self.pattern:
            raise ValueError("scorer 'regex' needs a pattern: {name: regex, pattern: '...'}")
        if self.name == "judge" and not (self.rubric or "").strip():
            raise ValueError("scorer 'judge' needs a rubric: {name: judge, rubric: 'what a good answer is'}")
        return self


def _listed(value: Any) -> Any:
    """One scorer for many, a bare name for a mapping."""
    items = value if isinstance(value, list) else [value]
    return [{"name": item} if isinstance(item, str) else item for item in items]


def _chat(value: Any) -> Any:
    """Raises: ValueError: neither auto nor true nor false."""
    if value is None or isinstance(value, bool) or value == "auto":
        return value
    raise ValueError(f"give auto, true or false, not {value!r:.40}")


def _texts(value: Any) -> Any:
    """One text for many."""
    return [value] if isinstance(value, str) else value


class OwnFields(Strict):
    """What may stand in a task that has `data`."""

    data: str | None = Field(
        default=None,
        description="JSONL, JSON, CSV or Parquet file beside the suite file, or id[:config[:split]]",
    )
    prompt: str | None = Field(
        default=None, description="Template of what is asked: {column}, or Jinja with {{ column }}"
    )
    system: str | None = Field(default=None, description="Template of the system prompt")
    target: str | None = Field(
        default=None, description="Column with the right answer (a list: any of them), or a template"
    )
    choices: str | list[str] | None = Field(
        default=None, description="Column with a list of choices, or templates of them"
    )
    scorer: Annotated[list[ScorerEntry], BeforeValidator(_listed)] | None = Field(
        default=None, min_length=1, description="By name, or several; default: choice where there are choices"
    )
    id: str | None = Field(
        default=None, description="Column with the rows' names; default: their number from 0"
    )
    cluster: str | None = Field(
        default=None, description="Column: rows of one value (a passage) are not independent"
    )
    group: str | None = Field(
        default=None, description="Column: every value (a subject) is reported, and the mean over them"
    )
    chat: Annotated[bool | Literal["auto"] | None, BeforeValidator(_chat)] = Field(
        default=None,
        description="auto: a chat turn where the tokenizer has a template, but not for scorer choice",
    )
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]] | None, BeforeValidator(_texts)] = Field(
        default=None, description="Text, or several: the answer ends before it"
    )
    n: int | None = Field(default=None, ge=1, description="Answers per prompt; their mean is the row's score")

    @field_validator("prompt", "system", "target", "choices")
    @classmethod
    def _are_templates(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in [value] if isinstance(value, str) else value or ():
            _read(text)
        return value

    @field_validator("data", "prompt", "target", "id", "cluster", "group")
    @classmethod
    def _are_filled(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it is blank; fill it in, or drop the key")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = [name for name in OwnFields.model_fields if getattr(self, name) is not None]
        if self.data is None:
            if given:
                raise ValueError(f"{given[0]} goes with data: FILE; add it, or drop {given[0]}")
            return self
        if self.prompt is None:
            raise ValueError("a task with data needs a prompt; add prompt: 'text with {column}'")
        if not self.scorer_names:
            known = ", ".join(SCORERS)
            raise ValueError(f"a task with data needs a scorer; add scorer: NAME, one of {known}")
        self._scorers_have_what_they_need()
        return self

    def _scorers_have_what_they_need(self) -> None:
        for name in self.scorer_names:
            if name in NEEDS_CHOICES and self.choices is None:
                raise ValueError(f"scorer {name!r} needs choices; add choices: COLUMN or a list")
            if name not in WITHOUT_TARGET and ".py:" not in name and self.target is None:
                raise ValueError(f"scorer {name!r} needs the right answer; add target: COLUMN")
        twice = next((name for name in self.scorer_names if self.scorer_names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"scorer {twice!r} stands twice, under one name; give the second a task of its own"
            )
        if "choice" in self.scorer_names and len(self.scorer_names) > 1:
            raise ValueError(
                "scorer 'choice' reads no answer, it compares likelihoods; give it a task of its own"
            )

    @property
    def scorer_names(self) -> list[str]:
        """Of the scorers given; where there are choices and none is named, `choice`."""
        if self.scorer is not None:
            return [entry.name for entry in self.scorer]
        return ["choice"] if self.choices is not None else []


def own_options(entry: OwnFields, folder: Path) -> dict[str, Json]:
    """The entry as options of the task `own`; files are those beside the suite file.

    Args: folder: where the suite file lies.
    """
    given = entry.model_dump(include=set(OwnFields.model_fields), exclude_none=True)
    scorers = given.get("scorer") or [{"name": name} for name in entry.scorer_names]
    files = ("name", "rubric")
    given["scorer"] = [
        {key: beside(value, folder) if key in files else value for key, value in scorer.items()}
        for scorer in scorers
    ]
    given["data"] = beside(str(entry.data), folder)
    return given


def beside(name: str, folder: Path) -> str:
    """A path as seen from the suite file; names of datasets and of scorers stay what they are."""
    is_path = name.startswith(("./", "../", "~")) or ".py:" in name or name.endswith((".py", ".yaml", ".yml"))
    is_path = is_path or name in (".", "..") or is_data_file(name) or _is_file(folder, name)
    if not is_path or "://" in name:
        return name
    try:
        path = Path(name).expanduser()
    except RuntimeError as exc:
        raise BadInput(f"no home folder for {name!r}; write the path out") from exc
    return str(path if path.is_absolute() else (folder / path).resolve())


def _is_file(folder: Path, name: str) -> bool:
    """Whether a file lies beside the suite file; of one that no reader knows, its error is to say so."""
    try:
        return bool(name.strip()) and (folder / name).is_file()
    except (OSError, ValueError):  # too long for a name, or a NUL
        return False


def _read(text: str) -> None:
    """A template that cannot be read is an error of its field."""
    try:
        template(text)
    except HarnessError as exc:
        raise ValueError(str(exc)) from exc
