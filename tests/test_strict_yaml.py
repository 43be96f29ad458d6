"""Strict YAML: what each scalar means, where each key stands, and what is refused."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier import strict_yaml
from xray_classifier.errors import ConfigError
from xray_classifier.strict_yaml import YamlError, load, load_file, parse_value, read_text

PACKAGE = Path(strict_yaml.__file__).parent

# The meanings are those of the YAML 1.2.2 core schema (section 10.3.2), narrowed as documented.
SCALARS = [
    ("1e-3", 0.001),
    ("1e3", 1000.0),
    ("1E+3", 1000.0),
    ("-2.5e-2", -0.025),
    ("3.", 3.0),
    (".5", 0.5),
    ("+.5", 0.5),
    ("0.1", 0.1),
    ("0", 0),
    ("-7", -7),
    ("+7", 7),
    ("12345678901234567890", 12345678901234567890),
    ("null", None),
    ("~", None),
    ("", None),
    ("true", True),
    ("True", True),
    ("false", False),
    ("False", False),
    (".inf", math.inf),
    ("-.inf", -math.inf),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("NO", "NO"),
    ("TRUE", "TRUE"),
    ("Null", "Null"),
    ("None", "None"),
    ("010", "010"),
    ("007", "007"),
    ("00.5", "00.5"),
    ("0x10", "0x10"),
    ("0o10", "0o10"),
    ("0b1", "0b1"),
    ("1_000", "1_000"),
    ("1,000", "1,000"),
    ("12:30", "12:30"),
    ("190:20:30", "190:20:30"),
    ("2024-01-01", "2024-01-01"),
    ("1.2.3", "1.2.3"),
    ("1e", "1e"),
    (".", "."),
    ("-", "-"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("=", "="),
    ("'1'", "1"),
    ('"true"', "true"),
    ("'null'", "null"),
    ('"tab\\there"', "tab\there"),
    ("sens=0.95", "sens=0.95"),
    ("١٢", "١٢"),
]


def same(found: object, expected: object) -> bool:
    """Equal, and of the same type: 1 is not True, and 1000.0 is not 1000."""
    return type(found) is type(expected) and found == expected


@pytest.mark.parametrize(("text", "expected"), SCALARS)
def test_a_scalar_means_the_same_in_a_file_and_on_the_command_line(
    text: str, expected: object
) -> None:
    if text != "-":  # Alone on a line it begins a list.
        assert same(load(f"key: {text}\n", "f.yaml").data["key"], expected)
    assert same(parse_value(text), expected)


def test_not_a_number_is_read() -> None:
    assert math.isnan(load("a: .nan", "f").data["a"])


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=150, deadline=None)
def test_every_float_as_python_writes_it_is_read_back_exactly(number: float) -> None:
    found = load(f"a: {number!r}", "f").data["a"]
    assert isinstance(found, float)
    assert math.copysign(1, found) == math.copysign(1, number)
    assert found == number


TEXTS = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff\uffff\ufffe"
    ),
    max_size=20,
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from([None, 2]))
@settings(max_examples=150, deadline=None)
def test_json_means_what_the_json_module_says(value: object, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    assert load(text, "f.json").data == json.loads(text)


@given(JSON_VALUES)
@settings(max_examples=100, deadline=None)
def test_quoted_block_yaml_means_what_pyyaml_says(value: object) -> None:
    text = yaml.safe_dump({"root": value}, default_style='"', allow_unicode=False)
    plain = re.sub(r"!!(int|float|bool|null) ", "", text)
    if plain == text:
        assert load(text, "f.yaml").data == yaml.safe_load(text)
    else:
        with pytest.raises(YamlError, match="tags"):
            load(text, "f.yaml")


def test_block_and_flow_styles_give_plain_data() -> None:
    text = """# note
a:
  b: [1, {c: x}]
  d:
  - p
  - q: |
      two
      lines
  e: >-
    f
    g
"""
    expected = {"a": {"b": [1, {"c": "x"}], "d": ["p", {"q": "two\nlines\n"}], "e": "f g"}}
    assert load(text, "f.yaml").data == expected


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "---\n...\n"])
def test_an_empty_document_is_none(text: str) -> None:
    assert load(text, "f.yaml").data is None


def test_positions_are_those_of_the_keys_and_items() -> None:
    text = """# header
name: x
train:
  epochs: 3
  hidden: [5,
    6]
  list:
    - a
    - b: 1
