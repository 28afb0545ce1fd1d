"""The device and precision to compute in, and what the machine is."""

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


def _cpu() -> dict[str, object]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}  # older versions of torch
