"""Turns the figures of a bench into JSON for programs, a table for a terminal and a chart; computes the ratios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from revdist.bench.bench import Bench, Row
from revdist.bench.machine import CONVOLUTION, MATMUL
from revdist.report import speeds
from revdist.report.markup import Markup

_QUIET = 0.1  # largest share of the processors' time that other programs may take
_GOAL = 0.85  # share of the network's time that its operations take at the best convolution's rate


def to_json(results: Bench) -> dict[str, Any]:
    """Return all figures of a bench; times are in milliseconds."""
    plan = results.plan
    return {
        "subject": results.subject,
        "teacher": results.teacher,
        "size": list(results.size),
        "gigaoperations": results.operations / 1e9,
        "picture": plan.picture,
        "batches": list(plan.batches),
        "seconds": plan.seconds,
        "machine": results.machine,
        "rates": [asdict(rate) for rate in results.rates],
        "rows": [_row(results, row) for row in results.rows],
        "reference": results.reference,
        "ratios": ratios(results),
        "differences": [asdict(difference) for difference in results.differences],
        "missing": [str(error) for error in results.missing],
    }


def _row(results: Bench, row: Row) -> dict[str, Any]:
    network = row.network_per_picture
    p50, p99 = (1e3 * float(quantile) for quantile in np.quantile(row.calls, (0.5, 0.99)))
    return {
        "name": row.name,
        "batch": row.batch,
        "pictures": row.pictures,
        "rounds": len(row.calls),
        "p50_ms": p50,
        "p99_ms": p99,
        "calls_ms": [1e3 * seconds for seconds in row.calls],
        "images_per_second": 1 / row.per_picture,
        "network_ms": None if network is None else 1e3 * network * row.pictures,
        "networks_ms": [1e3 * seconds for seconds in row.networks],
        "of_matmul": share(results, row, MATMUL),
        "of_convolution": share(results, row, CONVOLUTION),
    }


def share(results: Bench, row: Row, kind: str) -> float | None:
    """Divide the time that the network's operations take at the best rate of this kind by the time that they took."""
    network = row.network_per_picture
    for rate in results.rates:
        if network is not None and (rate.precision, rate.kind) == (row.precision, kind):
            return results.operations / rate.operations_per_second / network
    return None


def ratios(results: Bench) -> list[dict[str, Any]]:
    """Compare every engine and peer with the first peer: how many times as fast is it for one picture?

    One ratio is from the rounds of batch 1, the other from the batch size at which the engine or peer is fastest.
    A peer that takes one picture at a time does the same work in the rounds of all batch sizes: all its calls count.
    """
    if not results.reference:
        return []
    at_batch_1 = {row.name: row.per_picture for row in results.rows if row.batch == 1}
    best = {name: best_of(results, name) for name in dict.fromkeys(row.name for row in results.rows)}
    return [
        {
            "name": name,
            "batch_1": at_batch_1[results.reference] / at_batch_1[name]
            if {name, results.reference} <= at_batch_1.keys()
            else None,
            "best": best[results.reference][1] / per_picture,
            "best_batch": pictures,
        }
        for name, (pictures, per_picture) in best.items()
    ]


def best_of(results: Bench, name: str) -> tuple[int, float]:
    """Return the pictures of a call at which this engine or peer is fastest, and its median seconds for a picture."""
    calls: dict[int, list[float]] = {}
    for row in results.rows:
        if row.name == name:
            calls.setdefault(row.pictures, []).extend(row.calls)
    medians = {pictures: float(np.median(seconds)) / pictures for pictures, seconds in calls.items()}
    return min(medians.items(), key=lambda pair: pair[1])


def table(results: Bench) -> Iterator[str]:
    """Yield the lines of the table that a terminal shows."""
    size, host = f"{results.size[0]}x{results.size[1]}", results.machine
    yield f"{results.subject}: {results.teacher}, {size} pixels, {results.operations / 1e9:.1f} GFLOP a picture"
    yield f"a call: from pictures of {results.plan.picture} px square to scores; network: teacher and student alone"
    yield f"{host['processor']}, {host['cores']} cores, {host['threads']} threads, GPU {host['gpu'] or 'none'}"
    busy = "unknown" if host["elsewhere"] is None else f"{host['elsewhere']:.0%}"
    yield f"load {host['load_before'][0]:.1f} before, {host['load_after'][0]:.1f} after; other programs took {busy}"
    if (host["elsewhere"] or 0.0) > _QUIET:
        yield "THE MACHINE IS BUSY: these figures say little; measure again when the other programs have ended"
    yield ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    yield ""
    yield from _aligned(_HEADS, [_cells(_row(results, row)) for row in results.rows])
    for rate in results.rates:
        yield f"best {rate.precision} {rate.kind}: {rate.operations_per_second / 1e9:.0f} GFLOP/s ({rate.what})"
    yield f"of conv: time of the operations at that rate, over the network's time; goal {_GOAL:.0%} or more"
    if results.reference:
        yield ""
        heads = ["times as fast as " + results.reference, "batch 1", "best", "at batch"]
        yield from _aligned(heads, [_ratio(ratio) for ratio in ratios(results)])
    for gap in results.differences:
        yield (
            f"{gap.name} and the paper's loop differ by {gap.map:.1e} in the map, {gap.score:.1e} in the score "
            f"(relative, largest of {gap.pictures} pictures)"
        )


_HEADS = ["", "batch", "a call", "rounds", "p50 ms", "p99 ms", "images/s", "network ms", "of matmul", "of conv"]


def _cells(row: dict[str, Any]) -> list[str]:
    network = row["network_ms"]
    return [
        row["name"],
        *(str(row[name]) for name in ("batch", "pictures", "rounds")),
        *(f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms", "images_per_second")),
        "-" if network is None else f"{network:.1f}",
        *("-" if row[name] is None else f"{row[name]:.0%}" for name in ("of_matmul", "of_convolution")),
    ]


def _ratio(ratio: dict[str, Any]) -> list[str]:
    at_batch_1 = "-" if ratio["batch_1"] is None else f"{ratio['batch_1']:.2f}"
    return [ratio["name"], at_batch_1, f"{ratio['best']:.2f}", str(ratio["best_batch"])]


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for label, *rest in (heads, *rows):
        cells = [label.ljust(widths[0]), *(text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def chart(results: Bench) -> Markup:
    """Draw the milliseconds a picture of every engine and peer, at its best batch size and at the smallest."""
    rows = []
    for name in dict.fromkeys(row.name for row in results.rows):
        smallest = next(row for row in results.rows if row.name == name)  # rows come in order of batch size
        pictures, best = best_of(results, name)
        note = f"{1e3 * best:.1f} ms at batch {pictures}; {1e3 * smallest.per_picture:.1f} at {smallest.pictures}"
        rows.append(
            speeds.Speed(
                name=name,
                best_ms=1e3 * best,
                first_ms=1e3 * smallest.per_picture,
                note=note,
                ours=bool(smallest.precision),
            )
        )
    size = f"{results.size[0]}x{results.size[1]} pixels"
    title = f"{results.subject}: {results.teacher} at {size}, {results.machine['processor']}"
    return speeds.drawing(rows, title)
