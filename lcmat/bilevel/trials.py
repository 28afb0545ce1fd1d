"""A search for the smallest set that keeps the performance, and its trials: one line of JSON each, kept as they come.

Everything random in a search has a seed, so the values that a file of trials holds are all it takes to go on from it:
the search is gone through again, without the trainings.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lcmat.alive import Progress
from lcmat.bilevel.lexicographic import Objectives, Rules, State, ask, best_index, initial_state, is_nondominated, tell
from lcmat.errors import UserError
from lcmat.expected import fields, of, optional, problem, real, row, whole
from lcmat.files import check_regular, write_text
from lcmat.journal import note
from lcmat.training import DivergedError

# Fewer samples than this cannot be trained on, for BatchNorm.
LEAST = 2
# f₁ as the released code counts it: of a set of forbidden size at least the first, of a diverged training the second.
FORBIDDEN, DIVERGED = 1000.0, 10_000.0
# A search is at its end when so many proposals in a row are of no set that is new and allowed.
IDLE = 1000


class TrialFile:
    """The trials of one search in a file: a line that says which search it is, then a line for each trial."""

    def __init__(self, path: Path, search: dict[str, object], resume: bool) -> None:
        """Begin a file, or go on with what it holds already if `resume`. Raises UserError if it is another search's.

        Where it holds less, `resume` begins with what the files beside it hold of the same search: one that is to be
        longer than another was has a file of its own.
        """
        self.path, self.kept = Path(path), []
        if resume and self.path.exists():
            found, self.kept = read_trials(self.path)
            if found != search:
                raise UserError(f"{path} holds the trials of another search; remove it or leave --resume out")
        if resume:
            self.kept = max(self.kept, *_of_the_same(search, self.path.parent), key=len)
        # Written anew, so that nothing is appended to half a line.
        write_text(self.path, _line(search) + "".join(map(_line_of_trial, self.kept)))

    def append(self, trial: dict[str, object]) -> None:
        """Add a trial, safe from then on. Raises OSError that names the file."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line_of_trial(trial))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _of_the_same(search: dict[str, object], folder: Path) -> list[list[dict]]:
    """Return the trials of the same search that files in a folder hold."""
    found = [[]]
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(UserError):  # no file of trials
            of, trials = read_trials(path)
            found += [trials] if of == search else []
    return found


# What a line of a file holds of a trial.
TRIAL = fields(
    {"trial": whole(1), "f1": real(), "f2": whole(0)},
    {"accepted": of(bool), "incumbent": optional(row(real(), whole(0))), "untrained": whole(0), "seconds": real(0)},
)


def read_trials(path: Path) -> tuple[dict, list[dict]]:
    """Return the search and its trials up to the first line that is not whole. Raises UserError for another file.

    What follows such a line is said to be left out; the last line may be cut off, where the search was killed.
    """
    try:
        check_regular(path)
        lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}") from None
    search = _parsed(lines[0]) if lines else None
    if search is None or "tolerance" not in search:
        raise UserError(f"{path} is no file of trials; name one that a search wrote beside its record")
    trials = []
    for line in lines[1:]:
        trial = _parsed(line)
        if trial is None or problem(trial, TRIAL) is not None or trial["trial"] != len(trials) + 1:
            if len(trials) + 2 < len(lines):
                warnings.warn(f"{path}: line {len(trials) + 2} is damaged; what follows is left out", stacklevel=2)
            break
        trials.append(trial)
    return search, trials


def _line(value: dict[str, object]) -> str:
    return json.dumps(value, allow_nan=False) + "\n"


def _line_of_trial(trial: dict[str, object]) -> str:
    return _line(trial | {"crc32": _checksum(trial)})


