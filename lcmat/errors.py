"""What the user did wrong, said in one line that tells what to do."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

# The longest message; what a value of thousands of characters says is said by its beginning.
LONGEST = 1000
# What is wrong with a file or folder, and what to do about it.
_DISK = {
    errno.ENOSPC: "the disk is full; make room, or choose another folder",
    errno.EDQUOT: "your quota of the disk is used up; make room, or choose another folder",
    errno.EFBIG: "the file would be larger than is allowed here (ulimit -f); allow more, or choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "there is no permission; change its rights, or choose another place",
    errno.EPERM: "that is not permitted; change its rights, or choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EISDIR: "a folder is in the place of a file; move it away, or choose another place",
    errno.ENOTDIR: "a file is in the place of a folder; move it away, or choose another place",
    errno.EEXIST: "a file is in the place of a folder; move it away, or choose another place",
    errno.ENOENT: "there is no such file or folder (any more)",
    errno.ELOOP: "its links lead in a circle; choose another place",
    errno.EIO: "the disk has an error; choose another one",
    errno.EMFILE: "too many files are open; allow more (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; end other programs",
    errno.ENOLCK: "the file system has no locks; choose a folder on another one",
}


class UserError(ValueError):
    """Bad input. The command lines print its message as one line and exit with code 2.

    of_all_processes: whether all that work on one run (`lcmat.distributed`) meet it at the same time.
    """

    of_all_processes = False


def shown(value: object) -> str:
    """Return a value as messages show it: on one line, without control characters, and not at length."""
    text = ascii(value) if isinstance(value, bytes) else repr(value)
    text = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return text if len(text) <= 60 else f"{text[:40]}… ({type(value).__name__})"


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known name nearest to `word`, else the list of known names."""
    choices = list(choices)
    folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word[:200].casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {folded[close[0]]}? (known: {', '.join(choices)})"
    return f"; known: {', '.join(choices)}"


def lookup(kind: str, word: str, choices: Iterable[str]) -> str:
    """Return the canonical spelling of `word` (case is ignored) or raise a UserError that names the nearest."""
    choices = list(choices)
    if not isinstance(word, str):
        raise UserError(f"the {kind} must be a name, such as {choices[0]!r}, not {shown(word)}")
    for choice in choices:
        if choice.casefold() == word.casefold():
            return choice
    raise UserError(f"unknown {kind} {shown(word)}{suggest(word, choices)}")


def of_the_disk(error: OSError) -> str | None:
    """Return which file an error is about, what is wrong with it and what to do; None for one of something else."""
    if error.filename is None and error.errno == errno.ENOENT:
        return "the working folder is gone; change to another one"
    if error.filename is None:
        return f"cannot print: {_DISK[error.errno]}" if error.errno in _DISK else None
    what = error.strerror if error.errno == errno.EINVAL else _DISK.get(error.errno, error.strerror)
    return f"{os.fsdecode(error.filename)}: {what}"


def one_line(text: object) -> str:
    """Return a message as one line without codes that move a terminal's cursor; the middle of a long one is left out.

    The end says what to do, so that it stays.
    """
    plain = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", str(text))
    line = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]} … {line[-LONGEST // 4 :]}"
