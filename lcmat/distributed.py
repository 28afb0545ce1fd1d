"""Several processes that work on one run together, as torchrun starts them: the first leads, the others do their part.

The first runs the program: it alone reads, prints, records and locks. The others wait in `as_one` until it wants to be
`helped`; then all exchange tensors. A process that is started otherwise is alone: these functions then return what they
are given.
"""

from __future__ import annotations

import copy
import datetime
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from lcmat.errors import UserError, one_line
from lcmat.hardware import make_repeatable

Value = TypeVar("Value")

# The others wait while the first selects, which may take days; one that ends is noticed at once all the same.
PATIENCE = datetime.timedelta(days=30)
# Where a process that ends notes that it has said why.
_SAID = "lcmat/said"


class _State:
    """Whether the others help just now (in one that helps: always), and where all can leave notes."""

    together = False
    store: dist.Store


def count() -> int:
    """Return how many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def on_this_machine() -> int:
    """Return how many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if count() > 1 else 1


def as_one(program: Callable[[], int]) -> int:
    """Return the exit code of a program, which the first of torchrun's processes runs and the others help.

    What ends one of them ends all; who meets it says so in one line. Raises what the program raises, and UserError if
    another process ended.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
        return program()
    _begin()
    try:
        if rank() > 0:
            return _help()
        code = program()
        with suppress(RuntimeError):  # what is done is done
            from_first(None)
        return code
    except BaseException as error:
        if rank() > 0 and isinstance(error, KeyboardInterrupt):
            return 130
        if _State.together and _is_of_another(error):
            if rank() > 0 or _State.store.check([_SAID]):
                return 1
            raise UserError(f"another of the {count()} processes ended without a word; was it killed?") from None
        if _State.together:
            _State.store.set(_SAID, "")
        else:
            from_first(None)  # the others wait for what comes next
        raise


def _begin() -> None:
    """Find the other processes."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    _State.store, rank, world = next(dist.rendezvous("env://", timeout=PATIENCE))
    how = {"backend": "cpu:gloo,cuda:nccl" if gpu else "gloo", "timeout": PATIENCE}
    dist.init_process_group(store=_State.store, rank=rank, world_size=world, **how)


def _help() -> int:
    """Do what the first process asks for, until it asks for nothing more."""
    make_repeatable()
    warnings.simplefilter("ignore")  # the first has the same to say
    while True:
        _State.together = True  # whatever ends the first now, it says so
        if (call := from_first(None)) is None:
            return 0
        function, arguments, threads = call
        torch.set_num_threads(threads)
        try:
            function(*arguments)
        except UserError as error:
            if not error.of_all_processes:
                raise
            # What follows from it, the first decides.


@contextmanager
def helped(function: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Let the other processes call function(*arguments) meanwhile; what they exchange there, is exchanged here, too.

    The function is one at the top of a module, to which the other processes get copies of the arguments.
    """
    if count() == 1 or _State.together:
        yield
        return
    _State.together = True
    try:
        from_first((function, arguments, torch.get_num_threads()))
        yield
    except UserError as error:
        _State.together = not error.of_all_processes
        raise
    _State.together = False


def from_first(value: Value) -> Value:
    """Return the first process's value, to all of them. Raises UserError if it cannot be sent."""
    if count() == 1:
        return value
    held = [value]
    try:
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        refusal = UserError(f"the other processes cannot be sent what they are to do ({one_line(error)})")
        refusal.of_all_processes = True  # the others still wait
        raise refusal from None
    return held[0]


def summed(value: Tensor) -> Tensor:
    """Return the sum of all processes' values, a tensor of one shape."""
    if count() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def share(length: int) -> slice:
    """Return which of so many samples in a batch are this process's: about as many for each.

    Of too few for two each, all are everyone's: what processes compute is averaged, and BatchNorm needs two.
    """
    own, among = rank(), count()
    if length < 2 * among:
        return slice(0, length)
    return slice(length * own // among, length * (own + 1) // among)


def is_shared(length: int) -> bool:
    """Tell whether a batch of so many samples is shared out, not everyone's."""
    return length >= 2 * count() > 2


def gathered(part: Tensor, length: int) -> Tensor:
    """Return a whole batch's values, (length, …), of which each process has its `share`, (s, …)."""
    if not is_shared(length):
        return part
    longest = -(-length // count())
    padded = part.new_zeros(longest, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(parts, padded)
    sizes = (length * (i + 1) // count() - length * i // count() for i in range(count()))
    return torch.cat([one[:size] for one, size in zip(parts, sizes, strict=True)])


def collected(part: Tensor, sizes: list[int]) -> Tensor:
    """Return in the first process the parts (size, …) of all, one below the other; in others their own."""
    if rank() > 0:
        dist.send(part.contiguous(), 0)
        return part
    whole = part.new_empty(sum(sizes), *part.shape[1:])
    places = whole.split(sizes)
    places[0].copy_(part)
    for number, place in enumerate(places[1:], 1):
        dist.recv(place, number)
    return whole


@contextmanager
def averaging(network: nn.Module, sync_batchnorm: bool = False) -> Iterator[nn.Module]:
    """Yield a network that passes batches through this one, and averages gradients over all processes.

    sync_batchnorm: BatchNorm takes statistics of the batches of all processes, on GPUs; else of each process's.
    """
    if count() == 1:
        yield network
        return
    with synchronised(network) if sync_batchnorm else nullcontext():
        yield nn.parallel.DistributedDataParallel(network)


@contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """Let layers of BatchNorm compute as nn.SyncBatchNorm for a while, with the weights and statistics that they have.

    It has no parameters of its own and the same attributes, but for the group of processes, None: all.
    """
    kinds = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
    layers = {layer: type(layer) for layer in network.modules() if isinstance(layer, kinds)}
    for layer in layers:
        layer.__class__, layer.process_group = nn.SyncBatchNorm, None
    try:
        yield
    finally:
        for layer, own in layers.items():
            layer.__class__ = own
            del layer.process_group


def on_host(network: nn.Module) -> nn.Module:
    """Return a network that can be sent: this one, or a copy of it in main memory."""
    if all(value.device.type == "cpu" for value in network.state_dict().values()):
        return network
    return copy.deepcopy(network).cpu()


def _is_of_another(error: BaseException) -> bool:
    """Tell whether an error says that another process could not be reached."""
    return isinstance(error, RuntimeError) and bool(re.search("gloo|NCCL|[Cc]onnection|Broken pipe", str(error)))
