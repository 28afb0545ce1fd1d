"""A grid on a real Slurm, which is unpacked into a folder and runs on this machine: nothing is installed."""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, places, records_in

pytestmark = pytest.mark.slow

PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libmunge2", "libfreeipmi17"),
    *("libhttp-parser2.9", "libhwloc15", "libjwt0", "liblua5.1-0"),
)
# No authentication, control groups or accounting; and a GPU that is none.
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other_port}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool
SlurmctldPidFile={run}/ctld.pid
SlurmdPidFile={run}/slurmd.pid
SlurmctldLogFile={run}/ctld.log
SlurmdLogFile={run}/slurmd.log
PluginDir={root}/usr/lib/x86_64-linux-gnu/slurm-wlm
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
GRID = """
title: Twelve runs
runs: {dataset: digits, model: MLP, selection: [Uniform, LCMat-S], fraction: 0.1, seed: [0, 1, 2, 3, 4, 5], lr: 0.05,
       epochs: 60, batch: 10, selection_epochs: 2, test_interval: 0, checkpoint_interval: 0, precision: float32,
       threads: 1}
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment in which there is a Slurm of two cores."""
    pytest.importorskip("submitit", reason="optional")
    if os.geteuid() != 0 or platform.machine() != "x86_64" or shutil.which("apt-get") is None:
        pytest.skip("Slurm is unpacked from Debian's packages for x86-64, and runs as root")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "packages").mkdir()
    apt = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-q", *PACKAGES]
    got = subprocess.run(apt, cwd=folder / "packages", capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"Slurm's packages cannot be had: {' '.join(got.stderr.split())[-200:]}")
    root, run = folder / "root", folder / "run"
    for package in (folder / "packages").glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    (run / "state").mkdir(parents=True)
    ports = [socket.socket() for _ in range(2)]
    for port in ports:
        port.bind(("127.0.0.1", 0))
    numbers = [port.getsockname()[1] for port in ports]
    for port in ports:
        port.close()
    text = CONFIGURATION.format(root=root, run=run, host=socket.gethostname(), port=numbers[0], other_port=numbers[1])
    (run / "slurm.conf").write_text(text)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    environment = os.environ | {
        "PATH": f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm",
        "SLURM_CONF": str(run / "slurm.conf"),
        "PYTHONPATH": str(ROOT),
    }
    daemons = [
        ["slurmctld-wlm", "-D"],
        ["slurmd-wlm", "-D", "-N", "localhost", "-d", f"{root}/usr/sbin/slurmstepd-wlm"],
    ]
    started = []
    try:
        for command in daemons:
            started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        wait(lambda: "idle" in asked(["sinfo", "-h", "-o", "%T"], environment), 60)
        yield environment
    finally:
        subprocess.run(["scancel", "--me", "--full"], env=environment)
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=60)


def asked(command: list[str], environment: dict[str, str]) -> str:
    """Return what a command prints; nothing where it fails."""
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def wait(until: Callable[[], object], seconds: float) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.5)


def ended(job: str, environment: dict[str, str]) -> bool:
    """Tell whether an array has ended; what is queued again starts at once, not after the two minutes of Slurm."""
    asked(["scontrol", "update", f"JobId={job}", "StartTime=now"], environment)
    return asked(["squeue", "-h", "-o", "%i"], environment) == ""


def test_an_array_of_two_with_one_worker_requeued_makes_the_records_of_one_process(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    """Twelve runs; when two are recorded, the first worker is told that its time is up, and goes on once it is back."""
    (tmp_path / "twelve.yaml").write_text(GRID)
    command = [sys.executable, "-m", "lcmat", "grid", str(tmp_path / "twelve.yaml")]
    subprocess.run([*command, *places(tmp_path / "alone")], env=slurm, cwd=ROOT, check=True, capture_output=True)
    words = [*command, *places(tmp_path)]
    told = asked([*words, "--launcher", "slurm", "--workers", "2", "--slurm", "partition=main,time=00:30:00"], slurm)
    job = re.search(r"submitted 2 workers, .*: (\d+)_0 … \1_1$", told, re.M)[1]
    wait(lambda: len(records_in(tmp_path / "result")) >= 2, 300)
    subprocess.run(["scancel", "--signal=USR2", f"{job}_0"], env=slurm, check=True)
    wait(lambda: "Restarts=1" in asked(["scontrol", "show", "job", f"{job}_0"], slurm), 60)
    told = asked([*words, "--status"], slurm)
    assert re.search("^workers: [12] running, 0 failed$", told, re.M), told
    wait(lambda: ended(job, slurm), 600)
    assert records_in(tmp_path / "result") == records_in(tmp_path / "alone/result")
    first, second = (tmp_path / f"result/.workers/twelve/{job}_{number}_0_log.out" for number in (0, 1))
    assert first.read_text().count("Starting with") == 2
    assert second.read_text().count("Starting with") == 1
    # One may have been recorded and not yet told of.
    assert len(re.findall("% final", first.read_text() + second.read_text())) in (11, 12)
    told = asked([*words, "--status"], slurm)
    assert told == "Twelve runs: 12 runs, 12 recorded, 0 running, 0 failed, 0 waiting\n"
