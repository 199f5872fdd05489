"""Turns a YAML file into groups of settings, and collects all mistakes with their lines, for a person to see at once.

settings.py declares the type and bounds of each setting, and complaints.py checks them. This module knows YAML: the
line of each key, and what the author means by `yes`, `07` or `"5"`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from rejectd.contract import complaints
from rejectd.contract.complaints import LONGEST, Complaint, Seen
from rejectd.contract.fields import Declared, Group, declared, is_optional, kind
from rejectd.contract.messages import RejectdError

_BOOL, _INT, _NULL = (f"tag:yaml.org,2002:{tag}" for tag in ("bool", "int", "null"))
_HALF = "[\ud800-\udfff]"  # of a character


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


class SettingsReader:
    """Turns the nodes of one YAML file into groups of settings and collects the mistakes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.mistakes: list[Mistake] = []
        self.lines: dict[str, int] = {}
        self.groups: dict[str, Any] = {}  # by key, only groups without a mistake
        self._entries_of_node: dict[yaml.Node, dict[str, tuple[int, yaml.Node]]] = {}
        self._loader: yaml.SafeLoader | None = None

    def root(self, text: str) -> yaml.Node | None:
        """Parse the text. Returns None if it is empty or has a syntax error, which is noted like any mistake."""
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

    def group(self, cls: type[Group], node: yaml.Node, key: str = "") -> Any:
        """Turn a YAML mapping into a group; None if there is any mistake in it."""
        entries = self._entries(node, key)
        if entries is None:
            return None
        before = len(self.mistakes)
        values: dict[str, Any] = {}
        for name, (line, value_node) in entries.items():
            if name in cls.model_fields:
                self.lines[_join(key, name)] = line
                values[name] = self._value(cls.model_fields[name], value_node, _join(key, name))
            elif not (name == "type" and hasattr(cls, "type")):
                values[name] = None
        mistaken_keys = {mistake.key for mistake in self.mistakes[before:]}
        group = complaints.build(cls, values, lambda name: _seen(entries[name][1]))
        if isinstance(group, list):
            for complaint in group:
                place = _join(key, complaint.name)
                if not any(mistaken == place or mistaken.startswith(f"{place}.") for mistaken in mistaken_keys):
                    self._add(_line(complaint, cls, entries, node), place, complaint.problem, complaint.hint)
            self.mistakes[before:] = sorted(self.mistakes[before:], key=lambda mistake: mistake.line)
        if isinstance(group, list) or len(self.mistakes) > before:
            return None
        self.groups[key] = group
        return group

    def _entries(self, node: yaml.Node, key: str) -> dict[str, tuple[int, yaml.Node]] | None:
        """The keys of a mapping with their lines and values; None after a mistake. A repeated key is a mistake."""
        if not isinstance(node, yaml.MappingNode):
            shown = _shown(node)
            text = str(getattr(node, "value", ""))
            colon = isinstance(node, yaml.ScalarNode) and re.match(r"[a-z_]+:\S", text)
            hint = "put a space after the colon" if colon else "write `name: value` lines, indented below the key"
            self._add(node.start_mark.line + 1, key or "file", f"{shown} is not a group of settings", hint)
            return None
        if node in self._entries_of_node:  # merged keys are in it already
            return self._entries_of_node[node]
        first_lines: dict[str, int] = {}
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
            if name in first_lines:
                self._add(
                    line, _join(key, name), f"is given twice, first in line {first_lines[name]}", "keep one of the two"
                )
            first_lines.setdefault(name, line)
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
        self._entries_of_node[node] = {str(name.value): (name.start_mark.line + 1, value) for name, value in node.value}
        return self._entries_of_node[node]

    def _value(self, field: FieldInfo, node: yaml.Node, key: str) -> Any:
        """The value that the author of a node means, for the model to check; None if it was refused here already."""
        setting_type = kind(field)
        if is_optional(field) and node.tag == _NULL:
            return None
        if typing.get_origin(setting_type) is dict:
            return self._named(typing.get_args(setting_type)[1], node, key)
        if isinstance(setting_type, type) and issubclass(setting_type, Group):
            return self.group(setting_type, node, key)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(setting_type, node, key, declared(field))
        if typing.get_origin(setting_type) is tuple and isinstance(node, yaml.SequenceNode):
            item_type = int if typing.get_args(setting_type)[-1] is not Ellipsis else str
            return tuple(_item(item_type, value) for value in node.value)
        return {}

    def _named(self, hint: Any, node: yaml.Node, key: str) -> Any:
        """Read a mapping from names to groups. If groups of several types are allowed, their `type` says which."""
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

    def _scalar(self, wanted: Any, node: yaml.ScalarNode, key: str, about: Declared) -> Any:
        raw = node.value
        if isinstance(wanted, type) and issubclass(wanted, StrEnum):
            return _option(wanted, raw)
        if wanted is bool:
            return raw.lower() in ("true", "yes", "on") if node.tag == _BOOL else raw
        if wanted in (int, float):
            return _number(wanted, node)
        if node.tag in (_BOOL, _NULL) or not raw.strip():
            return None if node.tag in (_BOOL, _NULL) else raw
        if wanted is Path:
            return self._path(node, key)
        relative = about.relative and "://" not in raw and not re.search(_HALF, raw)
        return str(self._path(node, key)) if relative else raw

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

    def _wrong(self, node: yaml.Node, key: str, shown_value: str | None, hint: str) -> Any:
        """Note a mistake in a value. Returns None in place of the value; its group is not built then."""
        problem = "is missing" if shown_value is None else f"{shown_value} is not allowed"
        self._add(node.start_mark.line + 1, key, problem, hint)
        return None

    def _add(self, line: int, key: str, problem: str, hint: str) -> None:
        mistake = Mistake(line=line, key=key, problem=problem, hint=hint)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)


