"""The table of LBCS's experiments, from records written by hand."""

import csv
import io

import pytest

from lcmat.reports.lbcs import lbcs_csv, lbcs_markdown, read_published, rows_of


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
    record("LBCS", 1000, 0, 79.0, 950, init_selection="Uniform", trials=500),
    record("LBCS", 1000, 1, 81.0, 960, init_selection="Uniform", trials=500),
    record("LBCS", 1000, 0, 70.0, 900, init_selection="LCMat-S", trials=500),
    record("Uniform", 1000, 0, 75.0, 1000),
    record("Uniform", 1000, 1, 77.0, 1000),
    record("LCMat-S", 1000, 0, 76.5, 1000),
    record("LBCS", 2000, 0, 83.0, 1900, init_selection="Uniform", trials=500),
]


def test_published_figures() -> None:
    published = read_published()
    assert published["FashionMNIST", "LeNet", "LBCS", 1000, "optimised size"] == (956.7, 3.5)
    assert published["FashionMNIST", "LeNet", "GraNd", 2000, "test accuracy %"] == (71.7, 2.3)


def test_rows_by_size_and_method_uniform_first_and_lbcs_last() -> None:
    rows = rows_of(RECORDS)
    assert [(row.k, row.method) for row in rows] == [
        ("1,000", "Uniform"),
        ("1,000", "LCMat-S"),
        ("1,000", "LBCS (init_selection LCMat-S)"),
        ("1,000", "LBCS (init_selection Uniform)"),
        ("2,000", "LBCS (init_selection Uniform)"),
    ]
    assert rows[3].sizes == (950, 960)
    assert rows[3].cell.best == (79.0, 81.0)
    assert rows[0].published == (76.9, 2.5)
    assert rows[1].published is None
    assert rows[2].published is None, "what was published is of the random start"
    assert rows[3].published_size == (956.7, 3.5)


def changed(record: dict, **config: object) -> dict:
    return {**record, **{k: v for k, v in config.items() if k in record}, "config": {**record["config"], **config}}


def test_other_data_and_networks_have_tables_of_their_own() -> None:
    noisy = changed(RECORDS[3], dataset="FashionMNIST-noise0.3")
    crossed = changed(RECORDS[3], test_model="ResNet10")
    text = lbcs_markdown([*RECORDS, noisy, crossed])
    assert [line.partition(" trained")[0] for line in text.splitlines() if " trained " in line] == [
        "FashionMNIST, LeNet", "FashionMNIST-noise0.3, LeNet", "FashionMNIST, ResNet10"
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(lbcs_csv([*RECORDS, noisy, crossed]))))
    places = [(row["dataset"], row["test_model"]) for row in rows if row["published_mean"]]
    assert len(places) == 3
    assert set(places) == {("FashionMNIST", "LeNet")}


def test_svhn_stands_beside_its_published_figures() -> None:
    (row,) = rows_of([changed(RECORDS[0], dataset="SVHN", test_model="SVHN-CNN")])
    assert (row.published, row.published_size) == ((70.6, 0.3), (970.0, 4.8))


def test_runs_by_fraction_and_full() -> None:
    """Which have no number that they were asked for."""
    share = changed(RECORDS[0], budget=None, fraction=0.02)
    full = changed(record("Full", 60_000, 0, 90.0, 60_000), budget=None, fraction=1.0)
    rows = rows_of([*RECORDS, share, full])
    assert [(row.k, row.method) for row in rows][-3:] == [
        ("2%", "LBCS (init_selection Uniform)"), ("2,000", "LBCS (init_selection Uniform)"), ("100%", "Full")
    ]  # fmt: skip
    assert rows[-1].published is None
    assert "| 100%" in lbcs_markdown([*RECORDS, full])
    assert "100%,Full" in lbcs_csv([*RECORDS, full])


def test_markdown() -> None:
    lines = [line.split("|") for line in lbcs_markdown(RECORDS).splitlines() if line.startswith("| 1,000")]
    cells = {line[2].strip(): [cell.strip() for cell in line[3:-1]] for line in lines}
    uniform, lbcs = cells["Uniform"], cells["LBCS (init_selection Uniform)"]
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
