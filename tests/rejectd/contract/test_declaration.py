"""rejectd.contract.declaration: one declaration gives parser, messages and reference."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rejectd.contract.declaration import Mistake, SettingsError, SettingsReader
from rejectd.contract.fields import Declared, Group, Names, setting
from rejectd.contract.settings import Settings


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Lamp(Group):
    """A group of its own, so that the rules are tested and not the service's settings."""

    watts: float = setting("Power.", default=5.0, unit="W", low=1, high=100)
    colour: Colour | None = setting("Colour.", default=None)
    label: str | None = setting("What it says.", default=None)
    flashing: bool = setting("Whether it flashes.", default=False)


class Tower(Group):
    """Lamps by name."""

    height_mm: int = setting("Height.", unit="mm", low=0)
    lamps: dict[str, Lamp] = setting("The lamps.", default={})


class Crew(Group):
    """A list of names, as a file or as JSON gives it."""

    members: Names = setting("Who.", pattern_help="names, such as [ann, bob]")
    absent: Names | None = setting("Who not.", default=None, pattern_help="names, such as [ann, bob]")


def read(text: str, cls: type = Tower) -> tuple[Any, list[str]]:
    reader = SettingsReader(Path("tower.yaml"))
    node = reader.root(text)
    made = reader.group(cls, node) if node is not None else None
    return made, [str(mistake) for mistake in reader.mistakes]


def test_a_group_becomes_its_dataclass() -> None:
    made, mistakes = read("height_mm: 300\nlamps: {top: {watts: 7.5, colour: red, label: stop, flashing: true}}\n")
    assert mistakes == []
    assert made == Tower(height_mm=300, lamps={"top": Lamp(watts=7.5, colour=Colour.RED, label="stop", flashing=True)})


def test_null_stands_for_nothing_only_where_nothing_is_allowed() -> None:
    made, mistakes = read("height_mm: 300\nlamps: {top: {colour: null, label: ~}}\n")
    assert mistakes == []
    assert made.lamps["top"] == Lamp()
    made, mistakes = read("height_mm: null\n")
    assert made is None
    assert mistakes == ["1: height_mm: 'null' is not allowed; give a whole number, 0 mm or more"]


def test_a_group_with_a_mistake_is_not_made_but_the_others_are_read_on() -> None:
    made, mistakes = read("height_mm: -1\nlamps:\n  top: {watts: 0}\n  low: {watts: 101}\n")
    assert made is None
    assert mistakes == [
        "1: height_mm: -1 is not allowed; give 0 mm or more",
        "3: lamps.top.watts: 0 is not allowed; give 1 to 100 W",
        "4: lamps.low.watts: 101 is not allowed; give 1 to 100 W",
    ]


def test_a_mistake_at_a_key_that_was_not_given_is_placed_at_its_nearest_parent() -> None:
    reader = SettingsReader(Path("tower.yaml"))
    node = reader.root("height_mm: 3\n\nlamps:\n  top: {watts: 5}\n")
    assert node is not None
    reader.group(Tower, node)
    reader.mistake("lamps.top.watts", "a", "h")
    reader.mistake("lamps.top.label", "b", "h")
    reader.mistake("elsewhere", "c", "h")
    assert [mistake.line for mistake in reader.mistakes] == [4, 4, 1]


def test_the_same_mistake_is_reported_once() -> None:
    reader = SettingsReader(Path("tower.yaml"))
    reader.mistake("a", "p", "h")
    reader.mistake("a", "p", "h")
    assert reader.mistakes == [Mistake(line=1, key="a", problem="p", hint="h")]


