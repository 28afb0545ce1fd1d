"""What all figures share: colours, lines of methods, bands, files; and the course of a search."""

import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from lcmat.bilevel.lexicographic import best_index, thresholds
from lcmat.files import write_atomically

# Okabe and Ito's colours, which colour-blind eyes tell apart, too; without yellow, which is too pale for lines.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"]
BLUE, ORANGE, GREEN, VERMILLION = COLOURS[:4]
GREY = "0.55"
MARKERS = "os^vDPX"
LINES = ("-", "--", ":", "-.")
# Where a method stands gives its colour (by column) and marker (by row), so that those often shown together differ.
_PLACES = """
LCMat-S     Craig           Herding     GradMatch       Glister         AdaCore         KMedoids
LCMat-C     DC              DSA         DM              KIP             RandomReal      FacilityLocation
EL2N        LBCS            Moderate    GraNd           CCS             Probabilistic   Influential
Dyn-Unc     DUAL            D2          TDDS            EVA             ZCore           RS2
RCAP        Shortened       InfoBatch   Forgetting      GraphCut        LogDeterminant  kCenterGreedy
CAL         DeepFool        Entropy     LeastConfidence Margin          GradMatch-Val   Glister-Val
"""
PLACES = _PLACES.split()
REFERENCES = {
    "Uniform": {"color": "0.35", "marker": "o", "linestyle": "--"},
    "Full": {"color": "0.35", "marker": "*", "linestyle": ":"},
}


def styles(rows: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return colour, marker and line of each row: a method's are those of every figure, its rows differ in the line."""
    found: dict[str, dict[str, str]] = {}
    seen: Counter[str] = Counter()
    for row in rows:
        method = re.split(r" [(\[]", row)[0]
        found[row] = REFERENCES.get(method) or _style(method) | {"linestyle": LINES[seen[method] % len(LINES)]}
        seen[method] += 1
    return found


def _style(method: str) -> dict[str, str]:
    place = PLACES.index(method) if method in PLACES else zlib.crc32(method.encode())
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place // len(COLOURS) % len(MARKERS)]}


def band(mean: Sequence[float], std: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Return mean ± standard deviation, (low, high), of accuracies in per cent: no more than 0 to 100."""
    pairs = [(m, s or 0.0) for m, s in zip(mean, std, strict=True)]
    return [max(0.0, m - s) for m, s in pairs], [min(100.0, m + s) for m, s in pairs]


def legend_outside(figure: plt.Figure, axes: plt.Axes, size: float = 8) -> None:
    """Put the legend of some axes beside all of the figure's, where it covers none."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=size)


def search_figure(trials: list[dict], tolerance: float, title: str, folder: Path, name: str) -> list[Path]:
    """Draw f₁ and f₂ of each trial and of the incumbent against trials, with the threshold of f₁ and the answer.

    trials: as `bilevel.trials.read_trials` returns them. Writes <name>.png and .pdf to `folder`; returns the paths.
    """
    history = [(one["f1"], one["f2"]) for one in trials]
    bounds = [thresholds(history[: t + 1], tolerance)[0] for t in range(len(history))]
    answer = best_index(history, tolerance)
    x = [one["trial"] for one in trials]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for number, axes in enumerate((top, bottom)):
        for accepted, colour, size in ((False, "0.65", 8), (True, BLUE, 14)):
            some = [(one["trial"], one[("f1", "f2")[number]]) for one in trials if one["accepted"] == accepted]
            if some:
                label = "subset tried and accepted" if accepted else "subset tried, not accepted"
                axes.scatter(*zip(*some, strict=True), s=size, color=colour, label=label)
        incumbents = [one["incumbent"][number] if one["incumbent"] else math.nan for one in trials]  # none: restarted
        axes.step(x, incumbents, where="post", color=BLUE, label="incumbent: the last accepted")
        place = {"marker": "*", "s": 120, "color": VERMILLION, "zorder": 3, "label": "answer of the search"}
        axes.scatter([x[answer]], [history[answer][number]], **place)
        axes.grid(alpha=0.3)
    bound = f"(1 + {tolerance:g}) · lowest f₁ so far;\nbelow it the smaller f₂ wins"
    top.plot(x, bounds, color=ORANGE, linestyle="--", linewidth=1.5, label=bound)
    if max(f1 for f1, _ in history) > 10 * bounds[-1]:  # a training diverged
        top.set_yscale("log")
    top.set_ylabel("f₁: loss on the training set")
    top.set_title(f"{title}: {history[answer][1]:,} samples at f₁ = {history[answer][0]:.4f}", fontsize=10)
    legend_outside(figure, top)
    bottom.set_ylabel("f₂: samples chosen")
    bottom.set_xlabel("trial")
    return save_figure(figure, folder, name)


def save_figure(figure: plt.Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as <name>.png and .pdf, close it, and return the paths."""
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "pdf")]
    pixels = _pixels(figure)
    write_atomically(paths[0], lambda file: pixels.save(file, "PNG", optimize=True))
    # No date in the metadata: the same records give the same file.
    write_atomically(paths[1], lambda file: figure.savefig(file, format="pdf", metadata={"CreationDate": None}))
    plt.close(figure)
    return paths


# Colours in a figure without photographs, at most; 256 of them are told from all by no eye, and a third of the file.
DRAWN = 1 << 14


def _pixels(figure: plt.Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    with Image.open(file) as drawn:
        pixels = drawn.convert("RGB")
    if pixels.getcolors(DRAWN) is None:
        return pixels
    return pixels.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
