"""Tables of accuracy as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable
from pathlib import Path

from lcmat.files import write_text
from lcmat.locks import locked
from lcmat.records import read_records
from lcmat.reports.tables import Cell, Paired, Table, accuracy_tables, mean_std, paired, ranks

OTHERS = (
    " The published figures stand as their sources have them, under protocols of their own; ≈: read off a figure, to "
    "within 0.3. The difference takes our best accuracy for those of LCMat's tables and of the re-run of DeepCore, our "
    "final one for others."
)
WORST = " Worst class: the final accuracy of the class that is predicted worst."


def accuracy_markdown(tables: list[Table]) -> str:
    """Return the tables as Markdown: accuracy by method and fraction, then each cell in detail."""
    return "\n".join(part for table in tables for part in (_main_part(table), _detailed_part(table)) if part)


def _main_part(table: Table) -> str:
    header = ["Method", *(f"{100 * fraction:.4g}%" for fraction in table.fractions)]
    marks = ranks(table)
    rows = [[method, *(_shown(table, (method, f), marks) for f in table.fractions)] for method in table.methods]
    everything = f" Trained on everything: {mean_and_std(table.full.final)}." if table.full else ""
    marked = " Best mean of a column in bold, second underlined." if marks else ""
    return (
        f"## {table.title}\n\nTest accuracy (%) after the last epoch, {table.trainings}. "
        f"{table.caption[0].upper()}{table.caption[1:]}.{everything}{marked}\n\n{markdown(header, rows)}"
    )


def _shown(table: Table, key: tuple[str, float], marks: dict) -> str:
    """Return a cell in words: missing where a grid lacks it, incomplete where it lacks seeds."""
    cell, wanted = table.cells.get(key), table.wanted.get(key, 0)
    if cell is None:
        return "missing" if wanted else "–"
    text = emphasised(mean_and_std(cell.final), marks.get(key))
    there = len(set(cell.seeds))
    return f"{text} ({there} of {wanted})" if there < wanted else text


def emphasised(text: str, rank: int | None) -> str:
    """Return a cell of Markdown, in bold if it is the best (1), underlined if the second (2)."""
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)


def _detailed_part(table: Table) -> str:
    """Return final and best accuracy side by side, each method against Uniform, and the published figures."""
    published = any(cell.published for cell in table.cells.values())
    compared = {fraction for method, fraction in table.cells if method == "Uniform"}
    if not published and not (compared and len(table.methods) > 1):
        return ""
    which, minus = _of_the_paper(table)
    worst = any(cell.worst for cell in table.cells.values())
    column = ["Worst class"] if worst else []
    header = ["Method", "Fraction", "n", "Final", "Best", *column, "Final − Uniform (95%)", "Published", minus]
    rows = []
    for (method, fraction), cell in table.ordered:
        other = table.cells.get(("Uniform", fraction))
        difference = None if other is None or method == "Uniform" else paired(cell, other)
        row = [
            method,
            f"{100 * fraction:.4g}%",
            str(len(cell.final)),
            mean_and_std(cell.final),
            mean_and_std(cell.best),
            *([mean_and_std(cell.worst) if cell.worst else ""] if worst else []),
        ]
        rows.append([*row, in_words(difference), *_beside(cell)])
    if not published:
        header, rows = header[:-2], [row[:-2] for row in rows]
    interval = f"every {table.test_interval} epochs" if table.test_interval else "once, after the last epoch"
    return (
        f"Final: after the last epoch; best: the largest of the accuracies, tested {interval}. Final − Uniform: mean "
        "of the differences seed by seed, with a 95% confidence interval (Student's t)."
        f"{WORST if worst else ''}{which}\n\n{markdown(header, rows)}"
    )


def _of_the_paper(table: Table) -> tuple[str, str]:
    """Say what published figures are and what is compared with them; and return the heading of the difference."""
    figures = [cell.published for cell in table.cells.values() if cell.published]
    if not all(figure.of_lcmat for figure in figures):
        return OTHERS, "Ours − published"
    kinds = {figure.last for figure in figures}
    best = "the best test accuracy over all epochs, tested after each; the difference takes our best."
    last = "accuracies after the last epoch; the difference takes our final ones."
    if kinds == {True}:
        return f" The published figures are {last}", "Final − published"
    if kinds == {False}:
        return f" The published figures are {best}", "Best − published"
    said = f" The published figures are {best} Those of Tables 4 and 5 are {last}" if kinds else ""
    return said, "Ours − published"


def in_words(difference: Paired | None) -> str:
    """Return a paired difference as text, with its interval."""
    if difference is None:
        return ""
    return f"{difference.mean:+.2f}" + ("" if difference.half is None else f" ± {difference.half:.2f}")


def _beside(cell: Cell) -> list[str]:
    figure = cell.published
    if figure is None:
        return ["", ""]
    return [figure.in_words, f"{cell.difference:+.2f}"]


def accuracy_latex(tables: list[Table]) -> str:
    """Return the tables for LaTeX's booktabs package: final accuracy, best in bold, second underlined."""
    parts = []
    for table in tables:
        marks, rows = ranks(table), []
        for method in table.methods:
            keys = [(method, fraction) for fraction in table.fractions]
            cells = [
                (table.cells.get(key), marks.get(key), "missing" if table.wanted.get(key) else "--") for key in keys
            ]
            rows.append(
                [method, *(latex_cell(mean_and_std(c.final), rank) if c else absent for c, rank, absent in cells)]
            )
        header = ["Method", *(f"{100 * fraction:.4g}%" for fraction in table.fractions)]
        parts.append(f"% {table.title}: {table.trainings}\n{latex(header, rows)}")
    return "\n".join(parts)


