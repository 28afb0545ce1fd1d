"""How a command line begins: help at once, and Ctrl-C as later while what it needs is imported."""

import functools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import ROOT, TINY, places


@pytest.mark.parametrize("words", [["main.py"], ["-m", "lcmat"], ["cross_network_generalization.py"]])
def test_help_imports_nothing_that_takes_seconds(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0
    assert "--dataset" in done.stdout or "benchmark" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "scipy", "sklearn", "matplotlib", "datasets", "PIL", "yaml"}
    assert imported & {"argparse", "ast"}


def test_a_wrong_flag_is_said_before_anything_is_imported() -> None:
    words = [sys.executable, "-X", "importtime", "main.py", "--epoch", "3"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="how far an import is shows in /proc")
@pytest.mark.parametrize("loaded", ["_multiarray_umath", "libc10.so", "libtorch_python.so"])
def test_ctrl_c_while_libraries_are_imported(loaded: str, tmp_path: Path) -> None:
    """Interrupted in the middle, NumPy and torch failed in ways of their own, with 50 lines."""
    process = subprocess.Popen(
        [sys.executable, "main.py", *TINY, *places(tmp_path), "--epochs", "100000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a test's own may be ignored
    )
    while process.poll() is None and loaded not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == "main.py: interrupted; the same command goes on with --resume\n"
