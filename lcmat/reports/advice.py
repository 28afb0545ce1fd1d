"""Which method to use, from records alone: who was separable from Uniform, where, by how much and at what cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scipy import stats

from lcmat.reports.page.settings import BASELINE, Setting
from lcmat.reports.separability import LEVEL, holm
from lcmat.reports.tables import Cell, Paired, Table, paired

# With fewer seeds nothing is claimed.
FEWEST_SEEDS = 3
# LCMat trains on a subset for so many epochs, and the literature on learned images; what has fewer is a short schedule.
USUAL_EPOCHS, USUAL_OF_LEARNED = 200, 1000


@dataclass(frozen=True)
class Compared:
    """A method at a fraction beside Uniform: the difference, Holm's corrected p, and the seconds of choosing.

    seconds: medians over seeds, of f_T and its signals, and of the choice.
    """

    name: str
    against: Paired
    p: float
    seconds: tuple[float, float]

    @property
    def side(self) -> int:
        """1 better than Uniform, −1 worse, 0 not separable."""
        return 0 if self.p >= LEVEL else 1 if self.against.mean > 0 else -1

    @property
    def in_words(self) -> str:
        """Name, difference in percentage points with its 95% interval, and seconds of the choice."""
        return f"{self.name} {self.against.mean:+.1f} ± {self.against.half:.1f} ({_seconds(self.seconds[1])})"


def advice(settings: Iterable[Setting]) -> str:
    """Return in Markdown what the settings say of each fraction, then what that comes to."""
    parts, better, worse, silent = [], {}, {}, 0
    for setting in settings:
        lines = []
        for fraction, uniform, here in compared(setting.table):
            lines.append(_line(fraction, uniform, here))
            where = f"{setting.dataset} {_percent(fraction)}"
            for one in here:
                found = {1: better, -1: worse}.get(one.side)
                if found is not None:
                    found.setdefault(one.name, []).append(where)
            silent += not any(one.side for one in here)
        if lines:
            parts.append(f"## {setting.title}\n\n{_setting(setting.table)}\n\n" + "\n".join(lines) + "\n")
    return "\n".join([_summary(better, worse, silent), *parts]) if parts else ""


def compared(table: Table) -> Iterator[tuple[float, Cell, list[Compared]]]:
    """Yield each fraction with Uniform's cell and the methods that have three seeds or more in common with it."""
    for fraction in table.fractions:
        uniform = table.cells.get((BASELINE, fraction))
        if uniform is None:
            continue
        found = []
        for name in table.methods:
            cell = table.cells.get((name, fraction))
            against = None if cell is None or name in (BASELINE, "Full") else paired(cell, uniform)
            if against is not None and against.count >= FEWEST_SEEDS:
                found.append((name, cell, against))
        p = holm([_p(cell, uniform) for _, cell, _ in found])
        rows = [Compared(n, a, p, _cost(c)) for (n, c, a), p in zip(found, p, strict=True)]
        if rows:
            yield fraction, uniform, sorted(rows, key=lambda one: -one.against.mean)


def _p(cell: Cell, other: Cell) -> float:
    """Return the p of the paired t-test over common seeds."""
    values, others = cell.by_seed, other.by_seed
    differences = [values[seed] - others[seed] for seed in values if seed in others]
    if len(set(differences)) == 1:  # no spread: equal accuracies say nothing, and one difference always the same all
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _cost(cell: Cell) -> tuple[float, float]:
    seconds = [record["seconds"] for record in cell.records]
    network = statistics.median(one.get("pretrain", 0.0) + one.get("signals", 0.0) for one in seconds)
    return network, statistics.median(one.get("select", 0.0) for one in seconds)


def _line(fraction: float, uniform: Cell, here: list[Compared]) -> str:
    said = []
    for side, word in ((1, "better"), (-1, "worse")):
        some = [one.in_words for one in here if one.side == side]
        said += [f"**{word}**: {', '.join(some)}"] if some else []
    rest = [f"{one.name} ({_seconds(one.seconds[1])})" for one in here if not one.side]
    said += [f"not separable: {', '.join(rest)}"] if rest else []
    counts = sorted({one.against.count for one in here})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"- {_percent(fraction)} (Uniform {statistics.fmean(uniform.final):.1f}%, {seeds} seeds): {'; '.join(said)}"


def _setting(table: Table) -> str:
    """Say how networks were trained, whether that is short, and what f_T took."""
    cells = list(table.cells.values())
    records = [record for cell in cells for record in cell.records]
    learned = any("condensing" in record["config"] for record in records)
    length = _length(records[0]["config"].get("training", {}), USUAL_OF_LEARNED if learned else USUAL_EPOCHS)
    given = any("pretrained_sha256" in (r["config"].get("selection_network") or {}) for r in records)
    one = " One given f_T: it says nothing of others." if given else ""
    costs = [_cost(cell)[0] for cell in cells if _cost(cell)[0]]
    network = f" f_T and signals: {_seconds(statistics.median(costs))}, which methods share." if costs else ""
    return f"{length}{one}{network}"


def _length(training: dict, usual: int) -> str:
    if training.get("total_steps"):
        return f"Trained {training['total_steps']:,} steps."
    epochs = training.get("epochs")
    if epochs is None:
        return "Trained as long as the record does not say."
    short = f", a short schedule (published: {usual})" if epochs < usual else ""
    return f"Trained {epochs} epochs{short}."


def _summary(better: dict[str, list[str]], worse: dict[str, list[str]], silent: int) -> str:
    def told(found: dict[str, list[str]]) -> str:
        order = sorted(found, key=lambda name: (-len(found[name]), name))
        rows = [f"{name} {len(found[name])} ({_places(found[name])})" for name in order]
        return "; ".join(rows) or "none"

    return (
        f"Final test accuracy against Uniform's, seed by seed. Separable: p < {LEVEL:g} by a paired t-test, corrected "
        f"(Holm) for the methods of a setting and fraction; {FEWEST_SEEDS} seeds at least. In brackets: median seconds "
        f"of the choice, on the machine of the record, without f_T.\n\n"
        f"In how many settings and fractions a method was better than Uniform: {told(better)}.\n\n"
        f"Worse: {told(worse)}.\n\nNothing separable: {silent} settings and fractions.\n"
    )


def _places(several: list[str]) -> str:
    counts = {place: several.count(place) for place in dict.fromkeys(several)}
    return ", ".join(place if count == 1 else f"{place} ×{count}" for place, count in counts.items())


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 0.1 else "below 0.1 s"