def _syntax_hint(problem: str) -> str:
    """The most likely cause of a complaint of the YAML parser, as a hint."""
    hints = {
        "\\t": "indent with spaces, not tabs",
        "mapping values": "is the line indented right? put a text with a colon in quotes",
        "expected ','": "is a bracket or quote left open in or above this line?",
        "another document": "remove the line ---",
    }
    return next((hint for part, hint in hints.items() if part in problem), "see the example config/line.yaml")


def _line(wrong: Complaint, cls: type[Group], entries: dict[str, tuple[int, yaml.Node]], group: yaml.Node) -> int:
    """The line of a complaint: that of the value, of the unknown name, or of the group in which a field is missing."""
    if wrong.name not in entries:
        return group.start_mark.line + 1
    line, value = entries[wrong.name]
    return value.start_mark.line + 1 if wrong.name in cls.model_fields else line


def _option(wanted: type[StrEnum], raw: str) -> Any:
    try:
        return wanted(raw.lower())
    except ValueError:
        return raw


def _number(wanted: Any, node: yaml.ScalarNode) -> Any:
    """The number in a node; its text if the author wrote no number, but a quoted text, a truth value or the like."""
    if node.style is not None or node.tag == _BOOL:
        return node.value
    try:
        return wanted(node.value)
    except ValueError:
        return node.value


def _item(wanted: type, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        return None
    return _number(int, node) if wanted is int and node.tag == _INT else str(node.value)


def _seen(node: yaml.Node) -> Seen:
    """A value as it stands in the file."""
    raw = str(node.value)
    if isinstance(node, yaml.SequenceNode):
        items = (item.value if isinstance(item, yaml.ScalarNode) else _shown(item) for item in node.value)
        raw = f"[{', '.join(items)}]" if node.value else ""
    return Seen(
        shown=_shown(node),
        raw=raw,
        quoted=isinstance(node, yaml.ScalarNode) and node.style is not None,
        several=not isinstance(node, yaml.ScalarNode),
        as_text=f'YAML does not read this as text; put it in quotes: "{raw}"',
    )


def _shown(node: yaml.Node) -> str:
    """A value as it stands in the file, cut short."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a group"
    text = str(node.value)
    return repr(text if len(text) <= LONGEST else text[:LONGEST] + "...") if text else "an empty value"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
