"""A setting is declared once; parser, error text, example and reference page all come from that declaration.

A group of settings is a frozen dataclass whose fields are made by `setting`. `Reader` turns YAML nodes into such
groups and collects every mistake with its place in the file, so that a person sees all of them at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from rejectd.contract.messages import RejectdError

_BOOL, _INT, _NULL = (f"tag:yaml.org,2002:{tag}" for tag in ("bool", "int", "null"))
_LONGEST = 40  # characters of a wrong value that a message shows


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a person needs to know about one setting."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    pattern: str = ""
    pattern_help: str = ""
    relative: bool = False  # a text without :// is a path, relative to the settings file
    example: str = ""  # what the example file shows for a setting without default

    def range(self) -> str:
        """The allowed values in words, empty if there is no bound."""
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}{unit}"
        return f"{self.low:g}{unit} or more" if self.low is not None else self.pattern_help


def setting(help: str, *, default: Any = dataclasses.MISSING, **declared: Any) -> Any:  # noqa: A002
    """Declare one setting; without `default` it is required."""
    metadata = {"declared": Declared(help=help, **declared)}
    if isinstance(default, (dict, list)) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def declared(field: dataclasses.Field[Any]) -> Declared:
    """The declaration of a field made by `setting`."""
    found: Declared = field.metadata["declared"]
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in a settings file."""

    line: int
    key: str
    problem: str
    hint: str

    def __str__(self) -> str:
        return f"{self.line}: {self.key}: {self.problem}; {self.hint}"


class SettingsError(RejectdError):
    """Every mistake of a settings file."""

    def __init__(self, file: Path, mistakes: list[Mistake]) -> None:
        ordered = sorted(mistakes, key=lambda mistake: (mistake.line, mistake.key))
        super().__init__("\n".join(f"{file}:{mistake}" for mistake in ordered))
        self.mistakes = ordered


