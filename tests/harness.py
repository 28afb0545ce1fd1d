"""What tests of every wing share: where the project lies, and its command lines, called in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import main
from lcmat.command_line import run_command_line

ROOT = Path(__file__).resolve().parent.parent
# Sets values by name for the rest of a test.
Setting = Callable[..., object]
# Digits, a perceptron and one epoch: a run of a fraction of a second, the same on every machine but for rounding.
TINY = (
    *("--dataset", "digits", "--model", "MLP", "--fraction", "0.05", "--selection_epochs", "1", "--epochs", "1"),
    *("--test_interval", "0", "--device", "cpu", "--precision", "float32", "--threads", "1"),
)


def places(folder: Path) -> list[str]:
    """Return the flags that put records and caches below a folder."""
    return ["--save_path", str(folder / "result"), "--cache_path", str(folder / "cache")]


def call(*words: object, command: Callable[[list[str]], int] = main.main) -> int:
    """Call main.py, or another command line, as a process of its own would, and return its exit status."""
    return run_command_line(command, [str(word) for word in words])


def cli(folder: Path, command: Callable[[list[str]], int] = main.main) -> Callable[..., list[dict]]:
    """Return main.py, or a script that takes its flags, as a function of further flags.

    It runs a tiny setting, which the flags change, below the folder, and returns all records that are there then.
    """

    def run(*flags: object) -> list[dict]:
        assert call(*TINY, "--data_path", folder / "data", *places(folder), *flags, command=command) == 0
        return records(folder / "result")

    return run


def records(folder: Path, pattern: str = "*/*/*.json") -> list[dict]:
    """Return every record below a result folder, by the order of their files' names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]


def records_in(folder: Path, pattern: str = "*/*/*.json") -> dict[str, dict]:
    """Return every record below a result folder by its file, but for what may differ between two equal runs."""
    names = (str(path.relative_to(folder)) for path in sorted(folder.glob(pattern)))
    return {name: without_times(record) for name, record in zip(names, records(folder, pattern), strict=True)}


def without_times(record: dict) -> dict:
    """Return a record without seconds and environment: "the same record" in tests is all the rest."""
    return {name: value for name, value in record.items() if name not in ("seconds", "environment")}