def test_mistakes_are_sorted_by_line_and_named_with_their_file() -> None:
    mistakes = [Mistake(line=line, key="k", problem=f"p{line}", hint="h") for line in (10, 2, 1)]
    error = SettingsError(Path("/etc/line.yaml"), mistakes)
    assert str(error).splitlines() == [f"/etc/line.yaml:{line}: k: p{line}; h" for line in (1, 2, 10)]


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (Declared(help="", low=1, high=8, unit="frames"), "1 to 8 frames"),
        (Declared(help="", low=0.5, high=600), "0.5 to 600"),
        (Declared(help="", low=0, unit="mm"), "0 mm or more"),
        (Declared(help="", pattern_help="an x"), "an x"),
        (Declared(help=""), ""),
    ],
)
def test_bounds_are_said_in_words(about: Declared, words: str) -> None:
    assert about.range() == words


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "yes", "on", "Yes", "ON"])
def test_every_spelling_of_true_that_yaml_knows_is_true(value: str) -> None:
    made, mistakes = read(f"flashing: {value}\n", Lamp)
    assert (made.flashing, mistakes) == (True, [])


@pytest.mark.parametrize("value", ["false", "no", "off", "No", "OFF"])
def test_every_spelling_of_false_that_yaml_knows_is_false(value: str) -> None:
    made, mistakes = read(f"flashing: {value}\n", Lamp)
    assert (made.flashing, mistakes) == (False, [])


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("members: [ann, bob]\n", ("ann", "bob")),
        ("members: [ann]\n", ("ann",)),
        ("members:\n- bob\n- ann\n", ("bob", "ann")),
        ('{"members": ["ann", "7"]}', ("ann", "7")),
        ("members: [0815, no, ~]\n", ("0815", "no", "~")),
    ],
)
def test_a_list_of_names_keeps_its_order_and_each_name_as_it_is_written(text: str, members: tuple[str, ...]) -> None:
    made, mistakes = read(text, Crew)
    assert mistakes == []
    assert made == Crew(members=members)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("ann", "'ann'"),
        ("[]", "a list"),
        ("[ann, '']", "a list"),
        ("[ann, [bob]]", "a list"),
        ("[ann, {bob: 1}]", "a list"),
        ("{ann: 1}", "a group"),
        ("", "an empty value"),
        ("null", "'null'"),
    ],
)
def test_what_is_no_list_of_names_is_refused_with_an_example(value: str, found: str) -> None:
    made, mistakes = read(f"members: {value}\n", Crew)
    assert made is None
    assert mistakes == [f"1: members: {found} is not allowed; give names, such as [ann, bob]"]


def test_a_name_that_is_given_twice_is_refused() -> None:
    _, mistakes = read("members: [ann, bob, ann]\n", Crew)
    assert mistakes == ["1: members: [ann, bob, ann] is not allowed; give each name once"]
    _, mistakes = read(f"members: [{', '.join(['ann'] * 50)}]\n", Crew)
    assert len(mistakes[0]) < 120, "a long list is cut short"


def test_a_list_of_names_may_be_left_out_where_nothing_is_allowed() -> None:
    for text in ("members: [ann]\n", "members: [ann]\nabsent: null\n", "members: [ann]\nabsent:\n"):
        assert read(text, Crew) == (Crew(members=("ann",)), [])
    made, mistakes = read("members: [ann]\nabsent: []\n", Crew)
    assert (made, len(mistakes)) == (None, 1)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_outside_its_bounds_is_ever_accepted(number: float) -> None:
    made, mistakes = read(f"watts: {number!r}\n", Lamp)
    if 1 <= number <= 100:
        assert made.watts == number
    else:
        assert made is None
        assert len(mistakes) == 1


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["red", "7", "no", "~x/"]),
)
_KEYS = st.one_of(st.sampled_from(["line", "cameras", "products", "mqtt", "type", "folder", "port", "<<"]), st.text())
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)


@given(tree=_TREES, cls=st.sampled_from([Tower, Lamp, Crew, Settings]))
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_file_holds_is_read_or_refused_with_a_message(tree: Any, cls: type) -> None:
    made, mistakes = read(yaml.safe_dump(tree, allow_unicode=True), cls)
    assert (made is None) == bool(mistakes)
    assert all("Node(" not in mistake for mistake in mistakes)


@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`#,? \n\t\0\x1b0x"), max_size=40))
@hypothesis_settings(max_examples=300, deadline=None)
def test_whatever_text_a_file_holds_is_read_or_refused_with_a_message(text: str) -> None:
    made, mistakes = read(text, Lamp)
    assert (made is None) == bool(mistakes)