"""
    positions = load(text, "f.yaml").positions
    expected = {
        (): (1, 1),
        ("name",): (2, 1),
        ("train",): (3, 1),
        ("train", "epochs"): (4, 3),
        ("train", "hidden"): (5, 3),
        ("train", "hidden", 0): (5, 12),
        ("train", "hidden", 1): (6, 5),
        ("train", "list"): (7, 3),
        ("train", "list", 0): (8, 7),
        ("train", "list", 1): (9, 7),
        ("train", "list", 1, "b"): (9, 7),
    }
    assert positions == expected


@given(st.lists(st.sampled_from(["", "# note", "  # indented note"]), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_key_stands_on_the_line_that_an_editor_shows(between: list[str]) -> None:
    lines = ["first: 1", *between, "second:", *between, "  inner: 2"]
    for newline in ("\n", "\r\n"):
        positions = load(newline.join(lines), "f.yaml").positions
        assert positions[("second",)] == (lines.index("second:") + 1, 1)
        assert positions[("second", "inner")] == (len(lines), 3)


BILLION_LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"

# Each text, the line of the fault, and a word of the reason.
HOSTILE = {
    "billion laughs": (BILLION_LAUGHS, 1, "anchors"),
    "alias": ("a: 1\nb: *a\n", 2, "aliases"),
    "anchor": ("a: 1\nb: &b 2\n", 2, "anchors"),
    "anchor on a mapping": ("a: &a\n  b: 1\n", 1, "anchors"),
    "anchor on a key": ("&a b: 1\n", 1, "anchors"),
    "self reference": ("&a [*a]\n", 1, "anchors"),
    "os.system": ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "tags"),
    "python name": ("!!python/name:os.system\n", 1, "tags"),
    "python module": ("a: !!python/module:os\n", 1, "tags"),
    "python new": ("a: !!python/object/new:type [x, [], {}]\n", 1, "tags"),
    "str tag": ("a: !!str 1\n", 1, "tags"),
    "int tag": ("a: !!int '1'\n", 1, "tags"),
    "binary tag": ("a: !!binary aGVsbG8=\n", 1, "tags"),
    "set tag": ("a: !!set {x, y}\n", 1, "tags"),
    "local tag": ("a: !include other.yaml\n", 1, "tags"),
    "bare tag": ("a: ! 1\n", 1, "tags"),
    "long tag": ("a: !<tag:yaml.org,2002:python/name:os> x\n", 1, "tags"),
    "tag directive": ("%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system x\n", 3, "tags"),
    "merge key": ("a: 1\n<<: {b: 2}\n", 2, "merge"),
    "merge list": ("c:\n  <<: [{a: 1}, {b: 2}]\n", 2, "merge"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "second document"),
    "document after its end": ("a: 1\n...\n---\nb: 2\n", 3, "second document"),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", 3, "stands twice, first on line 1"),
    "duplicate nested key": ("a:\n  b: 1\n  b: 1\n", 3, "stands twice, first on line 2"),
    "duplicate flow key": ("a: {b: 1, b: 2}\n", 1, "stands twice"),
    "duplicate key, quoted": ("a: 1\n'a': 2\n", 2, "stands twice"),
    "number as key": ("a: 1\n2: b\n", 2, "a key is text, this one is 2;"),
    "boolean as key": ("true: b\n", 1, "this one is true;"),
    "null as key": ("~: b\n", 1, "this one is null;"),
    "float as key": ("1e3: b\n", 1, "this one is 1000.0;"),
    "list as key": ("? [a]\n: b\n", 1, "cannot be a key"),
    "mapping as key": ("{{a: 1}: 2}\n", 1, "cannot be a key"),
    "5,000 brackets": ("[" * 5000, 1, "32 levels"),
    "5,000 closed brackets": ("[" * 5000 + "]" * 5000, 1, "32 levels"),
    "5,000 braces": ("{a: " * 5000, 1, "32 levels"),
    "5,000 dashes": ("- " * 5000, 1, "32 levels"),
    "deep blocks": ("".join(" " * i + "a:\n" for i in range(100)), 33, "32 levels"),
    "many values": ("[" + "a," * 25_000 + "]", 1, "20,000 values"),
    "long number": ("a: " + "9" * 5000, 1, "5,000 digits"),
    "too long": ("# " + "x" * 1_000_001, 1, "1,000,000"),
    "tab as indentation": ("a:\n\tb: 1\n", 2, "a tab"),
    "tab after a colon": ("a:\tb\n", 1, "a tab"),
    "open list": ("a: 1\nb: [1, 2\n", 3, "begins on line 2"),
    "open mapping": ("b: {c: 2\n", 2, "begins on line 1"),
    "open quote": ("a: 'x\nb: 2\n", 3, "begins on line 1"),
    "two colons": ("a: b: c\n", 1, "quotes"),
    "wrong indentation": ("a: 1\n b: 2\n", 2, "indentation"),
    "item after key": ("a: 1\n- b\n", 2, "expected"),
    "at sign": ("a: @b\n", 1, "'@'"),
    "percent": ("a: %b\n", 1, "'%'"),
    "backtick": ("a: `b`\n", 1, "'`'"),
    "bad escape": ('a: "\\q"\n', 1, "escape"),
    "escape past Unicode": ('a: 1\nb: "\\UFFFFFFFF"\n', 2, "no character"),
    "escape just past Unicode": ('a: "\\U00110000"\n', 1, "no character"),
    "half a character": ('a: "\\ud800"\n', 1, "half a character"),
    "yaml 2": ("%YAML 2.0\n---\na: 1\n", 1, "version"),
    "NUL": ("a: 1\nb: \0\n", 2, "U+0000"),
    "escape code": ("a: \x1b[31mred\n", 1, "U+001B"),
    "next line character": ("a: 1\nb: x\x85c: 2\n", 2, "U+0085"),
    "line separator": ("a: x\u2028b: 2\n", 1, "U+2028"),
    "byte order mark inside": ("a: 1\nb: \ufeff2\n", 2, "U+FEFF"),
    "lone surrogate": ("a: \udc80\n", 1, "U+DC80"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_refused_with_its_line(case: str) -> None:
    text, line, reason = HOSTILE[case]
    with pytest.raises(ConfigError) as caught:
        load(text, "bad.yaml")
    message = str(caught.value)
    assert message.startswith(f"bad.yaml:{line}  ")
    assert reason in message
    assert message.isprintable()
    assert len(message) < 300


def test_a_long_key_does_not_make_a_long_message() -> None:
    key = "k" * 900
    with pytest.raises(YamlError, match="stands twice") as caught:
        load(f"{key}: 1\n{key}: 2\n", "bad.yaml")
    assert len(str(caught.value)) < 150


@given(st.text(st.sampled_from("ab1 :-[]{}\n\t'\"#&*!?|>%@,<\\\0\ud800"), max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_data_or_one_line_of_complaint(text: str) -> None:
    complaint = "f.yaml:1  none"
    try:
        load(text, "f.yaml")
    except ConfigError as error:
        complaint = str(error)
    assert re.match(r"f\.yaml:\d+  \S", complaint)
    assert complaint.isprintable()


@pytest.mark.parametrize("depth", [31, 32])
def test_nesting_up_to_the_limit_is_read(depth: int) -> None:
    data = load("[" * depth + "]" * depth, "f").data
    for _ in range(depth - 1):
        (data,) = data
    assert data == []


BAD_BYTES = {
    "latin 1": (b"a: 1\nb: caf\xe9\n", 2, "0xe9"),
    "cut character": (b"a: \xe2\x82", 1, "UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), 1, "UTF-8"),
    "UTF-16 without a mark": ("a: 1\n".encode("utf-16-le"), 1, "U+0000"),
    "encoded surrogate": (b"a: 1\n\n# \xed\xa0\x80\n", 3, "UTF-8"),
    "overlong": (b"\xc0\xaf", 1, "UTF-8"),
    "NUL bytes": (b"a: 1\nb: 2\n\0\0\0\0", 3, "U+0000"),
    "a PNG": (b"\x89PNG\r\n\x1a\n", 1, "0x89"),
    "too large": (b"# " + b"x" * 1_000_000, 1, "1,000,000 bytes"),
}


@pytest.mark.parametrize("case", BAD_BYTES)
def test_bytes_that_are_no_text_are_refused_with_their_line(case: str, tmp_path: Path) -> None:
    content, line, reason = BAD_BYTES[case]
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(YamlError) as caught:
        load_file(path, "bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}  ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"a: 1\nb: \xc3\xa9\n", b"\xef\xbb\xbfa: 1\nb: \xc3\xa9\n", b"a: 1\r\nb: \xc3\xa9\r\n"],
    ids=["plain", "byte order mark", "CRLF"],
)
def test_files_of_any_editor_read_the_same(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_bytes(content)
    document = load_file(path)
    assert document.data == {"a": 1, "b": "é"}
    assert document.positions == {(): (1, 1), ("a",): (1, 1), ("b",): (2, 1)}


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_bytes(b"a: 1 #" + b"x" * (strict_yaml.MAX_BYTES - 6))
    assert load_file(path).data == {"a": 1}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: "):
        read_text(tmp_path / "gone.yaml", "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[512, 256]", [512, 256]),
        ("{healthy: [A], sick: [B]}", {"healthy": ["A"], "sick": ["B"]}),
        ("{}", {}),
        (" 3e-4 ", 0.0003),
        ('"3"', "3"),
        ("'it''s'", "it's"),
        (r"^(\d+)_[a-z]+: #1", r"^(\d+)_[a-z]+: #1"),
        (r"C:\films\a b", r"C:\films\a b"),
        ("!!python/name:os.system", "!!python/name:os.system"),
        ("*star", "*star"),
        ("&and", "&and"),
        ("- dash", "- dash"),
        ("a: b", "a: b"),
    ],
)
def test_override_values(text: str, expected: object) -> None:
    assert same(parse_value(text), expected)


@pytest.mark.parametrize("text", ["[1, 2", "{a: *b}", "[!!int 1]", '"x" y', "[" * 5000, "9" * 5000])
def test_override_values_that_are_refused(text: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_value(text)
    assert str(caught.value).isprintable()


def test_the_package_never_loads_objects_or_runs_text() -> None:
    forbidden = re.compile(r"yaml\.(load|load_all|unsafe_load|full_load)\(|UnsafeLoader|FullLoader")
    for path in PACKAGE.rglob("*.py"):
        assert not forbidden.search(path.read_text(encoding="utf-8")), path
