"""Files of trials: a line each, and a killed search that goes on bit for bit."""

import json
import math
from pathlib import Path

import pytest
from torch import Tensor

from lcmat.bilevel.lexicographic import Rules
from lcmat.bilevel.trials import TrialFile, read_trials, refine
from lcmat.errors import UserError
from tests import oracles
from tests.searches import SEARCH, Killed, searched, start_of, without_seconds

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


def test_each_trial_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    searched(path)
    search, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert search == SEARCH
    assert [one["trial"] for one in lines] == list(range(1, 31))
    names = {"trial", "f1", "f2", "accepted", "incumbent", "untrained", "seconds", "crc32"}
    assert all(set(one) == names for one in lines)
    incumbent = None
    for one in lines:
        incumbent = [one["f1"], one["f2"]] if one["accepted"] else incumbent
        assert one["incumbent"] == incumbent
        assert one["seconds"] >= 0
    assert lines[0]["accepted"]
    assert 1 < sum(one["accepted"] for one in lines) < 30


@pytest.mark.parametrize("dies_at", [0, 1, 2, 7, 29])
def test_a_killed_search_goes_on_bit_for_bit(dies_at: int, tmp_path: Path) -> None:
    expected = searched(tmp_path / "whole" / "t.jsonl")
    with pytest.raises(Killed):
        searched(tmp_path / "killed.jsonl", dies_at=dies_at)
    assert len(read_trials(tmp_path / "killed.jsonl")[1]) == dies_at
    calls = []
    assert searched(tmp_path / "killed.jsonl", resume=True, calls=calls) == expected
    assert calls == list(range(dies_at, 30)), "trials were made twice, or left out"
    assert without_seconds(tmp_path / "killed.jsonl") == without_seconds(tmp_path / "whole" / "t.jsonl")
    calls.clear()
    assert searched(tmp_path / "killed.jsonl", resume=True, calls=calls) == expected
    assert calls == []


RESTARTING = Rules(0.2, 1.0, least_step=0.5, stall_limit=1)


def restarting(path: Path, resume: bool = False, dies_at: int | None = None) -> tuple[list[int], dict]:
    """Make a search whose step falls below the least one again and again; return its answer and what it trained on."""
    tried = {}

    def objective(chosen: Tensor, trial: int) -> float:
        if trial == dies_at:
            raise Killed
        value = 1 + math.sin(float((chosen + 1).sum())) ** 2
        tried[tuple(chosen.tolist())] = value
        return value

    file = TrialFile(path, SEARCH, resume)
    return refine(objective, start_of(40, 20), RESTARTING, seed=5, trials=60, file=file).tolist(), tried


def test_a_search_that_restarts_goes_on_to_its_last_trial(tmp_path: Path) -> None:
    """The point after a restart is unknown until its training, which is then accepted; the answer is that of all."""
    found, tried = restarting(tmp_path / "t.jsonl")
    lines = read_trials(tmp_path / "t.jsonl")[1]
    assert len(lines) == 60
    restarts = [number for number, one in enumerate(lines[:-1]) if one["incumbent"] is None]
    assert len(restarts) > 1
    assert not any(lines[number]["accepted"] for number in restarts)
    for after in (lines[number + 1] for number in restarts if lines[number + 1]["untrained"] == 0):
        assert after["accepted"]
        assert after["incumbent"] == [after["f1"], after["f2"]]
    bound = 1.2 * min(tried.values())
    assert len(found) == min(len(chosen) for chosen, value in tried.items() if value <= bound)
    assert tried[tuple(found)] <= bound


@pytest.mark.parametrize("dies_at", [1, 7, 8, 9, 27, 59])
def test_a_killed_search_that_restarts_goes_on_bit_for_bit(dies_at: int, tmp_path: Path) -> None:
    expected, _ = restarting(tmp_path / "whole" / "t.jsonl")
    with pytest.raises(Killed):
        restarting(tmp_path / "killed.jsonl", dies_at=dies_at)
    assert restarting(tmp_path / "killed.jsonl", resume=True)[0] == expected
    assert without_seconds(tmp_path / "killed.jsonl") == without_seconds(tmp_path / "whole" / "t.jsonl")


@pytest.mark.parametrize("rest", ["half", "whole but for its end", "noise", "another number"])
def test_half_lines_are_ignored(rest: str, tmp_path: Path) -> None:
    expected = searched(tmp_path / "whole" / "t.jsonl")
    text = (tmp_path / "whole" / "t.jsonl").read_text()
    lines = text.splitlines(keepends=True)
    end = {
        "half": lines[11][:20],
        "whole but for its end": lines[11].rstrip("\n"),
        "noise": "\0\0\0\0\n" + lines[11],
        "another number": lines[12],
    }[rest]
    (tmp_path / "cut.jsonl").write_text("".join(lines[:11]) + end)
    assert len(read_trials(tmp_path / "cut.jsonl")[1]) == 10
    calls = []
    assert searched(tmp_path / "cut.jsonl", resume=True, calls=calls) == expected
    assert calls == list(range(10, 30))
    assert without_seconds(tmp_path / "cut.jsonl") == without_seconds(tmp_path / "whole" / "t.jsonl")


def test_a_file_is_begun_anew_unless_the_search_is_to_go_on(tmp_path: Path) -> None:
    calls = []
    searched(tmp_path / "t.jsonl")
    searched(tmp_path / "t.jsonl", calls=calls)
    assert len(calls) == 30
    assert len(read_trials(tmp_path / "t.jsonl")[1]) == 30


def test_other_searches_and_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    searched(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"t\.jsonl holds the trials of another search"):
        TrialFile(path, {**SEARCH, "search": "abd"}, resume=True)
    assert path.read_bytes() == before
    lines = path.read_text().splitlines(keepends=True)
    changed = json.loads(lines[4]) | {"f2": 1}
    del changed["crc32"]  # as in files of before
    path.write_text("".join([*lines[:4], json.dumps(changed) + "\n", *lines[5:]]))
    with pytest.raises(UserError, match="trial 4 is none of this search"):
        searched(path, resume=True)
    for content in (b"", b"\xff\xfe", b"[]\n", b"{}\n", b"not json\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"t\.jsonl"):
            TrialFile(path, SEARCH, resume=True)
