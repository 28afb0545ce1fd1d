"""What datasets of one's own are called: by the name given, else by their folder's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lcmat.errors import UserError, shown

# Beyond, a name is no use in headings and in names of folders.
LONGEST = 100


def own_name(source: str, folder: Path, given: str | None, others: Iterable[str]) -> str | None:
    """Return what a dataset of one's own is called, None for one that has a name: those in `others`, and hf:NAME.

    source: its name for `lcmat.data.load`; given: by the user. Raises UserError for a name that cannot be.
    """
    own = source == "ImageFolder"
    taken = {other.casefold() for other in others}
    if given is None:
        # Of a folder at the root of a disk the name is empty.
        found = folder.resolve().name.encode(errors="backslashreplace").decode()[:LONGEST] if own else ""
        if not _possible(found):
            return None
        return f"{source}-{found}" if found.casefold() in taken else found
    if not (own or source.startswith("hf:")):
        raise UserError(f"--dataset_name names data of your own (ImageFolder, hf:…); {source} has a name: leave it out")
    if given.casefold() in taken:
        raise UserError(f"--dataset_name {shown(given)} is the name of another dataset; choose another one")
    if not _possible(given) or len(given) > LONGEST:
        raise UserError(
            f"--dataset_name {shown(given)} cannot be part of a file's name: give up to {LONGEST} printable characters "
            f"without / and \\, the first none of . and -"
        )
    return given


def _possible(name: str) -> bool:
    return bool(name.strip()) and name.isprintable() and name[0] not in ".-" and not {"/", "\\", "|"} & set(name)