def latex(header: list[str], rows: list[list[str]], texts: int = 1) -> str:
    """Return a LaTeX table (booktabs) of cells; the first `texts` columns and the header are plain text."""
    lines = [" & ".join([*map(_latex_text, row[:texts]), *row[texts:]]) + r" \\" for row in rows]
    begin = rf"\begin{{tabular}}{{{'l' * texts}{'c' * (len(header) - texts)}}}"
    head = " & ".join(map(_latex_text, header)) + r" \\"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_cell(text: str, rank: int | None) -> str:
    """Return mean ± standard deviation for LaTeX, in bold if it is the best (1), underlined if the second (2)."""
    text = text.replace("±", r"$\pm$")
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(rank, text)


def _latex_text(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("ρ", r"$\rho$")):
        text = text.replace(plain, escaped)
    return text


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table with columns of even width."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(word) for word in column) for column in columns]

    def line(words: list[str]) -> str:
        return "| " + " | ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)) + " |"

    return "\n".join([line(header), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)]) + "\n"


def csv_text(header: list[str], rows: Iterable[list]) -> str:
    """Return rows as CSV below a header."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def mean_and_std(values: tuple[float, ...]) -> str:
    """Return mean ± standard deviation with two digits; of a single value, that."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def accuracy_csv(tables: list[Table]) -> str:
    """Return one row for each cell, numbers unrounded."""
    names = [
        "table", "method", "fraction", "n", "final_mean", "final_std", "best_mean", "best_std", "test_interval",
        "minus_uniform", "minus_uniform_95", "published_table", "published_mean", "published_std",
        "minus_published", "setting",
    ]  # fmt: skip
    worst = any(cell.worst for table in tables for cell in table.cells.values())
    names += ["worst_class_mean", "worst_class_std"] if worst else []
    rows = []
    for table in tables:
        for (method, fraction), cell in table.ordered:
            figure, other = cell.published, table.cells.get(("Uniform", fraction))
            against = None if other is None or method == "Uniform" else paired(cell, other)
            rows.append([
                table.title, method, fraction, len(cell.final), *mean_std(cell.final), *mean_std(cell.best),
                table.test_interval, against and against.mean, against and against.half, figure and figure.table,
                figure and figure.mean, figure and figure.std,
                cell.difference, table.caption,
            ])  # fmt: skip
            rows[-1] += (mean_std(cell.worst) if cell.worst else [None, None]) if worst else []
    return csv_text(names, rows)


def write_tables(save_path: Path) -> tuple[list[Table], list[Path]]:
    """Write SAVE_PATH/tables/accuracy.md and .csv from all records below SAVE_PATH.

    Returns the tables and the files that look like records but are damaged, which are left alone. A lock makes the
    last of several processes see the records of all.
    """
    folder = Path(save_path) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        records, damaged = read_records(save_path)
        tables = accuracy_tables(records)
        write_text(folder / "accuracy.md", "# Test accuracy\n\n" + accuracy_markdown(tables))
        write_text(folder / "accuracy.csv", accuracy_csv(tables))
    return tables, damaged
