"""The device and precision to compute in, the cores that there are for it, and what the machine is."""

import functools
import math
import os
import platform
import sys
from pathlib import Path

import torch

from lcmat.errors import UserError, lookup

PRECISIONS = ("float32", "bfloat16")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`, or for "auto" CUDA if there is any, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it is none of cpu, cuda, mps")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device '{name}' cannot be used ({reason}); take --device cpu or auto") from None
    return device


def make_repeatable() -> None:
    """Let equal seeds give equal results on a GPU, and float32 mean float32 (signals decide between close picks)."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return bfloat16 for "auto" where the hardware multiplies it natively, else float32; or what `name` says."""
    name = lookup("precision", name, ("auto", *PRECISIONS))
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and any(_cpu().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those of its affinity, at most its control groups' quota, rounded up.

    The machine may have far more: a container with 2 of 64 cores sees all 64. root: what /proc and /sys lie in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(root))))


def default_threads() -> int:
    """Return how many threads to compute with unless told: PyTorch's choice, but no more than `cores`.

    What the user says by OMP_NUM_THREADS or MKL_NUM_THREADS is PyTorch's choice, and holds.
    """
    chosen = torch.get_num_threads()
    said = any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    return chosen if said else min(chosen, cores())


def processor(device: torch.device) -> str:
    """Return the model of the GPU or CPU, as far as it is known, and what instructions PyTorch uses on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu().get("cpu_name") or platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def peak_memory() -> int:
    """Return the most main memory that this process has held at once, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux. Its ru_maxrss also counts the process that this one was started from.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def held_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has held at once, in bytes: main memory, and a GPU's where one computes.

    Of a process that did several runs, one after the other, it is that of the largest so far.
    """
    gpu = {"peak_gpu_memory": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}
    return {"peak_memory": peak_memory(), **gpu}


@functools.cache  # it is asked for often, and reading it takes a millisecond
def _quota(root: Path) -> float:
    """Return in cores what the control groups of this process, and those that these are in, leave it; ∞ if all.

    Version 2 has a file cpu.max, "QUOTA PERIOD" or "max PERIOD"; version 1 two files, a quota of -1 for none. A path
    that /proc names may be the host's, which is not to be seen in a container: then its own group lies at the top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    mounts, found = root / "sys/fs/cgroup", [math.inf]
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if not controllers:
            tops = (mounts, mounts / "unified")
        elif "cpu" in controllers.split(","):
            tops = (mounts / controllers, mounts / "cpu")
        else:
            continue
        group = Path(path.lstrip("/"))
        folders = (top / folder for top in tops for folder in (group, *group.parents))
        found += [_quota_of(folder, version=1 if controllers else 2) for folder in folders]
    return min(found)


def _quota_of(folder: Path, version: int) -> float:
    """Return the quota of a control group in cores; ∞ where it has none."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max"
        return math.inf


def _cpu() -> dict[str, object]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}  # older versions of torch
