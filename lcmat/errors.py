"""What the user did wrong, said in one line that tells what to do."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command lines print its message as one line and exit with code 2."""


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
