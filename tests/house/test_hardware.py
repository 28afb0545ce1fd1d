"""How many cores a process may use: affinity and the quotas of control groups, read from made-up files."""

import os
from pathlib import Path

import pytest
import torch

from lcmat import hardware


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity of eight cores, whatever the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def machine(folder: Path, groups: str, files: dict[str, str]) -> Path:
    """Write what /proc says of the control groups, and their files; return the folder as the root."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def v1(folder: str, quota: int, period: int) -> dict[str, str]:
    """Return the files of a control group of version 1."""
    return {f"{folder}cpu.cfs_quota_us": str(quota), f"{folder}cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # the half core would lie idle
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),  # more than the affinity has
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),  # of the group around it
        ("0::/host/only\n", {"cpu.max": "300000 100000"}, 3),  # a path that a container does not see
        ("4:cpu,cpuacct:/x\n", v1("cpu,cpuacct/x/", 400000, 100000), 4),
        ("4:cpu,cpuacct:/x\n", v1("cpu/x/", 50000, 25000), 2),
        ("4:cpu:/\n", v1("cpu/", -1, 100000), 8),
        ("4:memory:/\n", v1("cpu/", 100000, 100000), 8),  # no cpu group
        ("0::/\n", {"cpu.max": "what is this"}, 8),
        ("", {}, 8),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("eight_cores")
def test_cores_are_the_affinity_at_most_the_quota(tmp_path: Path, groups: str, files: dict, expected: int) -> None:
    """The quota of the process's own group and of every group around it counts, in both versions."""
    assert hardware.cores(machine(tmp_path, groups, files)) == expected


@pytest.mark.usefixtures("eight_cores")
def test_a_system_without_control_groups_has_its_affinity(tmp_path: Path) -> None:
    """Nothing of /proc is there."""
    assert hardware.cores(tmp_path) == 8


def test_threads_are_no_more_than_the_quota_unless_the_user_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 2 of 64 cores does not start 64 threads; OMP_NUM_THREADS holds."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    torch.set_num_threads(3)
    assert hardware.default_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert hardware.default_threads() == 3
