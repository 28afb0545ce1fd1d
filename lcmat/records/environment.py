"""What a result may depend on beyond its configuration: versions, processor, threads, commit."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess

import numpy as np
import torch

from lcmat import distributed
from lcmat.files import PROJECT
from lcmat.hardware import processor


def environment(device: torch.device) -> dict[str, object]:
    """Return what a result may depend on beyond its configuration: versions, processor, threads, commit."""
    several = {"processes": distributed.count()} if distributed.count() > 1 else {}
    if importlib.util.find_spec("numba"):  # which compiles loops of selection
        several["numba"] = importlib.metadata.version("numba")
    return several | {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Return the commit of the code that runs, with "+changes" if the work tree differs, or None outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        # What runs leave in result/ is no change of the code.
        changed = git("status", "--porcelain", "--", *("*.py",)).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+changes" * bool(changed)
