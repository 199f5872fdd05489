"""What a student's design costs: the whole step, from a picture of 900 px to the score, of each design in one run.

    python tests/bench/students.py --teacher efficientnet_lite0 --precisions float32 int8

Weights are random: time does not depend on them. Engines take turns, one call each a round; ratios of one run count.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

from revdist.bench import subject
from revdist.bench.subject import Subject
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.networks import teacher
from revdist.recipe import BottleneckName, StudentName

OFFICIAL = "official, full"
DESIGNS: dict[str, tuple[StudentName, BottleneckName]] = {
    OFFICIAL: ("official", "full"),
    "slim, full": ("slim", "full"),
    "slim, coarse": ("slim", "coarse"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=teacher.NAMES, default="efficientnet_lite0", metavar="NAME")
    parser.add_argument("--precisions", nargs="+", default=["float32"], metavar="NAME")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    size = (options.size, options.size)
    subjects = {
        name: subject.random(options.teacher, size, design, bottleneck)
        for name, (design, bottleneck) in DESIGNS.items()
    }
    print(
        "| teacher, precision | student | images/s | whole step, times the official design |\n| --- | --- | --- | --- |"
    )
    for precision in options.precisions:
        seconds = measure(subjects, precision, options.batch, options.rounds)
        for name, each in seconds.items():
            ratio = seconds[OFFICIAL] / each
            print(f"| {options.teacher}, {precision} | {name} | {options.batch / each:.1f} | {ratio:.2f} |", flush=True)
    return 0


def measure(subjects: dict[str, Subject], precision: str, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a batch, by design."""
    engines = {}
    for name, each in subjects.items():
        engines[name] = Engine(each.teacher, device="cpu", precision=precision)
        each.add_to(engines[name])
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 2):  # two to warm up
        for name, each in subjects.items():
            large = each.picture(900)
            begun = time.perf_counter()
            engines[name].inspect([images.prepare(large, each.size) for _ in range(batch)], [each.name] * batch)
            if number >= 2:
                spent[name].append(time.perf_counter() - begun)
    return {name: median(each) for name, each in spent.items()}


if __name__ == "__main__":
    sys.exit(main())
