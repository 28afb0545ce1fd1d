"""What the documents say of commands and options is so."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import methods
from lcmat.analysis import ANALYSES
from lcmat.command_line import options
from lcmat.command_line.request import request_of
from lcmat.commands._registry import REGISTRY
from lcmat.selection import select_with
from tests import oracles
from tests.command_lines import flags_of, parser_of
from tests.harness import ROOT
from tests.problems import random_problem

DOCUMENTS = ("README.md", "methods/README.md", "result/README.md", "lcmat/README.md")
# A program, or a script that runs one; in front of their words.
PROGRAM = re.compile(
    r"(?:\S*python )(main\.py|cross_network_generalization\.py|-m lcmat \w+)|bash (bash/(?!test)\w+\.sh)"
)


def documented() -> Iterator[tuple[str, str]]:
    """Yield the command lines in fences and in running text, each with the document that it stands in."""
    for document in DOCUMENTS[:-1]:
        text = (ROOT / document).read_text()
        fences = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.M | re.S)
        lines = "".join(fences).replace("\\\n", " ").splitlines()
        running = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", running)]
        yield from ((document, line) for line in lines if PROGRAM.search(line) and "--help" not in line)


@pytest.mark.parametrize(("document", "line"), dict.fromkeys(documented()), ids=lambda value: value[:60])
def test_documented_line_is_accepted(document: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parser of its command; of a script of bash/, by what that calls. Methods and networks are there, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    found = PROGRAM.search(line)
    words = shlex.split(line[found.end() :].replace("…", "").replace("$name", "NAME").replace(";", " "), comments=True)
    words = words[: words.index("done")] if "done" in words else words
    command = found[1] or called_by(found[2])
    parser = parser_of(command)
    if "--selection" not in flags_of(parser):
        parser.parse_args(words)
        return
    if command == "-m lcmat analysis" and words and not words[0].startswith("-"):
        assert words.pop(0) in (*ANALYSES, "NAME")
    if words and not words[0].startswith("-"):
        file, *words = words
        assert (ROOT / file).exists()
    args = options.parse(words, parser)
    for name in ("config", "pretrained", "signals", "subset"):
        setattr(args, name, None)
    request_of(args, REGISTRY)


def called_by(script: str) -> str:
    """Return the command that a script of bash/ passes its flags to."""
    text = (ROOT / script).read_text()
    if "-m lcmat grid" in text:
        return "-m lcmat grid"
    return "-m lcmat grid" if "run_grid" in text else "main.py"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_path_in_a_document_exists(document: str) -> None:
    """Of this project's own folders, in backticks or as a link."""
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:lcmat|methods|nets|tests|configs|bash|result)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


# ---- options ---------------------------------------------------------------------------------------------------------

TABLES = (ROOT / "methods" / "README.md").read_text()
SELECTION = TABLES.partition("## Where widely")[0]
CONDENSATION = TABLES.partition("## Condensation")[2].partition("## What vouches")[0]
# Methods of one greedy, of which the text above the table speaks, and of one loop, of which that below theirs does.
GREEDY = re.search(r"^(.*?) share one greedy", TABLES, re.M)[1].replace(" and ", ", ").split(", ")
MATCHING = ("DC", "DSA", "DM", "LCMat-C")
LITERALS = {"True": True, "False": False, "None": None}


def documented_options(name: str) -> dict[str, object]:
    """Return the options of a method with their defaults as the tables have them; `...` where that is no constant."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|.*$", SELECTION + CONDENSATION, re.M)
    found = documented_options("DC") if "as DC" in row else {}
    found |= {option: constant(text) for option, text in re.findall(r"`(\w+)` \(([^)]*)\)", row)}
    if "| below |" in row:
        for first, default in re.findall(r"^\| (`\w+`[^|]*) \| ([^|]*) \|", TABLES, re.M):
            options = re.findall(r"`(\w+)`", first)
            found |= dict(zip(options, map(constant, default.split(", ")), strict=True))
    for option, value, methods_ in re.findall(r"^\| `--option (\w+)=(\w+)` \|[^|]*\| ([^|]*) \|", TABLES, re.M):
        if name.removesuffix("-Val") in methods_.split(", "):  # as released: off unless asked for
            found.setdefault(option, value != "True" and ...)
    if name in GREEDY:
        found |= {"greedy": "exact", "rows": ..., "parts": ...}
    if name in MATCHING:
        (text,) = re.findall(r"All matching methods have (.*?)\. ", TABLES, re.S)
        found |= {option: constant(text) for option, text in re.findall(r"`(\w+)` \(([^)]*)\)", text)}
    return found


def constant(text: str) -> object:
    """Return the value that a default's description begins with, or `...` if there is none."""
    word = text.partition(";")[0].rpartition("= ")[2].strip().replace(",", "").replace("−", "-")
    if word in LITERALS:
        return LITERALS[word]
    try:
        return int(word) if word.lstrip("-").isdigit() else float(word)
    except ValueError:
        return word if word.replace("-", "").isalnum() and len(word.split()) == 1 else ...


@pytest.mark.parametrize("name", [*methods.names(), *methods.condensers()])
def test_options_in_the_tables_are_those_of_the_method(name: str) -> None:
    """With their defaults; of one that depends on the data, what it comes to, if the table says that."""
    method = methods.find(name)
    told, usual = documented_options(name), method.options
    assert told.keys() == usual.keys()
    shapes = ([1] * 10,) if name in methods.condensers() else (10, 512)
    resolved = usual if name == "LBCS" else method.resolved(*shapes, {})
    for option, value in told.items():
        assert usual[option] is None if value is ... else value in (usual[option], resolved.get(option)), option


def test_the_method_that_the_readme_adds_selects() -> None:
    """By the largest gradients, as it says: these are formed here one by one."""
    text = (ROOT / "methods" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text.partition("## Adding a method")[2], re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    problem = random_problem(0, 40, 5, 3)
    subset = select_with(names["LARGEST_NORM"], problem.signals, budget=7, balanced=False)
    norms = np.linalg.norm(oracles.gradients(*problem.arrays), axis=1)
    assert subset.indices.tolist() == np.argsort(-norms)[:7].tolist()
