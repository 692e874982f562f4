"""Chat templates that refuse: one line with the checkpoint, what they say, and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.chat import check_template, render
from harness.errors import BadCheckpoint
from harness.judging.model import rendered
from tests.conftest import byte_tokenizer

SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system\\nturns') }}{% endif %}"
    "<{{ m['content'] }}>{% endfor %}"
)


def with_template(text: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = text
    tokenizer.name_or_path = "/somewhere/stern"
    return tokenizer


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (NO_SYSTEM, "refuses the conversation: no system turns; repair it"),
        ("{% for m in messages %}", "end of template"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[9]['role'] }}", "has no element 9"),
        ("{{ messages + 1 }}", "can only concatenate list"),
    ],
)
def test_a_refusal_is_one_line_with_the_way_out(template: str, said: str) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        render(with_template(template), SYSTEM, "stern")
    message = str(caught.value)
    assert message.startswith("the chat template of 'stern' refuses the conversation: ")
    assert said in message
    assert message.endswith("or ask in plain text with --chat off")
    assert "\n" not in message


def test_a_judge_gets_the_system_turn_in_the_first_or_is_refused() -> None:
    assert rendered(with_template(NO_SYSTEM), SYSTEM) == "<Be brief.\n\nHello>"
    for turns in (SYSTEM, SYSTEM[1:]):
        with pytest.raises(BadCheckpoint, match=r"of 'stern' refuses .*: never; .*name another --judge"):
            rendered(with_template("{{ raise_exception('never') }}"), turns)


def folder_with(folder: Path, template: str, **config: object) -> Path:
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, **config}), "utf-8")
    return folder


def test_a_folder_is_checked_with_its_own_special_tokens(tmp_path: Path) -> None:
    wants_bos = (
        "{% if bos_token != '<s>' %}{{ raise_exception('no bos') }}{% endif %}{{ messages[0]['content'] }}"
    )
    check_template(folder_with(tmp_path / "text", wants_bos, bos_token="<s>"), "text")
    check_template(folder_with(tmp_path / "object", wants_bos, bos_token={"content": "<s>"}), "object")
    check_template(folder_with(tmp_path / "no_system", NO_SYSTEM), "no_system")
    with pytest.raises(BadCheckpoint, match="of 'none' refuses the conversation: no bos;"):
        check_template(folder_with(tmp_path / "none", wants_bos), "none")


def test_the_file_beside_the_tokenizer_goes_first(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "both", "{{ messages[0]['content'] }}")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}", "utf-8")
    with pytest.raises(BadCheckpoint, match="never"):
        check_template(folder, "both")
