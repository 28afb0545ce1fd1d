"""What the command lines promise: which flags there are, that each of them acts, and whose defaults hold."""

from pathlib import Path

import pytest
import torch

import methods
from lcmat import memory_limit
from lcmat.command_line import options, planning
from lcmat.command_line.registry import Registry
from lcmat.command_line.request import Request, request_of
from lcmat.commands._registry import REGISTRY
from lcmat.condensation import Condenser
from lcmat.errors import UserError
from lcmat.selection import Method, Picks
from tests.command_lines import COMMANDS, FLAGS, described, flags_of, parser_of
from tests.harness import TINY, call, places

SHARED = flags_of(parser_of("main.py"))
WITH_SHARED = [name for name in COMMANDS if name != "main.py" and "--selection" in flags_of(parser_of(name))]


def test_flags_and_defaults_are_those_committed() -> None:
    """A flag that comes, goes or changes its default is meant: renew the list by `python -m tests.command_lines`."""
    assert described() == FLAGS.read_text()


@pytest.mark.parametrize("command", WITH_SHARED)
def test_command_over_runs_has_the_flags_of_main(command: str) -> None:
    """With their spellings and defaults; `main.py` itself and commands over records alone are not meant."""
    assert SHARED.items() <= flags_of(parser_of(command)).items()


# ---- every flag acts -------------------------------------------------------------------------------------------------

# Another value of each flag than its default, and what else it takes for it to matter.
OTHER = {
    "--dataset": "mnist", "--data_path": "other", "--image_size": "16", "--augmentation": "crop",
    "--image_column": "x", "--label_column": "x", "--train_split": "x", "--test_split": "x", "--label_noise": "0.3",
    "--long_tail": "10", "--val": "True", "--val_ratio": "0.3", "--workers": "3", "--model": "MLP",
    "--inner_model": "MLP", "--pretrained": "FILE", "--selection_epochs": "3", "--selection_batch": "64",
    "--selection_optimizer": "Adam", "--selection_lr": "0.2", "--selection_momentum": "0.5",
    "--selection_nesterov": "False", "--selection_weight_decay": "0.1", "--initialisations": "3",
    "--initialisation_epochs": "3", "--selection_test_interval": "1", "--selection_test_fraction": "0.5",
    "--signals_mode": "train", "--numerics": "released", "--config_name": "x", "--pixel_mean": "0.3",
    "--pixel_std": "0.2", "--file_order": "original", "--weights_by": "batch --selection Craig",
    "--gradient_scale": "batch", "--selection": "Craig", "--fraction": "0.3",
    "--budget": "100", "--ipc": "2", "--balance": "False", "--rho": "0.7", "--K": "7", "--weights": "True",
    "--greedy": "partition", "--memory": "1GB", "--tolerance": "0.5 --selection LBCS",
    "--trials": "7 --selection LBCS", "--init_selection": "Craig --selection LBCS", "--option": "LCMat-S.K=3",
    "--factor": "2 --selection LCMat-C", "--backpack": "True --selection LCMat-C", "--snapshots": "3",
    "--total_steps": "7", "--quota": "recall", "--sync_batchnorm": "True",
    "--evaluation": "idc", "--evaluations": "3", "--epochs": "7", "--batch": "64", "--train_batch": "64",
    "--optimizer": "Adam", "--lr": "0.2", "--momentum": "0.5", "--nesterov": "False", "--weight_decay": "0.1",
    "--scheduler": "StepLR", "--min_lr": "0.001", "--step_size": "7 --scheduler StepLR",
    "--gamma": "0.1 --scheduler StepLR", "--cross": "MLP", "--test_interval": "3", "--test_fraction": "0.5",
    "--protocol": "continual", "--steps": "3 --protocol continual", "--memory_per_class": "3 --protocol continual",
    "--seed": "3", "--save_path": "other", "--cache_path": "other", "--device": "cpu", "--precision": "bfloat16",
    "--threads": "3", "--resume": "", "--checkpoint_interval": "3", "--overwrite": "True", "--gpu": "0", "--eps": "0.7",
    "--kernel": "worst --selection Submodular", "--submodular": "LogDeterminant --selection Submodular",
    "--submodular_greedy": "lazy", "--uncertainty": "Margin --selection Uncertainty", "--print_freq": "3",
    "--dataset_name": "mine --dataset ImageFolder", "--log": "tensorboard",
    "--num_exp": "3", "--num_eval": "3", "--after_analyses": "", "--exact_analyses": "",
}  # fmt: skip
# Of main.py alone, which has tests of its own for them; and the file that holds flags.
ALONE = {"--signals": "FILE", "--select_only": "", "--export": "new", "--link": ""}
# What is said and how, not what is done.
OF_SAYING = {"--plan", "--wide"}
ELSEWHERE = {*ALONE, *OF_SAYING, "--config"}


def asked(line: str) -> Request:
    """Return what the words of a command line ask for."""
    return request_of(options.parse(line.split()), REGISTRY)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own to stand in, with the file that the lines above name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    return tmp_path


def test_every_flag_has_another_value_below() -> None:
    """So that none is forgotten by the tests that go through them."""
    assert OTHER.keys() | ELSEWHERE == SHARED.keys()


