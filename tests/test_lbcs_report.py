"""The table of LBCS's experiments, from records written by hand."""

import csv
import io

import pytest

from lcmat.lbcs_report import lbcs_csv, lbcs_markdown, read_published, rows_of


def record(method: str, k: int, seed: int, best: float, size: int, **options: object) -> dict:
    """What the report reads of a record."""
    training = {"epochs": 100, "optimizer": "Adam", "lr": 1e-3, "batch": 128, "augmentation": "none"}
    return {
        "dataset": "FashionMNIST", "selection_model": "LeNet", "test_model": "LeNet", "selection": method, "seed": seed,
        "fraction": k / 60_000, "test_accuracy": best - 1, "best_test_accuracy": best, "subset_size": size,
        "test_interval": 1, "tests": [],
        "config": {"budget": k, "options": options, "training": training, "precision": "float32"},
    }  # fmt: skip


RECORDS = [
    record("LBCS", 1000, 0, 79.0, 950, start="Uniform", trials=500),
    record("LBCS", 1000, 1, 81.0, 960, start="Uniform", trials=500),
    record("LBCS", 1000, 0, 70.0, 900, start="LCMat-S", trials=500),
    record("Uniform", 1000, 0, 75.0, 1000),
    record("Uniform", 1000, 1, 77.0, 1000),
    record("LCMat-S", 1000, 0, 76.5, 1000),
    record("LBCS", 2000, 0, 83.0, 1900, start="Uniform", trials=500),
]


def test_published_figures() -> None:
    published = read_published()
    assert published["FashionMNIST", "LeNet", "LBCS", 1000, "optimised size"] == (956.7, 3.5)
    assert published["FashionMNIST", "LeNet", "GraNd", 2000, "test accuracy %"] == (71.7, 2.3)


def test_rows_by_size_and_method_uniform_first_and_lbcs_last() -> None:
    rows = rows_of(RECORDS)
    assert [(row.k, row.method) for row in rows] == [
        (1000, "Uniform"),
        (1000, "LCMat-S"),
        (1000, "LBCS (start LCMat-S)"),
        (1000, "LBCS (start Uniform)"),
        (2000, "LBCS (start Uniform)"),
    ]
    assert rows[3].sizes == (950, 960)
    assert rows[3].cell.best == (79.0, 81.0)
    assert rows[0].published == (76.9, 2.5)
    assert rows[1].published is None


def test_markdown() -> None:
    lines = [line.split("|") for line in lbcs_markdown(RECORDS).splitlines() if line.startswith("| 1,000")]
    cells = {line[2].strip(): [cell.strip() for cell in line[3:-1]] for line in lines}
    uniform, lbcs = cells["Uniform"], cells["LBCS (start Uniform)"]
    assert uniform == ["2", "76.00 ± 1.41", "75.00 ± 1.41", "1,000", "76.9 ± 2.5", "-0.90", ""]
    assert lbcs == ["2", "**80.00 ± 1.41**", "79.00 ± 1.41", "955.0 ± 7.1", "79.7 ± 0.7", "+0.30", "956.7 ± 3.5"]
    assert cells["LCMat-S"][1] == "<u>76.50</u>"
    assert cells["LCMat-S"][4:] == ["", "", ""]


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(lbcs_csv(RECORDS))))
    assert len(rows) == 5
    assert float(rows[3]["size_mean"]) == pytest.approx(955)
    assert float(rows[3]["best_std"]) == pytest.approx(2**0.5)
    assert rows[1]["published_mean"] == ""
    assert float(rows[4]["published_size_mean"]) == 1915.3
