"""YAML files of flags: read with care, and turned into the words of a command line, so that types are checked alike."""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path

from lcmat.errors import UserError, one_line, shown, suggest


def words_in(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """Return the words of a command line that say what a YAML file says, so that types are checked alike."""
    content = read_yaml(path)
    if content is None:
        return []
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'flag: value' lines")
    return words_of(content, path, parser)


def read_yaml(path: Path) -> object:
    """Return what a YAML file holds; raise UserError that says in one line what is wrong with it."""
    import yaml  # here: most command lines read none

    from lcmat.files import check_regular

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice, of which the last would hold without a word."""

        def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.composer.ComposerError(None, None, f"{shown(twice[0])} is there twice", node.start_mark)
            return node

        def construct_scalar(self, node: yaml.Node) -> object:
            # 010 would be 8, and 1:30 would be 90, as YAML 1.1 has it.
            if node.tag.endswith((":int", ":float")) and re.match(r"[-+]?0[0-9_]+$|.*:", str(node.value)):
                raise yaml.constructor.ConstructorError(
                    None, None, f"{shown(node.value)} is an octal number or a time; put it in quotes", node.start_mark
                )
            return super().construct_scalar(node)

    try:
        if path.parent not in map(Path, ("/dev/fd", "/proc/self/fd")):  # where a shell puts <(…)
            check_regular(path)
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (IsADirectoryError, FileNotFoundError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"cannot read {path}: {reason}") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:  # dates, numbers by tag
        raise UserError(f"{path} holds a value that is none of its kind ({one_line(error)[:80]})") from None


def words_of(content: dict, path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """Return a mapping from flags to values as the words of a command line; raise UserError that names the file."""
    known = [word[2:] for word in parser._option_string_actions if word.startswith("--")]
    known = [word for word in known if word not in ("help", "config")]
    words = []
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{path}: unknown key {shown(key)}{nearest(str(key), known)}")
        if value is None or value == [] or (key == "resume" and value is False):
            continue
        if key == "resume" and value is True:
            words.append("--resume")
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(_word(f"{path}: {key}", item) for item in values)]
    try:
        parser.parse_args(words)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return words


def _word(where: str, value: object) -> str:
    """Return a value as a word of a command line; raise UserError for what is none."""
    if isinstance(value, float):
        return f"{value:.17g}"
    if not isinstance(value, str | int | datetime.date):  # of lists in lists not even the text: they may be endless
        raise UserError(f"{where} takes numbers, words or a list of them, not a {type(value).__name__}")
    try:
        text = str(value)
    except ValueError:  # an integer of thousands of digits
        raise UserError(f"{where} has too many digits") from None
    if "\0" in text or (text.startswith("-") and not re.fullmatch(r"-\d*\.?\d+(e[-+]?\d+)?", text)):
        raise UserError(f"{where}: {shown(text)} cannot be a value of a flag")
    return text


def nearest(word: str, choices: object) -> str:
    """Return the end of a sentence that names the choice a word is nearest to, or nothing."""
    suggestion = suggest(word, choices)
    return suggestion.split(" (known")[0] if "did you mean" in suggestion else ""