@pytest.mark.parametrize("flag", OTHER)
def test_flag_changes_what_is_asked_for(flag: str, folder: Path) -> None:
    """No flag is parsed and forgotten: the request differs, be it by a line that says why there is no effect."""
    value, _, rest = OTHER[flag].partition(" ")
    assert asked(f"{flag} {value} {rest}") != asked(rest)


class Reached(Exception):  # noqa: N818
    """Stands for the work that begins where everything is planned."""


def requests_of(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return the requests that a command turns its words into."""
    found: list[Request] = []

    def reached(requests: list[Request], _: Registry) -> None:
        found.extend(requests)
        raise Reached

    monkeypatch.setattr(planning, "jobs_of", reached)
    with pytest.raises(Reached):
        COMMANDS[command](words)
    return found


def first_words(command: str, folder: Path) -> list[str]:
    """Return what must come before the flags."""
    (folder / "grid.yaml").write_text("runs: {}\n")
    return {"-m lcmat grid": ["grid.yaml"], "-m lcmat analysis": ["bound"]}.get(command, [])


# Analyses refuse continual learning, --test_models says which networks that script trains, and a grid always resumes.
SAYS_NOTHING = {("cross_network_generalization.py", "--cross"), ("-m lcmat grid", "--resume")}
REACHED = [
    (command, flag)
    for command in WITH_SHARED
    for flag, words in OTHER.items()
    if (command, flag) not in SAYS_NOTHING
    and not (command == "-m lcmat analysis" and "--protocol" in f"{flag} {words}")
]


@pytest.mark.parametrize(("command", "flag"), REACHED)
def test_flag_reaches_every_command_that_takes_it(
    command: str, flag: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid, an analysis and the training of other networks ask for what main.py would."""
    value, _, rest = OTHER[flag].partition(" ")
    start = first_words(command, folder)
    plain = requests_of(command, [*start, *rest.split()], monkeypatch)
    changed = requests_of(command, [*start, flag, *value.split(), *rest.split()], monkeypatch)
    assert changed != plain


@pytest.mark.parametrize("flag", ALONE)
@pytest.mark.parametrize("command", WITH_SHARED)
def test_flag_of_main_alone_is_refused_elsewhere(command: str, flag: str, folder: Path) -> None:
    """In one line that names it, before any work: accepted and ignored would be worse."""
    with pytest.raises(UserError, match=f"{flag}.*main.py alone"):
        COMMANDS[command]([*first_words(command, folder), *TINY, *places(folder), flag, *ALONE[flag].split()])


# ---- the machine's limits --------------------------------------------------------------------------------------------

WORK = {
    "main.py": [],
    "main.py --select_only": ["--select_only"],
    "cross_network_generalization.py": ["--test_models", "MLP"],
    "-m lcmat analysis": [],
    "-m lcmat grid": [],
}


@pytest.mark.parametrize("command", WORK)
def test_memory_and_threads_hold_while_a_command_works(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --memory, what is free is asked for; with it, that is the limit and nobody asks."""
    program = command.removesuffix(" --select_only")
    words = [*first_words(program, folder), *TINY, *WORK[command], *places(folder), "--overwrite"]
    free, asks = memory_limit.free, []
    monkeypatch.setattr(memory_limit, "free", lambda device: asks.append(device) or free(device))
    torch.set_num_threads(2)
    assert call(*words, command=COMMANDS[program]) == 0
    assert asks
    assert torch.get_num_threads() == 1
    asks.clear()
    assert call(*words, "--memory", "1GB", command=COMMANDS[program]) == 0
    assert asks == []


# ---- a method's own defaults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*methods.names(), *methods.condensers()])
def test_without_flags_a_method_has_its_own_defaults(name: str, folder: Path) -> None:
    """No flag has a default that stands in the way of the method's."""
    (wanted,) = asked(f"--selection {name}").wanted
    assert wanted.options == {}


def pick(
    signals: object, budget: int, generator: object, rho: float = 0.7, K: int = 3, weights: bool = True,
    greedy: str = "lazy", tolerance: float = 0.9, trials: int = 3, init_selection: str = "Craig",
) -> Picks:  # fmt: skip
    """Stand for a method whose defaults are not those of others."""
    raise NotImplementedError


def make(
    task: object, rho: float = 0.7, factor: int = 3, backpack: bool = True
) -> None:  # fmt: skip
    """Stand for a condensation method likewise."""
    raise NotImplementedError


PLANTED = {"selection": Method("Planted", pick), "condensation": Condenser("Planted", make)}
GIVEN = {
    "rho": 0.2, "K": 5, "weights": False, "greedy": "exact", "tolerance": 0.1, "trials": 5, "init_selection": "Uniform",
    "factor": 2, "backpack": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("flag", GIVEN)
def test_flag_given_wins_over_a_methods_default_and_no_other_does(kind: str, flag: str, folder: Path) -> None:
    """Of the six flags that once set every method's options, and of those of LBCS."""
    method = PLANTED[kind]
    registry = Registry(lambda name: method, ("Planted",), REGISTRY.build, REGISTRY.networks)
    if flag not in method.options:
        pytest.skip(f"not an option of {kind}")
    args = options.parse(["--selection", "Planted", f"--{flag}", str(GIVEN[flag])])
    (wanted,) = request_of(args, registry).wanted
    assert wanted.options == {flag: GIVEN[flag]}
    assert {**method.options, **wanted.options} == {**method.options, flag: GIVEN[flag]}
