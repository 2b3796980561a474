"""Reading, storing and comparing the text of journeys, and the schema that editors use."""

# ruff: noqa: E501  (a row of a table stays on its line)

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from distmark.errors import InvalidInput
from distmark.journeys.definition import parse
from distmark.journeys.diff import Change, FieldChange, LineKind, StepChange, diff
from distmark.journeys.positions import read_yaml
from distmark.journeys.schema import json_schema
from distmark.journeys.source import Source, load_source, scan
from distmark.journeys.steps import KINDS

YAML = """\
key: sample
name: Sample
brand: acme
steps:
  - {id: welcome, send: email, message: welcome}
  - {id: pause, wait: {for: 3 days, until: "09:00"}}
  - id: split
    branch:
      - when: "clicked('welcome')"
        steps: [{id: call, task: {title: call}}]
      - otherwise: true
        steps: [{id: nudge, send: sms, message: nudge}]
  - {id: done, exit: done}
"""
SOURCE = Source(YAML, {"welcome.ja.text.txt": "one\ntwo\nthree\n", "nudge.ja.sms.txt": "hi"}, "journey_defs/sample")


def written(folder: Path, source: Source = SOURCE) -> Path:
    (folder / "messages").mkdir(parents=True)
    (folder / "journey.yaml").write_text(source.definition, encoding="utf-8")
    for name, text in source.templates.items():
        (folder / "messages" / name).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    found = load_source(written(tmp_path / "sample"))

    assert (found.definition, found.templates) == (SOURCE.definition, SOURCE.templates)
    assert found.template("nudge", "ja", "sms.txt") == "hi"
    assert found.template("nudge", "en", "sms.txt") is None
    assert found.file == "journey.yaml"


def test_the_definition_inside_a_folder_stands_for_the_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "sample")

    assert load_source(folder / "journey.yaml") == load_source(folder)


def test_a_single_file_is_a_journey_without_messages(tmp_path: Path) -> None:
    path = tmp_path / "sample.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + YAML.replace("\n", "\r\n").encode())

    found = load_source(path)

    assert (found.definition, found.templates, found.file) == (YAML, {}, "sample.yaml")


def test_the_hash_follows_the_text_and_not_the_place() -> None:
    assert replace(SOURCE, path="elsewhere").content_hash == SOURCE.content_hash
    assert replace(SOURCE, templates=dict(reversed(SOURCE.templates.items()))).content_hash == SOURCE.content_hash
    assert replace(SOURCE, definition=YAML + " ").content_hash != SOURCE.content_hash
    assert replace(SOURCE, templates={**SOURCE.templates, "nudge.ja.sms.txt": "ho"}).content_hash != SOURCE.content_hash
    assert len(SOURCE.content_hash) == 64


def test_what_is_stored_is_read_back_the_same() -> None:
    """T9."""
    stored = json.dumps(SOURCE.to_json())

    assert Source.from_json(json.loads(stored)) == SOURCE


@pytest.mark.parametrize("data", [{}, {"definition": 1, "templates": {}}, {"definition": "x", "templates": []}])
def test_what_is_no_stored_journey_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="stored journey"):
        Source.from_json(data)


def test_what_is_no_journey_on_disk_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"key: caf\xe9")
    (tmp_path / "notes.md").write_text("x")

    for name, reason in {
        "empty": "journey.yaml",
        "latin.yaml": "UTF-8",
        "notes.md": "not a journey",
        "none.yaml": "cannot be read",
    }.items():
        with pytest.raises(InvalidInput, match=reason):
            load_source(tmp_path / name)


def test_scan_finds_folders_and_files_in_order(tmp_path: Path) -> None:
    written(tmp_path / "b")
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "readme.md").write_text("x")

    assert [path.name for path in scan(tmp_path)] == ["a.yaml", "b"]
    with pytest.raises(InvalidInput, match="does not exist"):
        scan(tmp_path / "missing")


def test_yaml_words_are_read_as_people_mean_them() -> None:
    """`on` is a name and 21:00 is a time, which YAML 1.1 reads as true and as 1260."""
    read = read_yaml("on: 2026-12-24\nat: 21:00\nno: yes\nflag: true\ncode: 012\ncount: 3\nnone: ~\nquoted: '3'\n", "x").data

    assert read == {"on": "2026-12-24", "at": "21:00", "no": "yes", "flag": True, "code": "012", "count": 3, "none": None, "quoted": "3"}


# --- what changed ------------------------------------------------------------------------------------------------------------------------


def test_nothing_changed() -> None:
    commented = replace(SOURCE, definition="# a comment\n" + YAML)

    assert diff(SOURCE, commented).is_empty