def _checksum(value: dict[str, object]) -> int:
    """Return a checksum of a trial but for its seconds, so that equal searches have equal lines but for these."""
    rest = {name: one for name, one in value.items() if name not in ("seconds", "crc32")}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _parsed(line: str) -> dict | None:
    """Return the object in a line, or None if that is cut off or damaged; lines of before had no checksum."""
    try:
        value = json.loads(line) if line.endswith("\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.pop("crc32", _checksum(value)) != _checksum(value):
        return None
    return value


def refine(
    objective: Callable[[Tensor, int], float],
    start: Tensor,
    rules: Rules,
    *,
    seed: int,
    trials: int,
    limit: int | None = None,
    repeatable: bool = True,
    file: TrialFile | None = None,
) -> Tensor:
    """Return the positions of the smallest set found whose f₁ is within the tolerance of the best one, ascending.

    objective: called with the positions chosen (ascending, of the start's device) and the number of the trial, from 0;
    returns f₁, the loss after a training. f₂ is the number chosen. start: m₀ (n,) in [−1, 1], of a size that is
    allowed. trials: T, the trainings. limit: sets of so many samples or more are refused, and so are those of fewer
    than two. repeatable: whether f₁ depends on the set alone, so that no set need be trained on twice in a row.
    Raises DivergedError if no training ends in a loss below DIVERGED.
    """
    state, front = initial_state(start, rules), []
    bar = Progress(total=trials, desc="LBCS")
    for trial in range(trials):
        state, point, untrained = advanced(state, rules, seed, limit, repeatable)
        if point is None:
            warnings.warn(
                f"{IDLE} moves in a row made no other set of an allowed size: LBCS ends after {trial} of {trials} "
                f"trials; give it a larger step",
                stacklevel=2,
            )
            break
        chosen = (point >= 0).nonzero()[:, 0]
        kept = file.kept[trial] if file is not None and trial < len(file.kept) else None
        if kept is not None and kept["f2"] != len(chosen):
            raise UserError(f"{file.path}: trial {trial + 1} is none of this search; remove it or leave --resume out")
        started = time.monotonic()
        f1 = objective(chosen, trial) if kept is None else kept["f1"]
        value = (min(f1, DIVERGED) if math.isfinite(f1) else DIVERGED, len(chosen))
        state = tell(state, point, value, rules, seed)
        front = _joined(front, value, chosen)
        if file is not None and kept is None:
            file.append(_described(trial, value, state, untrained, time.monotonic() - started))
        bar.update()
        best = state.value or (None, None)
        note("LBCS", trial + 1, loss=value[0], size=value[1], incumbent_loss=best[0], incumbent_size=best[1])
        if state.value is not None:  # else the search has just restarted
            bar.set_postfix(loss=f"{state.value[0]:.4f}", size=state.value[1])
    bar.close()
    if front and min(f1 for (f1, _), _ in front) >= DIVERGED:
        raise DivergedError("every training of LBCS diverged; lower inner_lr")
    return front[best_index([value for value, _ in front], rules.tolerance)][1]


def advanced(
    state: State, rules: Rules, seed: int, limit: int | None, repeatable: bool
) -> tuple[State, Tensor | None, int]:
    """Go on to the next proposal that needs a training.

    Returns the state, the point to train on, or None where there is none in IDLE proposals, and how many came before.
    """
    for untrained in range(IDLE):
        point = ask(state, rules, seed)
        value = known(state, point, limit, repeatable)
        if value is None:
            return state, point, untrained
        state = tell(state, point, value, rules, seed)
    return state, None, IDLE


def known(state: State, point: Tensor, limit: int | None, repeatable: bool) -> Objectives | None:
    """Return the value of a point that needs no training: one of forbidden size, or with the incumbent's mask.

    Of forbidden size, the loss is 1000 + 1000 (excess)², as in the released code.
    """
    mask = point >= 0
    size = int(mask.sum())
    excess = LEAST - size if size < LEAST else size - limit if limit is not None and size >= limit else None
    if excess is not None:
        return FORBIDDEN + FORBIDDEN * excess**2, size
    same = repeatable and state.value is not None and torch.equal(mask, state.incumbent >= 0)
    return state.value if same else None


def _described(trial: int, value: Objectives, state: State, untrained: int, seconds: float) -> dict[str, object]:
    """Return a trial's line; after a restart the incumbent is a point that is yet to be trained on."""
    return {
        "trial": trial + 1,
        "f1": value[0],
        "f2": value[1],
        "accepted": state.success == len(state.history),
        "incumbent": None if state.value is None else list(state.value),
        "untrained": untrained,
        "seconds": round(seconds, 3),
    }


def _joined(front: list[tuple[Objectives, Tensor]], value: Objectives, chosen: Tensor) -> list:
    """Return the sets that may turn out to be the answer, with a new one: those that no other one dominates."""
    if not is_nondominated([v for v, _ in front], value):
        return front
    return [(v, c) for v, c in front if is_nondominated([value], v)] + [(value, chosen)]
