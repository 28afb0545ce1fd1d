"""Two processes of torchrun on one training or pass, against one process alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lcmat import distributed
from lcmat.files import load_checkpoint
from tests import together
from tests.harness import ROOT, TINY, call, places, records_in
from tests.networks import TinyNet

# The order of sums differs: a share's gradients are summed first, and then the processes'.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def torchrun(*words: object) -> subprocess.CompletedProcess:
    """Run a script or module by two processes of one thread on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def lines(done: subprocess.CompletedProcess) -> list[str]:
    """Return the lines that our programs print on stderr, of all that torchrun does."""
    return [line for line in done.stderr.splitlines() if "error: " in line and "torch" not in line]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What one process finds, and what two find."""
    path = tmp_path_factory.mktemp("together") / "found.pt"
    done = torchrun("-m", "tests.together", path)
    assert done.returncode == 0, done.stderr
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = together.results()
    torch.set_num_threads(before)
    return alone, load_checkpoint(path, lambda _: None)


@pytest.mark.parametrize("name", together.TRAININGS)
def test_two_processes_train_to_the_weights_of_one(both: tuple[dict, dict], name: str) -> None:
    """A network without BatchNorm, whatever its batches go through; what is noted of each sample is the same, too."""
    alone, two = (found[name] for found in both)
    assert alone["weights"].keys() == two["weights"].keys()
    for key, value in alone["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, **CLOSE)
    assert two["history"]["tests"] == alone["history"]["tests"]
    assert two["history"]["images"] == alone["history"]["images"]
    assert two["history"]["train_accuracy"] == alone["history"]["train_accuracy"]
    for key, value in alone["history"]["dynamics"].items():
        torch.testing.assert_close(two["history"]["dynamics"][key], value, rtol=1e-3, atol=1e-5)


def test_signals_of_two_processes_are_those_of_one(both: tuple[dict, dict]) -> None:
    """Bit for bit: the batches are the same."""
    alone, two = (found["signals"] for found in both)
    for key, value in alone.items():
        assert torch.equal(two[key], value)


def test_a_training_that_diverges_is_no_end_of_the_processes(both: tuple[dict, dict]) -> None:
    """Both find it in the same step, with the words of one, and go on with what comes next."""
    alone, two = (found["diverged"] for found in both)
    assert "lower the learning rate" in two["text"]
    assert two["text"].split(" at ")[1] == alone["text"].split(" at ")[1]


def test_batchnorm_takes_statistics_of_each_share(both: tuple[dict, dict]) -> None:
    """So trainings differ, but both learn."""
    assert both[1]["normalised"]["train_accuracy"] > 60
    assert both[0]["normalised"]["train_accuracy"] > 60


def test_main_job_of_two_processes_has_the_record_of_one(tmp_path: Path) -> None:
    """Printed and written once, and found when it is asked for again, by one process."""
    words = ["--selection", "LCMat-S", "--epochs", "3", "--selection_epochs", "3"]
    done = torchrun("main.py", *TINY, *words, *places(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[1/1]") == 1
    assert call(*TINY, *words, *places(tmp_path / "one")) == 0
    one, two = (records_in(tmp_path / name / "result") for name in ("one", "two"))
    assert one.keys() == two.keys()
    (path,) = one
    assert two[path]["config"] == one[path]["config"]
    assert two[path]["test_accuracy"] == pytest.approx(one[path]["test_accuracy"], abs=1)
    environment = json.loads((tmp_path / "two" / "result" / path).read_text())["environment"]
    assert environment["processes"] == 2


@pytest.mark.parametrize(
    ("rank", "how", "words"),
    [
        (1, "refused", "a file is missing in process 1"),
        pytest.param(0, "refused", "a file is missing in process 0", marks=pytest.mark.slow),
        (1, "killed", "another of the 2 processes ended without a word"),
    ],
)
def test_a_process_that_ends_ends_all_with_one_line(rank: int, how: str, words: str) -> None:
    done = torchrun("-m", "tests.together", how, rank)
    assert done.returncode != 0
    (line,) = lines(done)
    assert words in line
    assert done.stderr.count("Traceback") <= 1  # torchrun's own


def test_synchronised_layers_are_themselves_again_afterwards() -> None:
    """With the weights and statistics that they have meanwhile; what it computes needs GPUs."""
    network = TinyNet(seed=0, extra=True)
    layer, before = network.body[2], {name: value.clone() for name, value in network.state_dict().items()}
    with distributed.synchronised(network):
        assert type(layer) is nn.SyncBatchNorm
        layer.running_mean += 1
    assert type(layer) is nn.BatchNorm1d
    assert vars(layer).keys() == vars(TinyNet(seed=0, extra=True).body[2]).keys()
    after = network.state_dict()
    assert torch.equal(after["body.2.running_mean"], before["body.2.running_mean"] + 1)
    assert torch.equal(after["body.2.weight"], before["body.2.weight"])


def test_sync_batchnorm_without_several_gpus_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*TINY, *places(tmp_path), "--sync_batchnorm") == 2
    assert "by torchrun; leave it out" in capsys.readouterr().err