class Reader:
    """Turns the nodes of one YAML file into groups of settings and collects the mistakes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.mistakes: list[Mistake] = []
        self.lines: dict[str, int] = {}
        self.groups: dict[str, Any] = {}  # by key, those without a mistake
        self._known: dict[yaml.Node, dict[str, tuple[int, yaml.Node]]] = {}
        self._loader: yaml.SafeLoader | None = None

    def root(self, text: str) -> yaml.Node | None:
        """Parse the text; a syntax error is a mistake like any other."""
        try:
            self._loader = yaml.SafeLoader(text)
            node = self._loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self._add(line, "syntax", f"not YAML: {error.problem}", _syntax_hint(str(error.problem)))
            return None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._add(line, "syntax", f"holds the character #x{error.character:04x}", "is this a text file? remove it")
            return None
        except RecursionError:
            self._add(1, "syntax", "nested too deeply", "see the example config/line.yaml")
            return None
        if node is None:
            self._add(1, "file", "is empty", "start from the example config/line.yaml")
        return node

    def mistake(self, key: str, problem: str, hint: str) -> None:
        """Note a mistake at a key that has been read, or at its nearest parent."""
        place = key
        while place not in self.lines and "." in place:
            place = place.rpartition(".")[0]
        self._add(self.lines.get(place, 1), key, problem, hint)

    def group(self, cls: type, node: yaml.Node, key: str = "") -> Any:
        """One dataclass from one mapping; None if anything in it is wrong."""
        entries = self._entries(node, key)
        if entries is None:
            return None
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        before = len(self.mistakes)
        for name, (line, _) in entries.items():
            if name not in fields and not (name == "type" and hasattr(cls, "type")):
                close = difflib.get_close_matches(name, fields, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(fields)}"
                self._add(line, _join(key, name), "unknown setting", hint)
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in entries:
                line, value_node = entries[name]
                self.lines[_join(key, name)] = line
                values[name] = self._value(hints[name], value_node, _join(key, name), declared(field))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                hint = f"add `{name}:`. {declared(field).help}"
                self._add(node.start_mark.line + 1, _join(key, name), "is missing", hint)
        if len(self.mistakes) > before:
            return None
        self.groups[key] = cls(**values)
        return self.groups[key]

    def _entries(self, node: yaml.Node, key: str) -> dict[str, tuple[int, yaml.Node]] | None:
        """The keys of a mapping with their lines; twice the same key is a mistake."""
        if not isinstance(node, yaml.MappingNode):
            found = _shown(node)
            text = str(getattr(node, "value", ""))
            colon = isinstance(node, yaml.ScalarNode) and re.match(r"[a-z_]+:\S", text)
            hint = "put a space after the colon" if colon else "write `name: value` lines, indented below the key"
            self._add(node.start_mark.line + 1, key or "file", f"{found} is not a group of settings", hint)
            return None
        if node in self._known:  # merged keys are in it already
            return self._known[node]
        seen: dict[str, int] = {}
        for name_node, _ in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self._add(
                    name_node.start_mark.line + 1,
                    key or "file",
                    f"{_shown(name_node)} is not a name",
                    "write `name: value`",
                )
                return None
            name, line = str(name_node.value), name_node.start_mark.line + 1
            if name in seen:
                self._add(line, _join(key, name), f"is given twice, first in line {seen[name]}", "keep one of the two")
            seen.setdefault(name, line)
        assert self._loader is not None
        try:
            self._loader.flatten_mapping(node)
        except yaml.constructor.ConstructorError as error:
            mark = error.problem_mark or node.start_mark
            self._add(
                mark.line + 1,
                _join(key, "<<"),
                "merges what is not a group",
                "name an anchor, `<<: *name`",
            )
            return None
        self._known[node] = {str(name.value): (name.start_mark.line + 1, value) for name, value in node.value}
        return self._known[node]

    def _value(self, hint: Any, node: yaml.Node, key: str, about: Declared) -> Any:
        optional = type(None) in typing.get_args(hint)
        if optional and node.tag == _NULL:
            return None
        wanted = typing.get_args(hint)[0] if optional else hint
        if typing.get_origin(wanted) in (dict, Mapping):
            return self._named(typing.get_args(wanted)[1], node, key)
        if typing.get_origin(wanted) is tuple:
            if typing.get_args(wanted)[-1] is Ellipsis:
                return self._names(node, key, about)
            return self._numbers(len(typing.get_args(wanted)), node, key, about)
        if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
            return self.group(wanted, node, key)
        if not isinstance(node, yaml.ScalarNode):
            return self._wrong(node, key, "a group or list", f"give one value. {about.help}")
        return self._scalar(wanted, node, key, about)

    def _named(self, hint: Any, node: yaml.Node, key: str) -> Any:
        """A mapping from names to groups; a union of groups is told apart by its `type`."""
        entries = self._entries(node, key)
        if entries is None:
            return None
        if not entries:
            return self._wrong(node, key, None, "name at least one")
        choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        named: dict[str, Any] = {}
        for name, (line, entry) in entries.items():
            self.lines[_join(key, name)] = line
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                self._add(line, _join(key, name), "is not a usable name", "use 1 to 64 letters, digits, - and _")
            cls = choices[0] if len(choices) == 1 else self._choose(choices, entry, _join(key, name))
            named[name] = self.group(cls, entry, _join(key, name)) if cls else None
        return named

    def _choose(self, choices: tuple[Any, ...], node: yaml.Node, key: str) -> Any:
        entries = self._entries(node, key)
        if entries is None:
            return None
        kinds = {str(choice.type): choice for choice in choices}
        if "type" not in entries:
            return self._wrong(node, f"{key}.type", None, f"add `type:`, one of {', '.join(kinds)}")
        line, value = entries["type"]
        if str(value.value) not in kinds:
            self._add(line, f"{key}.type", f"{_shown(value)} is not known", f"choose one of {', '.join(kinds)}")
        return kinds.get(str(value.value))

    def _names(self, node: yaml.Node, key: str, about: Declared) -> Any:
        """A list of names, each of them once."""
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        names = tuple(str(item.value) for item in items if isinstance(item, yaml.ScalarNode) and item.value)
        if not names or len(names) != len(items):
            return self._wrong(node, key, _shown(node), f"give {about.pattern_help}")
        if len(set(names)) < len(names):
            return self._wrong(node, key, f"[{', '.join(names)}]"[:_LONGEST], "give each name once")
        return names

    def _numbers(self, count: int, node: yaml.Node, key: str, about: Declared) -> Any:
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        try:
            numbers = tuple(int(item.value) for item in items if item.tag == _INT)
        except (TypeError, ValueError):
            numbers = ()
        if len(items) != count or len(numbers) != count:
            shown = f"[{', '.join(str(item.value) for item in items)}]" if items else _shown(node)
            return self._wrong(node, key, shown[:_LONGEST], f"give {count} whole numbers, {about.pattern_help}")
        if min(numbers) < 0:
            return self._wrong(node, key, str(list(numbers)), "no number may be negative")
        return numbers

    def _scalar(self, wanted: Any, node: yaml.ScalarNode, key: str, about: Declared) -> Any:
        raw = node.value
        shown = _shown(node)
        if isinstance(wanted, type) and issubclass(wanted, StrEnum):
            options = [str(option) for option in wanted]
            try:
                return wanted(raw.lower())
            except ValueError:
                return self._wrong(node, key, shown, f"choose {', '.join(options)}")
        if wanted is bool:
            good = node.tag == _BOOL
            return (
                raw.lower() in ("true", "yes", "on")
                if good
                else self._wrong(node, key, shown, "give true or false, without quotes")
            )
        if wanted in (int, float):
            return self._number(wanted, node, key, about)
        if node.tag in (_BOOL, _NULL):
            hint = f'YAML does not read this as text; put it in quotes: "{raw}"' if raw else about.help
            return self._wrong(node, key, shown, hint)
        if not raw.strip():
            return self._wrong(node, key, shown, about.help)
        if about.pattern and not re.fullmatch(about.pattern, raw):
            return self._wrong(node, key, shown, about.pattern_help)
        if wanted is Path:
            return self._path(node, key)
        if not about.pattern and re.search("[\ud800-\udfff]", raw):
            return self._wrong(node, key, shown, "it holds half a character; write it out")
        return str(self._path(node, key)) if about.relative and "://" not in raw else raw

    def _path(self, node: yaml.ScalarNode, key: str) -> Path | None:
        """A path relative to the settings file."""
        try:
            if "\0" in node.value:
                raise RuntimeError  # noqa: TRY301 - ends in the same advice
            os.fsencode(node.value)
            return (self.file.parent / Path(node.value).expanduser()).absolute()
        except (RuntimeError, UnicodeEncodeError):  # of half a character, which YAML can write
            self._wrong(node, key, _shown(node), "write the path out")
            return None

    def _number(self, wanted: type, node: yaml.ScalarNode, key: str, about: Declared) -> Any:
        raw = node.value
        kind = "a whole number" if wanted is int else "a number"
        try:
            if node.style is not None or node.tag == _BOOL:
                raise ValueError  # noqa: TRY301 - quoted numbers and truth values end in the same advice
            value = int(raw) if wanted is int else float(raw)
        except ValueError:
            quotes = " without quotes" if node.style is not None else ""
            return self._wrong(node, key, _shown(node), f"give {kind}{quotes}, {about.range()}")
        low, high = about.low, about.high
        if value != value or (low is not None and value < low) or (high is not None and value > high):
            return self._wrong(node, key, raw[:_LONGEST], f"give {about.range()}")
        return value

    def _wrong(self, node: yaml.Node, key: str, found: str | None, hint: str) -> Any:
        """Note a mistake in a value and stand in for it with None; the group is not made then."""
        problem = "is missing" if found is None else f"{found} is not allowed"
        self._add(node.start_mark.line + 1, key, problem, hint)
        return None

    def _add(self, line: int, key: str, problem: str, hint: str) -> None:
        mistake = Mistake(line=line, key=key, problem=problem, hint=hint)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)


def _syntax_hint(problem: str) -> str:
    """What most often lies behind a complaint of the YAML parser."""
    hints = {
        "\\t": "indent with spaces, not tabs",
        "mapping values": "is the line indented right? put a text with a colon in quotes",
        "expected ','": "is a bracket or quote left open in or above this line?",
        "another document": "remove the line ---",
    }
    return next((hint for part, hint in hints.items() if part in problem), "see the example config/line.yaml")


def _shown(node: yaml.Node) -> str:
    """A value as it stands in the file, cut short."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a group"
    text = str(node.value)
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "...") if text else "an empty value"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
