"""Winograd's transforms (winograd.py) in LLVM's language: what winograd_transforms.py compiles and calls.

A function goes through tiles of 4x4 pixels, row by row, and through the channels of each, some at once. Its names stand
for addresses and numbers: `%given`, `%found`, `%channels` and others are the arguments.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Sequence

SIDE, PLACES = 4, 6  # outputs and inputs along a side of a tile
NAME = "transform"  # of each function
TEAM = "omp_get_thread_num", "omp_get_num_threads"  # functions that it calls


class Kind(enum.Enum):
    """What is transformed."""

    INPUTS = enum.auto()
    OUTPUTS = enum.auto()
    SUMS = enum.auto()  # outputs, to which a map is added


class Arguments(ctypes.Structure):
    """What a function is given the address of."""

    _fields_ = (
        ("given", ctypes.c_void_p),
        ("found", ctypes.c_void_p),
        ("other", ctypes.c_void_p),
        ("channels", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("rows", ctypes.c_int64),  # of tiles, of all pictures
        ("least", ctypes.c_float),
        ("most", ctypes.c_float),
    )


def text(kind: Kind, width: int, *, half: bool, alone: bool) -> str:
    """A function that transforms.

    `width`: channels at once; `half`: maps are bfloat16; `alone`: there is no team of threads that share the rows.
    """
    lines = [
        f"define i32 @{each}() {{ ret i32 {value} }}" if alone else f"declare i32 @{each}()"
        for value, each in enumerate(TEAM)  # number 0 of 1
    ]
    function = _Function(width, half=half)
    lines += function.of_inputs() if kind is Kind.INPUTS else function.of_outputs(adds=kind is Kind.SUMS)
    return "\n".join(lines)


class _Function:
    """Writes one function: a loop over the rows of tiles that are this thread's, their tiles, and channels."""

    def __init__(self, width: int, *, half: bool) -> None:
        self._width, self._half = width, half
        self._vector, self._narrow, self._wide = (f"<{width} x {kind}>" for kind in ("float", "i16", "i32"))
        self._element = "i16" if half else "float"  # of maps
        self._lines: list[str] = []
        self._count = 0

    def of_inputs(self) -> list[str]:
        """Its lines for inputs, as `winograd_transforms.of_inputs` describes."""
        self._open()
        inputs = self._inputs()
        tile = self._do("mul i64 %tile, " + self._do(f"mul i64 {PLACES**2}, %channels"))
        self._each_channel()
        seen = [[self._seen(pointer) for pointer in row] for row in inputs]
        high = list(zip(*[self._places(column) for column in zip(*seen, strict=True)], strict=True))
        at = self._do(f"add i64 {tile}, %channel")
        for values in high:
            for value in self._places(values):
                self._store(value, self._do(f"getelementptr float, ptr %found, i64 {at}"))
                at = self._do(f"add i64 {at}, %channels")
        return self._close()

    def of_outputs(self, *, adds: bool) -> list[str]:
        """Its lines for outputs, as `winograd_transforms.of_outputs` describes."""
        self._open()
        tile = self._do("mul i64 %tile, " + self._do(f"mul i64 {PLACES**2}, %channels"))
        places = self._outputs()
        least, most = self._splat("least"), self._splat("most")
        self._each_channel()
        at = self._do(f"add i64 {tile}, %channel")
        made: list[list[str]] = [[] for _ in range(PLACES)]
        for row in made:
            for _ in range(PLACES):
                row.append(self._load(self._do(f"getelementptr float, ptr %given, i64 {at}")))
                at = self._do(f"add i64 {at}, %channels")
        low = list(zip(*[self._sides(column) for column in zip(*made, strict=True)], strict=True))
        for values, starts in zip(low, places, strict=True):
            for value, start in zip(self._sides(values), starts, strict=True):
                place = self._do(f"add i64 {start}, %channel")
                if adds:
                    other = self._seen_at(self._do(f"getelementptr {self._element}, ptr %other, i64 {place}"))
                    total = self._add(value, other, 1)
                kept = self._cut(self._cut(total if adds else value, "olt", least), "ogt", most)
                self._show(kept, self._do(f"getelementptr {self._element}, ptr %found, i64 {place}"))
        return self._close()

    def _open(self) -> None:
        """To where a tile begins."""
        self._lines += [f"define void @{NAME}(ptr %arguments) {{", "begin:"]
        for field, kind in Arguments._fields_:
            offset = getattr(Arguments, field).offset
            self._lines.append(f"%{field}.at = getelementptr i8, ptr %arguments, i64 {offset}")
            of = {ctypes.c_void_p: "ptr", ctypes.c_int64: "i64", ctypes.c_float: "float"}[kind]
            self._lines.append(f"%{field} = load {of}, ptr %{field}.at")
        self._lines += [
            f"%high = sdiv i64 %height, {SIDE}",  # tiles
            f"%wide = sdiv i64 %width, {SIDE}",
            "%number = call i32 @omp_get_thread_num()",
            "%threads = call i32 @omp_get_num_threads()",
            "%me = sext i32 %number to i64",
            "%all = sext i32 %threads to i64",
            "%next = add i64 %me, 1",
            "%mine = mul i64 %rows, %me",
            "%others = mul i64 %rows, %next",
            "%first = sdiv i64 %mine, %all",
            "%end = sdiv i64 %others, %all",
            "%any = icmp slt i64 %first, %end",
            "br i1 %any, label %rows.loop, label %done",
            "rows.loop:",
            "%row = phi i64 [ %first, %begin ], [ %row.next, %rows.next ]",
            "%picture = sdiv i64 %row, %high",
            "%above = srem i64 %row, %high",
            "%before = mul i64 %row, %wide",
            f"%top.here = mul i64 %above, {SIDE}",
            "%pictures = mul i64 %picture, %height",
            "br label %tiles.loop",
            "tiles.loop:",
            "%column = phi i64 [ 0, %rows.loop ], [ %column.next, %tiles.next ]",
            "%tile = add i64 %before, %column",
            f"%left.here = mul i64 %column, {SIDE}",
        ]

    def _inputs(self) -> list[list[str]]:
        """Addresses of the 6x6 inputs of a tile: in the map, or in the border."""
        found = []
        for i in range(PLACES):
            y = self._do(f"add i64 %top.here, {i - 1}")
            inside_y = self._do(f"icmp ult i64 {y}, %height")
            line = self._do("mul i64 %width, " + self._do(f"add i64 %pictures, {y}"))
            row = []
            for j in range(PLACES):
                x = self._do(f"add i64 %left.here, {j - 1}")
                inside = self._do(f"and i1 {inside_y}, " + self._do(f"icmp ult i64 {x}, %width"))
                at = self._do("mul i64 %channels, " + self._do(f"add i64 {line}, {x}"))
                pointer = self._do(f"getelementptr {self._element}, ptr %given, i64 {at}")
                row.append(self._do(f"select i1 {inside}, ptr {pointer}, ptr %other"))
            found.append(row)
        return found

    def _outputs(self) -> list[list[str]]:
        """Where the 4x4 outputs of a tile begin in the map."""
        found = []
        for i in range(SIDE):
            y = self._do("add i64 %pictures, " + self._do(f"add i64 %top.here, {i}"))
            line = self._do(f"mul i64 %width, {y}")
            row = []
            for j in range(SIDE):
                x = self._do(f"add i64 {line}, " + self._do(f"add i64 %left.here, {j}"))
                row.append(self._do(f"mul i64 %channels, {x}"))
            found.append(row)
        return found

    def _each_channel(self) -> None:
        self._lines += [
            "br label %channels.loop",
            "channels.loop:",
            "%channel = phi i64 [ 0, %tiles.loop ], [ %channel.next, %channels.loop ]",
        ]

    def _close(self) -> list[str]:
        return [
            *self._lines,
            f"%channel.next = add i64 %channel, {self._width}",
            "%channel.more = icmp slt i64 %channel.next, %channels",
            "br i1 %channel.more, label %channels.loop, label %tiles.next",
            "tiles.next:",
            "%column.next = add i64 %column, 1",
            "%column.more = icmp slt i64 %column.next, %wide",
            "br i1 %column.more, label %tiles.loop, label %rows.next",
            "rows.next:",
            "%row.next = add i64 %row, 1",
            "%row.more = icmp slt i64 %row.next, %end",
            "br i1 %row.more, label %rows.loop, label %done",
            "done:",
            "ret void",
            "}",
        ]

    def _places(self, x: Sequence[str]) -> list[str]:
        """Six inputs along a side -> six places."""
        even, odd = self._add(x[4], x[2], -4), self._add(x[3], x[1], -4)
        near, far = self._add(x[4], x[2], -1), self._add(x[3], x[1], -1)
        return [
            self._add(self._add(x[4], x[2], -5), x[0], 4),
            self._add(even, odd, 1),
            self._add(even, odd, -1),
            self._add(near, far, 2),
            self._add(near, far, -2),
            self._add(self._add(x[5], x[3], -5), x[1], 4),
        ]

    def _sides(self, x: Sequence[str]) -> list[str]:
        """Six places -> four outputs along a side."""
        near, far = self._add(x[1], x[2], 1), self._add(x[3], x[4], 1)
        odd, wide = self._add(x[1], x[2], -1), self._add(x[3], x[4], -1)
        return [
            self._add(self._add(near, far, 1), x[0], 1),
            self._add(odd, wide, 2),
            self._add(near, far, 4),
            self._add(self._add(odd, wide, 8), x[5], 1),
        ]

    def _add(self, x: str, y: str, times: int) -> str:
        """X + times * y, rounded once where the processor can."""
        if abs(times) == 1:
            return self._do(f"{'fadd' if times > 0 else 'fsub'} contract {self._vector} {x}, {y}")
        product = self._do(f"fmul contract {self._vector} {y}, {self._all('float', f'{times:.1f}')}")
        return self._do(f"fadd contract {self._vector} {x}, {product}")

    def _splat(self, name: str) -> str:
        one = self._do(f"insertelement {self._vector} poison, float %{name}, i64 0")
        return self._do(
            f"shufflevector {self._vector} {one}, {self._vector} poison, <{self._width} x i32> zeroinitializer"
        )

    def _seen(self, pointer: str) -> str:
        """Some channels of a map."""
        return self._seen_at(self._do(f"getelementptr {self._element}, ptr {pointer}, i64 %channel"))

    def _seen_at(self, pointer: str) -> str:
        if not self._half:
            return self._load(pointer)
        bits = self._do(f"load {self._narrow}, ptr {pointer}, align 2")
        bits = self._do(f"zext {self._narrow} {bits} to {self._wide}")
        bits = self._integers("shl", bits, 16)
        return self._do(f"bitcast {self._wide} {bits} to {self._vector}")

    def _show(self, value: str, pointer: str) -> None:
        """Some channels of a map, rounded to the nearest, ties to even."""
        if not self._half:
            self._store(value, pointer)
            return
        bits = self._do(f"bitcast {self._vector} {value} to {self._wide}")
        last = self._integers("and", self._integers("lshr", bits, 16), 1)
        more = self._integers("add", last, 0x7FFF)
        rounded = self._integers("lshr", self._do(f"add {self._wide} {bits}, {more}"), 16)
        none = self._do(f"fcmp uno {self._vector} {value}, {value}")  # not a number: rounded it could be one
        other = f"{self._wide} {self._all('i32', 0x7FC0)}"
        kept = self._do(f"select <{self._width} x i1> {none}, {other}, {self._wide} {rounded}")
        kept = self._do(f"trunc {self._wide} {kept} to {self._narrow}")
        self._lines.append(f"store {self._narrow} {kept}, ptr {pointer}, align 2")

    def _cut(self, value: str, beyond: str, limit: str) -> str:
        """The limit where the value is beyond it; what is not a number stays that."""
        cut = self._do(f"fcmp {beyond} {self._vector} {value}, {limit}")
        return self._do(f"select <{self._width} x i1> {cut}, {self._vector} {limit}, {self._vector} {value}")

    def _integers(self, what: str, value: str, other: int) -> str:
        return self._do(f"{what} {self._wide} {value}, {self._all('i32', other)}")

    def _all(self, kind: str, value: object) -> str:
        """A vector of the same numbers."""
        return "<" + ", ".join([f"{kind} {value}"] * self._width) + ">"

    def _load(self, pointer: str) -> str:
        return self._do(f"load {self._vector}, ptr {pointer}, align 4")

    def _store(self, value: str, pointer: str) -> None:
        self._lines.append(f"store {self._vector} {value}, ptr {pointer}, align 4")

    def _do(self, what: str) -> str:
        """An instruction, and the name of its result."""
        self._count += 1
        self._lines.append(f"%v{self._count} = {what}")
        return f"%v{self._count}"