def test_a_changed_field_is_told_with_its_value_before_and_after() -> None:
    new = replace(SOURCE, definition=YAML.replace("3 days", "4 days").replace("brand: acme", "brand: acme\nevents: [a, b]"))

    found = diff(SOURCE, new)

    assert found.steps == (StepChange("pause", "wait", Change.changed, (FieldChange("wait.for", "3 days", "4 days"),)),)
    assert found.fields == (FieldChange("events", None, "a, b"),)


def test_a_changed_condition_is_told_of_the_split_and_not_of_the_steps_inside() -> None:
    found = diff(SOURCE, replace(SOURCE, definition=YAML.replace("clicked('welcome')", "opened('welcome')")))

    change = FieldChange("branch.0.when", "clicked('welcome')", "opened('welcome')")
    assert found.steps == (StepChange("split", "branch", Change.changed, (change,)),)


def test_added_and_removed_steps_are_told_with_their_fields() -> None:
    new = replace(SOURCE, definition=YAML.replace("{id: done, exit: done}", "{id: last, wait: {for: 1 day}}"))

    found = diff(SOURCE, new)

    assert found.steps == (
        StepChange("last", "wait", Change.added, (FieldChange("wait.for", None, "1 day"),)),
        StepChange("done", "exit", Change.removed, (FieldChange("exit", "done", None),)),
    )


def test_a_moved_step_is_told_once() -> None:
    pause = '  - {id: pause, wait: {for: 3 days, until: "09:00"}}\n'
    new = replace(SOURCE, definition=YAML.replace(pause, "") + pause)

    found = diff(SOURCE, new)

    assert found.steps == (StepChange("pause", "wait", Change.moved, (FieldChange("position", "after welcome", "after done"),)),)


def test_a_step_that_moves_into_an_arm_has_moved() -> None:
    task = "{id: call, task: {title: call}}"
    new = replace(SOURCE, definition=YAML.replace(f"[{task}]", "[]").replace("  - {id: done", f"  - {task}\n  - {{id: done"))

    found = diff(SOURCE, new)

    assert [(change.step_id, change.change, change.fields) for change in found.steps] == [
        ("call", Change.moved, (FieldChange("position", "first in split.branch.0", "after split"),))
    ]


def test_templates_are_compared_line_by_line() -> None:
    templates = {"welcome.ja.text.txt": "one\n2\nthree\n", "new.ja.sms.txt": "new"}

    found = diff(SOURCE, replace(SOURCE, templates=templates))

    assert [(change.name, change.change) for change in found.templates] == [
        ("new.ja.sms.txt", Change.added), ("nudge.ja.sms.txt", Change.removed), ("welcome.ja.text.txt", Change.changed),
    ]  # fmt: skip
    assert [(line.kind, line.text, line.old_number, line.new_number) for line in found.templates[2].lines[1:]] == [
        (LineKind.same, "one", 1, 1), (LineKind.removed, "two", 2, None), (LineKind.added, "2", None, 2), (LineKind.same, "three", 3, 3),
    ]  # fmt: skip
    assert found.templates[2].count(LineKind.added) == 1


# --- the schema --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def accepts(validator: jsonschema.Draft202012Validator, text: str) -> bool:
    return not list(validator.iter_errors(read_yaml(text, "x").data))


def test_the_schema_knows_every_kind_of_step() -> None:
    schema = json_schema()

    refs = [ref["$ref"].rsplit("/", 1)[1] for ref in schema["$defs"]["Step"]["anyOf"]]
    assert refs == [kind.model.__name__ for kind in KINDS.values()]
    assert all(ref in schema["$defs"] for ref in refs)


def test_the_schema_accepts_what_is_right(validator: jsonschema.Draft202012Validator) -> None:
    assert accepts(validator, YAML)


@pytest.mark.parametrize("path", scan(Path(__file__).parents[3] / "journey_defs"), ids=lambda path: path.name)
def test_the_schema_accepts_the_journeys_that_come_along(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    source = load_source(path)

    parse(source)
    assert accepts(validator, source.definition)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3 days", "3 dys"), ('"09:00"', '"9 am"'), ("send: sms", "send: fax"), ("brand: acme\n", ""), ("key: sample", "key: A B"),
        ("exit: done", "exitt: done"), ("otherwise: true", "otherwise: maybe"), ("for: 3 days", "fro: 3 days"), ("name: Sample", "nmae: Sample"),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_wrong(validator: jsonschema.Draft202012Validator, old: str, new: str) -> None:
    assert not accepts(validator, YAML.replace(old, new))
