"""A user's data file in every shape that people send: what is read, and what is said of what cannot be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness.datasets import Datasets
from harness.errors import UserError
from harness.protocols import TaskContext
from harness.strategies.direct import Direct
from harness.suitefile import load_suite
from suites.own.task import OwnTask

ROWS = '{"country": "France", "city": "Paris"}\n{"country": "Japan", "city": "Tokyo"}\n'
CSV = "country,city\nFrance,Paris\nJapan,Tokyo\n"
FITS = [("Capital of France?", "Paris"), ("Capital of Japan?", "Tokyo")]
TASK = """\
name: s
tasks:
  t:
    data: {data}
    prompt: "Capital of {{country}}?"
    target: city
    scorer: contains
"""


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., list[tuple[str, str | None]]]:
    """Prompts and targets of a data file, or of a suite file with changes, bound without a model."""

    def read(content: str | bytes, name: str = "d.jsonl", suite: str = TASK) -> list[tuple[str, str | None]]:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "s.yaml").write_text(suite.format(data=name), "utf-8")
        return items(tmp_path / "s.yaml")

    return read


def items(file: Path) -> list[tuple[str, str | None]]:
    (spec,) = load_suite(str(file)).tasks
    context = TaskContext(engine=None, strategy=Direct(), data=Datasets(None))
    return [(str(item.doc["prompt"]), item.target) for item in OwnTask(spec.ref, context).items()]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xef\xbb\xbf" + ROWS.encode(), "d.jsonl"),
        (ROWS.replace("\n", "\r\n"), "d.jsonl"),
        (ROWS.replace("\n", "\n\n"), "d.JSONL"),
        (json.dumps([json.loads(line) for line in ROWS.splitlines()], indent=2), "d.json"),
        (gzip.compress(ROWS.encode()), "d.jsonl.gz"),
        (b"\xef\xbb\xbf" + CSV.encode(), "d.csv"),
        (CSV.replace("\n", "\r\n"), "d.csv"),
    ],
)
def test_what_editors_and_systems_do_to_a_file_is_read(asked, content, name) -> None:
    assert asked(content, name) == FITS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no rows"),
        ("\n \n", "holds no rows"),
        ("[]", "holds no rows"),
        ("null\n", "row 1 holds nothing (null)"),
        ("3\n", "row 1 holds int"),
        ("{}\n", "has no column 'country'; it has: none"),
        (ROWS + '{"country": "Peru"}\n', ":6: target: row 3 of"),
        (ROWS + '{"country": "Peru", "city": null}\n', "column 'city' is missing or empty; fill it in"),
        (ROWS + '{"country": "Peru", "city": NaN}\n', "column 'city' holds nan"),
        (ROWS + '{"country": -Infinity, "city": "x"}\n', ":5: prompt: row 3 of"),
        (ROWS + '{"country": "Peru", "city": " "}\n', "the right answer is blank"),
        (ROWS + '{"country": ["Peru"], "city": "x"}\n', "say in Jinja how it looks"),
        (ROWS + '{"country": "Peru", "city": {"a": 1}}\n', "column 'city' holds a dict"),
        (ROWS + '{"country": "Peru", "city": []}\n', "holds an empty list"),
        (
            ROWS + '{"country": "Peru", "city": "a", "city": "b"}\n',
            "d.jsonl:3 cannot be read as JSON (key 'city'",
        ),
        (ROWS + '{"country": "Pe', "d.jsonl:3 cannot be read as JSON"),
        (json.dumps({"rows": [1]}, indent=1), "one object per line is wanted, or one list of objects"),
        ("[" * 100_000, "cannot be read (maximum recursion"),
        ('{"a":' * 50_000, "d.jsonl:1 cannot be read"),
        ('{"country": "Espa\u00f1a"}'.encode("latin-1"), "d.jsonl is no UTF-8 text; save it as UTF-8"),
        (ROWS.encode("utf-16"), "save it as UTF-8"),
        (gzip.compress(ROWS.encode()), "is packed by gzip; name it d.jsonl.gz"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_row_or_line(asked, content, said) -> None:
    refused(asked, said, content)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (gzip.compress(ROWS.encode())[:40], "d.jsonl.gz", "ended before the end-of-stream"),
        (ROWS, "d.jsonl.gz", "Not a gzipped file"),
        ("", "d.csv", "holds no rows; its first line names the columns"),
        ("country,city\n", "d.csv", "holds no rows"),
        (CSV + "Peru\n", "d.csv", "row 3 of"),
        (CSV + "Namibia,\n", "d.csv", "column 'city' is missing or empty"),
        ("country,city\na,b,c\n", "d.csv", "rows hold more cells than its first line names columns"),
        (CSV + "a,b,c\n", "d.csv", "Expected 2 fields in line 4, saw 3"),
        (CSV.replace(",", ";"), "d.csv", "its one column is 'country;city': separate columns by commas"),
        ("country,city,city\na,b,c\n", "d.csv", "d.csv:1 names the column 'city' twice"),
        ("country, city\na,b\n", "d.csv", "no column 'city'; did you mean ' city'?"),
        (CSV, "d.parquet", "cannot be read"),
        ("", "d.parquet", "cannot be read"),
        (ROWS, "d.txt", "is no .jsonl, .json"),
        (CSV, "d.tsv", "convert it to JSONL"),
    ],
)
def test_so_is_one_of_another_format(asked, content, name, said) -> None:
    refused(asked, said, content, name)


@pytest.mark.parametrize(
    "cell",
    ["02134", "1990", "1.50", "1e5", "NA", "None", "null", "nan", "true", " x ", "a\u2028b", "-", "1,5"],
)
def test_a_cell_of_a_csv_file_is_the_text_that_stands_there(asked, cell: str) -> None:
    content = f'country,city\nBoston,"{cell}"\n"{cell}",12\n'
    assert asked(content, "d.csv") == [("Capital of Boston?", cell), (f"Capital of {cell}?", "12")]


def test_a_column_of_numbers_with_a_hole_keeps_them_whole(asked) -> None:
    suite = TASK.replace(
        "Capital of {{country}}?", "{{{{ country }}}}{{% if year %}} in {{{{ year }}}}{{% endif %}}"
    )
    content = "country,city,year\nPeru,Lima,1990\nFrance,Paris,\n"
    assert asked(content, "d.csv", suite) == [("Peru in 1990", "Lima"), ("France", "Paris")]


def refused(asked: Callable, said: str, *arguments: object) -> None:
    """The error is one line that says it and names the place in the suite file."""
    with pytest.raises(UserError) as caught:
        asked(*arguments)
    message = str(caught.value)
    assert said in message
    assert "s.yaml:" in message
    assert "\n" not in message


def test_parquet_holds_text_lists_and_no_bytes(asked, tmp_path) -> None:
    table = {"country": ["France", "Japan"], "city": [["Paris", "Lutetia"], ["Tokyo"]]}
    parquet.write_table(pa.table(table), tmp_path / "d.parquet")
    packed = (tmp_path / "d.parquet").read_bytes()
    assert asked(packed, "d.parquet") == [("Capital of France?", "Paris | Lutetia"), FITS[1]]
    parquet.write_table(pa.table({"country": ["France"], "city": [b"\xff"]}), tmp_path / "d.parquet")
    refused(
        asked, "column 'city' holds bytes; store text", (tmp_path / "d.parquet").read_bytes(), "d.parquet"
    )


@pytest.mark.parametrize(
    "name", ["nothing.jsonl", "a_folder.jsonl", "C:\\data\\d.jsonl", "http://x.org/d.jsonl"]
)
def test_a_file_that_is_not_there_is_named(tmp_path, name) -> None:
    (tmp_path / "a_folder.jsonl").mkdir()
    (tmp_path / "s.yaml").write_text(TASK.format(data=name), "utf-8")
    with pytest.raises(UserError, match=r"s\.yaml:4: no data file .*; give a \.jsonl"):
        items(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "name", ["''", "' '", "a:b:c:d", "nothing/here:main", "~nobody-here/d.jsonl", "[a]", "3"]
)
def test_a_name_that_is_no_data_set_is_refused_with_its_line(tmp_path, name) -> None:
    (tmp_path / "s.yaml").write_text(TASK.format(data=name), "utf-8")
    with pytest.raises(UserError, match=r"s\.yaml:[34]: "):
        items(tmp_path / "s.yaml")


NAMED = "".join(f'{{"q": "{q}", "city": "x", "n": 1, "l": ["u"], "e": null}}\n' for q in "ab")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (
            "id: n",
            ":8: id: .* has '1' in column 'n' twice, in row 1 and row 2; name a column whose values differ",
        ),
        ("id: l", ":8: id: row 1 .*column 'l' holds a list where a text or number is wanted"),
        ("id: e", "column 'e' is missing or empty"),
        ("group: l", ":8: group: row 1 .*holds a list"),
        ("group: e", "column 'e' is missing or empty"),
        ("cluster: e", ":8: cluster: row 1"),
        ("cluster: m", ":8: cluster: .*no column 'm'"),
    ],
)
def test_a_column_that_cannot_name_or_sort_rows_is_refused(asked, key: str, said: str) -> None:
    suite = TASK.replace("country", "q") + f"    {key}\n"
    with pytest.raises(UserError, match=said):
        asked(NAMED, "d.jsonl", suite)


def test_no_group_has_the_name_of_the_mean_over_groups(asked) -> None:
    suite = TASK + "    group: kind\n"
    rows = "country,city,kind\nFrance,Paris,Macro\nJapan,Tokyo,macro\n"
    refused(asked, ":8: group: row 2 of", rows, "d.csv", suite)
    refused(asked, "no group may be called 'macro': NAME/macro is the mean over groups", rows, "d.csv", suite)


# Templates


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Of {{country", "'{country' is no column in braces; write {column}, no more"),
        ("Of {{ country }}", "'{ country }' is no column in braces"),
        ("Of {{country!r}}", "is no column in braces"),
        ("Of {{country:>9}}", "is no column in braces"),
        ("Of {{cuntry}}", "did you mean 'country'?"),
        ("  ", "it is blank; fill it in, or drop the key"),
        ("{{{{ country.__class__ }}}}", "access to attribute '__class__'"),
        ("{{{{ x.__class__ }}}}", "no column 'x'"),
        ("{{{{ country | attr('__init__') }}}}", "unsafe"),
        ("{{{{ country * 10 ** 9 }}}}", "it writes over 5,000,000 characters"),
        ("{{{{ country | center(10000000) }}}}", "it writes over 5,000,000 characters"),
        ("{{{{ 9 ** (9 ** 9) }}}}{{{{ country }}}}", "too large"),
        ("{{{{ '%9999999d' % 3 }}}}{{{{ country }}}}", "text % values is not allowed"),
        ("{{% for i in range(10 ** 9) %}}x{{% endfor %}}", "Range too big"),
        ("{{% macro m(x) %}}{{{{ m(x) }}}}{{% endmacro %}}{{{{ m(country) }}}}", "make it simpler"),
        ("{{{{ country | random }}}}", "No filter named 'random'"),
        ("{{{{ lipsum() }}}}", "no column 'lipsum'"),
        ("{{% include '/etc/passwd' %}}", "cannot be filled"),
    ],
)
def test_a_template_that_is_wrong_or_runs_away_is_told_with_its_line(asked, prompt: str, said: str) -> None:
    suite = TASK.replace("Capital of {{country}}?", prompt)
    with pytest.raises(UserError) as caught:
        asked(ROWS, "d.jsonl", suite)
    assert said in str(caught.value)
    assert "s.yaml:5: " in str(caught.value)


def test_a_loop_that_does_not_end_is_stopped(asked, monkeypatch) -> None:
    monkeypatch.setattr("harness.templates.MOST_S", 0.2)
    loops = "{{% for i in range(99999) %}}{{% for j in range(99999) %}}{{% endfor %}}{{% endfor %}}{{{{ country }}}}"
    with pytest.raises(UserError, match=r"s\.yaml:5: prompt: row 1 .*takes over 0\.2 s; is there a loop"):
        asked(ROWS, "d.jsonl", TASK.replace("Capital of {{country}}?", loops))


def test_a_prompt_without_a_column_is_allowed_and_noted(tmp_path) -> None:
    (tmp_path / "d.jsonl").write_text(ROWS, "utf-8")
    text = TASK.replace("{{country}}", "the country").format(data="d.jsonl")
    (tmp_path / "s.yaml").write_text(text, "utf-8")
    (spec,) = load_suite(str(tmp_path / "s.yaml")).tasks
    task = OwnTask(spec.ref, TaskContext(engine=None, strategy=Direct(), data=Datasets(None)))
    assert len(task.sample_ids) == 2
    assert task.notes == ["the prompt names no column: every row is asked the same"]
