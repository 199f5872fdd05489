"""Runs the paper's code beside ours on the same weights and pictures, and prints how far they are apart.

    python tests/bench/parity.py --rd4ad CHECKOUT [--write]

CHECKOUT is a clone of github.com/hq-deng/RD4AD. `--write` keeps the official numbers for the tests.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets  # noqa: F401 - the official code does, and it minds the empty modules below
from ground import report
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import parity
from photographs import photographs

from revdist.bench.official_loop import Empty
from revdist.evaluation import evaluate

NETWORKS = {"resnet18": 128, "resnet34": 64, "resnet50": 64, "wide_resnet50_2": 64}  # and the input's side


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rd4ad", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    official = Official(options.rd4ad)
    theirs = {name: official.run(name, side) for name, side in NETWORKS.items()}
    if options.write:
        parity.GOLDEN.write_text(json.dumps(theirs, separators=(",", ":")) + "\n")
    sys.path.insert(0, str(Path(__file__).parents[1] / "revdist"))
    ours = importlib.import_module("test_parity")
    rows = []
    for name, side in NETWORKS.items():
        for what, value in ours.differences(name, side, theirs[name]).items():
            rows.append({"network": name, "input": side, "what": what, "largest relative difference": f"{value:.1e}"})
    report(rows, None)
    return 0


class Official:
    """The official modules. What they import for plots and data sets alone is not needed, and stands empty."""

    def __init__(self, checkout: Path) -> None:
        for name in ("dataset", "matplotlib", "matplotlib.pyplot", "matplotlib.ticker", "pandas"):
            sys.modules.setdefault(name, Empty(name))
        sys.path.insert(0, str(checkout))
        self._resnet, self._de_resnet = importlib.import_module("resnet"), importlib.import_module("de_resnet")
        sys.modules.pop("test", None)  # the standard library has one too
        self._test, self._main = importlib.import_module("test"), importlib.import_module("main")
        sys.path.remove(str(checkout))

    def run(self, name: str, side: int) -> dict[str, Any]:
        """The official numbers of a network."""
        encoder, bottleneck = getattr(self._resnet, name)(pretrained=False)
        decoder = getattr(self._de_resnet, f"de_{name}")(pretrained=False)
        for module in (encoder, bottleneck, decoder):
            parity.fill(module)
        pixels = evaluate.read_prepared(photographs(0)[:8], (side, side))
        seen = parity.batch(pixels[:2])
        for module in (encoder, bottleneck, decoder):
            module.eval()
        with torch.no_grad():
            taught = encoder(seen)
            embedded = bottleneck(taught)
            rebuilt = decoder(embedded)
        named = {f"f{row}": each for row, each in enumerate(taught, 1)} | {"z": embedded}
        named |= {f"d{row}": each for row, each in enumerate(rebuilt, 1)}
        found: dict[str, Any] = {key: parity.sketch(each) for key, each in named.items()}
        map_, _ = self._test.cal_anomaly_map([each[:1] for each in taught], [each[:1] for each in rebuilt], side, "a")
        smoothed = gaussian_filter(map_, sigma=4)
        found["map"] = parity.sketch(torch.from_numpy(smoothed))
        found["score"] = float(np.max(smoothed))
        found["loss"] = float(self._main.loss_fucntion(taught, rebuilt))
        return found | self._train(encoder.double(), bottleneck.double(), decoder.double(), parity.STEPS[name])

    def _train(self, encoder: Any, bottleneck: Any, decoder: Any, steps: int) -> dict[str, Any]:
        """The official loop: the losses, and weights and statistics after the first step."""
        pixels = evaluate.read_prepared(photographs(0)[:8], (parity.SIDE, parity.SIDE))
        optimiser = torch.optim.Adam(
            list(decoder.parameters()) + list(bottleneck.parameters()), lr=0.005, betas=(0.5, 0.999)
        )
        bottleneck.train()
        decoder.train()
        losses, found = [], {}
        for step in range(steps):
            shown = [pixels[row] for row in parity.rows(step, len(pixels), 4)]
            inputs = encoder(parity.batch(shown, torch.float64))
            loss = self._main.loss_fucntion(inputs, decoder(bottleneck(inputs)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if step == 0:
                found["weights after a step"] = parity.sketch(parity.weights_of([decoder, bottleneck]))
                found["statistics after a step"] = parity.sketch(parity.statistics_of([decoder, bottleneck]))
        return found | {"losses": losses}


if __name__ == "__main__":
    sys.exit(main())
