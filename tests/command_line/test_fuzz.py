"""A few hundred odd inputs, the same each time: each is taken, or refused in one line; none ends in a traceback."""

import copy
import json
import random
import re
from pathlib import Path

import pytest

from lcmat.__main__ import main as lcmat_command
from lcmat.command_line import options
from lcmat.command_line.settings import settings_of
from lcmat.commands import figures, tables
from lcmat.errors import UserError
from lcmat.records import read_record
from tests.harness import TINY, call, places

ODD = (
    None, True, False, -1, 0, 1e308, -1e308, 10**400, 2**63, 0.5, "", "x", "..", "\x1b[31m", "a\0b", "ä" * 5000, [], {},
    [[]], [None], {"": {}}, [1, [2, [3]]], "1", "nan", [[1, 2, 3]],
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a run, and beside it what it chose."""
    folder = tmp_path_factory.mktemp("finished")
    assert call(*TINY, "--selection", "LCMat-S", *places(folder)) == 0
    (path,) = (folder / "result").glob("*/*/*.json")
    return path


def leaves(value: object, where: tuple = ()) -> list[tuple]:
    """Return the places of all values in a nested one."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(place for key, one in inside for place in leaves(one, (*where, key)))]


def changed(record: dict, draw: random.Random) -> dict:
    """Return a record in which one value is another, or absent; its checksum is left out, as in those of before."""
    record = copy.deepcopy(record)
    record.pop("checksum")
    *where, last = draw.choice(leaves(record)[1:])
    inside = record
    for key in where:
        inside = inside[key]
    if draw.random() < 0.2 and isinstance(inside, dict):
        del inside[last]
    else:
        inside[last] = draw.choice(ODD)
    return record


def test_odd_records_break_no_command(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One odd record broke every later command in its folder; now it is named, and left out."""
    draw, record = random.Random(17), json.loads(finished.read_text())
    folder = tmp_path / "result" / finished.parent.parent.name / "LCMat-S"
    folder.mkdir(parents=True)
    (folder / finished.name).write_text(finished.read_text())
    other = {name: value for name, value in record.items() if name != "checksum"} | {"fraction": 0.1}
    (folder / "fraction0.1-seed0-other.json").write_text(
        json.dumps(other | {"config": record["config"] | {"fraction": 0.1}})
    )
    paths = []
    for number in range(300):
        paths.append(folder / f"fraction0.05-seed{number}-odd.json")
        text = json.dumps(changed(record, draw))
        paths[-1].write_text(text if number % 5 else text.replace(": 0", ": NaN", 1))
    for text in ("[" * 100_000, '{"a": 1', "", "\ufeff{}", "null", "9" * 10_000):
        paths.append(folder / f"fraction0.05-seed{len(paths)}-odd.json")
        paths[-1].write_text(text)
    capsys.readouterr()
    for command, words in (
        (tables.main, [tmp_path / "result"]),
        (tables.main, [tmp_path / "result", tmp_path / "result"]),
        (figures.main, [tmp_path / "result"]),
    ):
        assert call(*words, command=command) == 0
        named = capsys.readouterr().err.count("is no whole record; left alone and not counted")
        assert named >= 150, "most of them are no records"
    assert call(*TINY, "--selection", "LCMat-S", "Uniform", *places(tmp_path)) == 0
    assert "already recorded" in capsys.readouterr().out


def test_a_changed_byte_in_a_record_is_noticed_or_is_no_part_of_the_result(finished: Path, tmp_path: Path) -> None:
    draw, content, path = random.Random(14), finished.read_bytes(), tmp_path / finished.name
    expected, noticed = read_record(finished), 0
    for _ in range(300):
        other = bytearray(content)
        other[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(other)
        found = read_record(path)
        noticed += found is None
        for free in ("seconds", "environment"):  # not part of what makes two records the same
            for record in (found or {}, expected):
                record.pop(free, None)
        # A checksum whose own name is damaged is none, as in records of before; what was measured is as it was.
        assert found is None or {**found, **expected} == found
    assert noticed > 150


def test_odd_records_are_no_records(finished: Path, tmp_path: Path) -> None:
    record, path = json.loads(finished.read_text()), tmp_path / finished.name
    record.pop("checksum")
    path.write_text(json.dumps(record))
    assert read_record(path) == record, "those of before had no checksum"
    for change in (
        {"test_accuracy": [1.0]},
        {"needs": True},
        {"config": -1},
        {"indices": "../../other.npz"},
        {"fraction": 0.5},
        {"seconds": {"train": "long"}},
        {"checksum": "0123456789ab"},
    ):
        path.write_text(json.dumps(record | change))
        assert read_record(path) is None, change


PIECES = (
    "epochs", "seed", "selection", "fraction", "dataset", "resume", "option", "save_path", "runs", "vary", "<<", "&a",
    "*a", "!!float", "!!int", "!!binary", "!!set", "!!python/object:os.system", ":", "-", "[", "]", "{", "}", "\n",
    "\n  ", " ", '"', "'", "|", ">", "2026-13-45", "2026-01-01", "1e400", ".nan", ".inf", "~", "null", "yes", "0o17",
    "12:30:45", "#", "%", "\t", "---", "...", "\x00", "é", "9" * 400, "--help", "-1", "? x",
)  # fmt: skip


def outcome(path: Path) -> str | None:
    """Return what is said of a file of flags, or None where it is taken."""
    try:
        options.parse(["--config", str(path)])
    except UserError as error:
        return str(error)
    return None


def test_odd_yaml_is_taken_or_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    draw, path, refused = random.Random(20), tmp_path / "flags.yaml", 0
    for _ in range(300):
        path.write_text(
            "".join(draw.choice(PIECES) + draw.choice(("", " ", ": ")) for _ in range(draw.randrange(1, 12)))
        )
        message = outcome(path)
        refused += message is not None
        assert message is None or str(path) in message
    assert refused > 150
    assert capsys.readouterr().out == "", "nothing is printed, such as --help"


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
YAML = {
    "epochs: 2026-13-45": "none of its kind",
    'lr: !!float ""': "none of its kind",
    "epochs: " + "9" * 5000: "none of its kind|too many digits",
    "[" * 5000: "nested too deeply",
    "epochs: 1\nepochs: 2": "'epochs' is there twice",
    BOMB: "unknown key",
    "selection: [[Uniform]]": "selection takes numbers, words or a list of them, not a list",
    "selection: [Uniform, null]": "selection takes numbers, words or a list of them, not a NoneType",
    "option: {a: 1}": "option takes numbers, words or a list of them, not a dict",
    "selection: [Uniform, --help]": "'--help' cannot be a value of a flag",
    'save_path: "a\\0b"': "cannot be a value of a flag",
    "dataset: !!binary aGVsbG8=": "dataset takes numbers, words or a list of them, not a bytes",
    "epochs: !!python/object/apply:os.system [ls]": "is not valid YAML",
    "? [a, b]\n: 1": "unknown key|not valid YAML",
    "1: 2": "unknown key 1",
    "seed: 010": "'010' is an octal number or a time; put it in quotes",
    "seed: 1:30": "'1:30' is an octal number or a time; put it in quotes",
    "dataset: \xff": "no text in UTF-8",
}


@pytest.mark.parametrize("text", YAML, ids=lambda text: text[:20])
def test_yaml_that_stands_for_odd_values_is_refused_with_a_reason(text: str, tmp_path: Path) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text(text, encoding="latin-1" if "\xff" in text else "utf-8")
    message = outcome(path)
    assert message is not None
    assert re.search(YAML[text], message), message
    assert len(message) < 500


VALUES = (
    "-1", "0", "1", "2147483648", "9" * 20, "9" * 5000, "1e400", "nan", "inf", "-inf", "", " ", "True", "x", "ä",
    "0x10", "1_0", "\x1b[31m", "None", "[1]", "--", "1.5", "10GB", "9" * 500 + "TB", "auto",
)  # fmt: skip


def test_odd_values_of_flags_are_taken_or_refused_in_one_line() -> None:
    parser, draw, refused = options.build_parser(), random.Random(16), 0
    flags = [word for word in parser._option_string_actions if word.startswith("--") and word != "--help"]
    for _ in range(400):
        words = [word for _ in range(draw.randrange(1, 4)) for word in (draw.choice(flags), draw.choice(VALUES))]
        if "--config" not in words:
            try:
                settings_of(options.parse(words, parser))
            except (UserError, OSError):  # the latter for a name that is too long
                refused += 1
    assert refused > 200


GREAT = (
    "memory_per_class", "ipc", "evaluations", "epochs", "snapshots", "initialisations", "threads", "batch", "memory",
    "selection_epochs", "factor",
    "steps", "trials", "seed", "budget", "gpu", "workers", "image_size", "test_interval", "checkpoint_interval",
)  # fmt: skip
WITHOUT_SIZE = [word for word in TINY if word not in ("--fraction", "0.05")]


@pytest.mark.parametrize("flag", GREAT)
@pytest.mark.parametrize("value", ["2147483648000000000000", "9" * 300])
def test_numbers_have_bounds_that_are_said(
    flag: str, value: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """They hung before any message, or overflowed."""
    where = {"factor": ("--selection", "DM"), "ipc": ("--selection", "DM")}  # what these flags are for
    where |= dict.fromkeys(("steps", "memory_per_class"), ("--protocol", "continual"))
    words = TINY if flag not in ("steps", "memory_per_class", "ipc", "factor") else WITHOUT_SIZE
    assert call(*words, *places(tmp_path), *where.get(flag, ()), f"--{flag}", value) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"at most [0-9,]+|1 byte to 1 EiB", line)
    assert f"--{flag}" in line
    assert len(line) < 300


@pytest.mark.parametrize("flag", ["evaluations", "snapshots", "initialisations", "threads"])
def test_the_numbers_that_hung_are_refused_at_once(flag: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert call(*TINY, *places(tmp_path), f"--{flag}", "2147483648") == 2
    assert f"--{flag} must be at most" in capsys.readouterr().err


def test_an_option_that_is_given_twice_is_refused(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """The last held without a word."""
    assert call(*TINY, *places(tmp_path), "--selection", "LCMat-S", "--option", "rho=1", "rho=2") == 2
    assert "--option 'rho' is given twice; leave one out" in capsys.readouterr().err


def test_a_validation_share_that_cannot_be_is_refused_in_own_words(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    words = [*TINY, *places(tmp_path), "--selection", "GradMatch-Val"]
    for ratio in ("1", "1e-9"):
        assert call(*words, "--val_ratio", ratio) == 2
        err = capsys.readouterr().err
        assert "both parts need samples of each of the 10 classes, of 1,297 in all; give another --val_ratio" in err
        assert "test_size" not in err


def test_a_title_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "g.yaml"
    path.write_text('title: "\\e[31mred"\nruns: {dataset: digits, model: MLP, selection: Uniform, fraction: 0.05}\n')
    assert call("grid", path, "--plan", *places(tmp_path), command=lcmat_command) == 0
    assert capsys.readouterr().out.startswith("red: 1 runs")


def test_options_have_bounds(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    words = ["--selection", "LBCS", "--option", f"LBCS.trials={10**30}"]
    assert call(*TINY, *places(tmp_path), *words) == 2
    assert "LBCS: trials must be at most 1,000,000,000,000" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["...npz", "..txt", "a|b.txt", "\x1b[31m.txt"])
def test_the_record_of_a_subset_lies_where_records_lie(name: str, tmp_path: Path) -> None:
    """The stem of "...npz" is "..", a folder too high."""
    from cross_network_generalization import main

    path = tmp_path / name
    path.write_text("\n".join(map(str, range(40))))
    words = [*TINY, *places(tmp_path), "--subset", str(path), "--test_models", "MLP"]
    assert call(*words, command=main) == 0
    (record,) = (tmp_path / "result").rglob("fraction*.json")
    assert len(record.relative_to(tmp_path / "result").parts) == 3
    assert read_record(record) is not None
    assert call(*words, command=main) == 0
