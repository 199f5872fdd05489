"""Runs the commands about a bundle as it is: show, export, bench."""

from __future__ import annotations

import argparse
import json
import sys

from revdist.bench import bench, bench_figures, peers, subject
from revdist.bundle import bundle
from revdist.cli import output, summary
from revdist.errors import RevdistError
from revdist.exchange import export
from revdist.files import folders
from revdist.files.console import FAILED
from revdist.networks.teacher import load


def run_show(options: argparse.Namespace) -> int:
    product_bundle = bundle.read(options.bundle)
    output.show(summary.bundle(product_bundle))
    return 0


def run_export(options: argparse.Namespace) -> int:
    export.check(options.output)
    teacher = load(bundle.read(options.bundle).teacher.name, options.teacher_weights)
    model = export.export(options.bundle, options.output, teacher, batch=options.batch)
    print(model.path)
    if model.difference is None:
        print("not compared with torch: onnxruntime is missing (pip install onnxruntime)")
    else:
        print(
            f"{model.pictures} golden pictures: scores differ from torch's by {model.difference:.1e} at most, relative"
        )
    return 0


def run_bench(options: argparse.Namespace) -> int:
    if (options.bundle is None) == (options.random is None):
        raise RevdistError("bench: name a bundle, or a teacher with --random, and not both")
    if (options.size or options.tile) and options.random is None:
        raise RevdistError("bench: a bundle has its own size", hint="use --size and --tile with --random")
    if (options.student or options.bottleneck) and options.random is None:
        raise RevdistError("bench: a bundle has its own student", hint="use --student and --bottleneck with --random")
    _check_files(options)
    plan = bench.Plan(
        engines=tuple(options.engine),
        device=options.device,
        against=tuple(peers.parse(options.against)),
        batches=options.batches,
        picture=options.picture,
        seconds=options.seconds,
    )
    plan.targets()  # raises its error before the work
    if options.random is None:
        benched_detector = subject.of_bundle(options.bundle, options.teacher_weights)
    else:
        benched_detector = subject.random(
            options.random, options.size, options.student, options.bottleneck, options.tile
        )
    results = bench.bench(benched_detector, plan)
    for error in results.missing:  # reported; the other peers were measured
        print(f"revdist: {error}", file=sys.stderr)
    output.show(bench_figures.table(results))
    if options.json:
        output.write(options.json, json.dumps(bench_figures.to_json(results), indent=1).encode())
    if options.plot:
        output.write(options.plot, bench_figures.chart(results).encode())
    return FAILED if results.missing else 0


def _check_files(options: argparse.Namespace) -> None:
    """Raise RevdistError before the work if --json or --plot names a file that cannot be written."""
    if options.plot and options.plot.suffix != ".svg":
        raise RevdistError(f"{options.plot}: a plot is written as SVG alone", hint="name a file such as speed.svg")
    for path in filter(None, (options.json, options.plot)):
        folders.check_takes_file(path, RevdistError, hint="name another file")
