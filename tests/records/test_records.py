"""Records, tables and figures, from records written by hand."""

import csv
import io
import json
import statistics
from pathlib import Path

import pytest
import torch

from lcmat import records
from lcmat.files import check_writable, write_atomically, write_text
from lcmat.records.record import REQUIRED
from lcmat.reports import table_text, tables
from lcmat.reports.accuracy_figures import write_figures


def record(method: str = "LCMat-S", fraction: float = 0.001, seed: int = 0, **change: object) -> dict:
    """Return a record as a run of CIFAR-10 would leave it."""
    network = None if method == "Uniform" else {"model": "ResNet18", "pretrained_sha256": "ab"}
    config = {
        "dataset": "CIFAR10", "dataset_fingerprint": "f", "image_size": 32, "validation_ratio": None,
        "selection": method, "fraction": fraction, "budget": None, "balance": True,
        "options": {} if method == "Uniform" else {"rho": 0.1, "K": 100, "weights": False},
        "selection_network": network, "test_model": "ResNet18",
        "training": {"epochs": 200, "optimizer": "SGD", "lr": 0.1, "scheduler": "CosineAnnealingLR", "batch": 128,
                     "augmentation": "crop_flip"},
        "test_interval": 10, "test_fraction": 1.0, "precision": "bfloat16", "seed": seed,
    }  # fmt: skip
    made = {
        "dataset": "CIFAR10", "selection_model": "ResNet18", "test_model": "ResNet18", "selection": method,
        "fraction": fraction, "seed": seed, "test_accuracy": 20.0 + seed, "best_test_accuracy": 21.0 + seed,
        "test_interval": 10, "subset_size": 50, "seconds": {}, "config": config, "environment": {},
        "selection_network": network and {"given": "net.pt", "sha256": "ab"},
    }  # fmt: skip
    for key, value in change.items():
        (made if key in made else config)[key] = value
    return made


def save(folder: Path, *made: dict) -> list[Path]:
    paths = [records.record_path(folder, one["config"], one["selection_model"]) for one in made]
    for path, one in zip(paths, made, strict=True):
        records.write_record(path, one)
    return paths


def test_path_is_as_designed(tmp_path: Path) -> None:
    (path,) = save(tmp_path, record(seed=3))
    digest = records.config_hash(record(seed=3)["config"])
    assert path == tmp_path / "CIFAR10-ResNet18" / "LCMat-S" / f"fraction0.001-seed3-{digest}.json"
    assert records.read_record(path) == record(seed=3)


def test_hash_covers_every_value_whatever_the_order() -> None:
    config = record()["config"]
    assert records.config_hash(dict(reversed(config.items()))) == records.config_hash(config)
    for key in config:
        assert records.config_hash({**config, key: "other"}) != records.config_hash(config), key


@pytest.mark.parametrize("key", REQUIRED)
def test_incomplete_records_are_neither_written_nor_read(tmp_path: Path, key: str) -> None:
    made = {k: v for k, v in record().items() if k != key}
    with pytest.raises(ValueError, match=f"lacks '{key}'"):
        records.write_record(tmp_path / "x.json", made)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.json").write_text(json.dumps(made))
    assert records.read_record(tmp_path / "x.json") is None


def test_damaged_records_are_named_left_alone_and_not_counted(tmp_path: Path) -> None:
    first, second = save(tmp_path, record(seed=0), record(seed=1))
    second.write_text(second.read_text()[:100])
    content = second.read_text()
    made, damaged = table_text.write_tables(tmp_path)
    assert damaged == [second]
    assert second.read_text() == content
    assert made[0].cells["LCMat-S", 0.001].final == (20.0,)
    assert first.exists()


def test_mean_std_and_published(tmp_path: Path) -> None:
    made = [record(m, seed=s, test_accuracy=20 + s * s) for m in ("LCMat-S", "Uniform") for s in range(3)]
    (table,) = tables.accuracy_tables(made)
    assert table.methods == ["Uniform", "LCMat-S"]
    cell = table.cells["LCMat-S", 0.001]
    assert cell.final == (20, 21, 24)
    assert cell.best == (21, 22, 23)
    assert cell.published == tables.Published("1", 23.87, 1.1)
    assert cell.difference == pytest.approx(22 - 23.87)
    text = table_text.accuracy_markdown([table])
    spread = f"{statistics.mean((20, 21, 24)):.2f} ± {statistics.stdev((20, 21, 24)):.2f}"
    assert f"| LCMat-S | {spread}" in text
    assert "One f_T, 3 trainings (given network `net.pt`)" in text
    assert "23.87 ± 1.1 (Table 1)" in text
    assert "-1.87" in text
    assert "tested every 10 epochs" in text


def test_csv_holds_every_cell_unrounded(tmp_path: Path) -> None:
    made = [record(fraction=f, seed=s) for f in (0.001, 0.25) for s in range(2)]
    rows = list(csv.DictReader(io.StringIO(table_text.accuracy_csv(tables.accuracy_tables(made)))))
    assert [(row["method"], float(row["fraction"]), row["n"]) for row in rows] == [
        ("LCMat-S", 0.001, "2"),
        ("LCMat-S", 0.25, "2"),
    ]
    assert float(rows[0]["final_std"]) == statistics.stdev((20, 21))
    assert rows[1]["published_mean"] == ""


def test_one_seed_has_no_spread_and_missing_cells_show() -> None:
    text = table_text.accuracy_markdown(tables.accuracy_tables([record(fraction=0.01), record("Uniform")]))
    assert "| LCMat-S | –" in text
    assert "20.00 |" in text
    assert "±" not in text.split("Beside")[0].split("Method")[1]


@pytest.mark.parametrize(
    "change",
    [
        {"training": {**record()["config"]["training"], "epochs": 20}},
        {"test_interval": 1},
        {"precision": "float32"},
        {"dataset_fingerprint": "g"},
        {"balance": False},
        {"selection_network": {"model": "ResNet18", "pretrained_sha256": "cd"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_runs_that_differ_in_more_than_seed_and_method_share_no_table(change: dict) -> None:
    other = record(seed=1)
    other["config"] = {**other["config"], **change}
    assert len(tables.accuracy_tables([record(seed=0), other])) == 2


def test_uniform_stands_beside_every_selection_network() -> None:
    other = record(seed=0)
    other["config"] = {**other["config"], "selection_network": {"model": "ResNet18", "pretrained_sha256": "cd"}}
    made = tables.accuracy_tables([record(seed=0), other, record("Uniform")])
    assert [table.methods for table in made] == [["Uniform", "LCMat-S"]] * 2


def test_options_make_rows_of_their_own() -> None:
    made = [record(seed=0), record(seed=0, options={"rho": 0.5, "K": 100, "weights": False})]
    (table,) = tables.accuracy_tables(made)
    assert table.methods == ["LCMat-S (ρ = 0.1)", "LCMat-S (ρ = 0.5)"]
    assert "LCMat-S: K = 100, weights = False" in table.caption, "what all rows share stands once"


def test_options_that_depend_on_the_fraction_share_a_row() -> None:
    """Some defaults do; the caption says which are whose. Two sets at one fraction still make rows."""
    at_5 = {"rho": 0.5, "K": 100, "weights": False}
    made = [record(seed=0), record(seed=0, fraction=0.05, options=at_5)]
    (table,) = tables.accuracy_tables(made)
    assert set(table.cells) == {("LCMat-S", 0.001), ("LCMat-S", 0.05)}
    assert "LCMat-S: K = 100, weights = False, ρ = 0.1 at 0.1%, ρ = 0.5 at 5%" in table.caption
    (table,) = tables.accuracy_tables([*made, record(seed=1, options=at_5)])
    assert table.methods == ["LCMat-S (ρ = 0.1)", "LCMat-S (ρ = 0.5)"]
    assert " at " not in table.caption


def test_a_budget_that_is_the_same_fraction_is_no_second_training() -> None:
    (table,) = tables.accuracy_tables([record(seed=0), record(seed=0, budget=50), record(seed=1, budget=50)])
    assert table.cells["LCMat-S", 0.001].final == (20.0, 21.0)


def test_records_of_others_that_hold_less_are_tabulated() -> None:
    foreign = {key: value for key, value in record().items() if key in REQUIRED} | {"config": {}}
    text = table_text.accuracy_markdown(tables.accuracy_tables([foreign]))
    assert "20.00" in text
    assert "23.87 ± 1.1 (Table 1)" in text


def test_networks_pretrained_by_seed_share_a_table() -> None:
    made = [record(seed=s, selection_network=None) for s in range(2)]
    for one in made:
        one["config"]["selection_network"] = {
            "model": "ResNet18", "seed": one["seed"], "epochs": 10, "optimizer": "SGD", "lr": 0.1, "batch": 128,
        }  # fmt: skip
    (table,) = tables.accuracy_tables(made)
    assert "a network f_T of its own for each seed, pretrained 10 epochs" in table.caption


def own_networks(method: str, **change: object) -> dict:
    """Return a record of a method that trains ten networks of its own."""
    several = {"initialisations": {"model": "ResNet18", "count": 10, "epochs": 5, **change}}
    return record(method, selection_network=None) | {
        "config": {**record(method)["config"], "options": {}, "selection_network": several}
    }


def test_methods_with_networks_of_their_own_stand_beside_the_others() -> None:
    (table,) = tables.accuracy_tables([record(), record("Uniform"), own_networks("GraNd"), own_networks("EL2N")])
    assert table.methods == ["Uniform", "EL2N", "GraNd", "LCMat-S"]
    assert "GraNd: initialisations = 10, epochs of each = 5" in table.caption
    assert table.caption.startswith("one f_T")
    (table,) = tables.accuracy_tables([own_networks("GraNd"), own_networks("GraNd", count=3)])
    assert len(table.methods) == 2
    assert "f_T" not in table.caption


def test_methods_that_hold_validation_samples_out_stand_beside_those_that_do_not() -> None:
    matched = record("GradMatch-Val", validation_ratio=0.2) | {"needs": ["features", "logits", "validation"]}
    (table,) = tables.accuracy_tables([record(), record("Uniform"), matched])
    assert table.methods == ["Uniform", "GradMatch-Val", "LCMat-S"]
    assert "GradMatch-Val: 0.2 held out for validation, fractions are of the rest" in table.caption
    # Where all hold out, it belongs there; where some do and some do not, to both.
    held = record(validation_ratio=0.2)
    (table,) = tables.accuracy_tables([held, matched])
    assert "; 0.2 held out" in table.caption
    both = tables.accuracy_tables([record(), held, matched])
    assert [table.methods for table in both] == [["GradMatch-Val", "LCMat-S"]] * 2


def test_full_is_a_line_above_the_table_and_a_row_of_the_csv() -> None:
    full = record("Full", fraction=1.0, selection_network=None, options={}, test_accuracy=95.0)
    (table,) = made = tables.accuracy_tables([record(), record("Uniform"), full])
    assert table.methods == ["Uniform", "LCMat-S"]
    assert table.fractions == [0.001]
    text = table_text.accuracy_markdown(made)
    assert "Trained on everything: 95.00." in text
    assert "95.48 ± 0.1 (Table 1)" in text
    rows = list(csv.DictReader(io.StringIO(table_text.accuracy_csv(made))))
    assert [row["method"] for row in rows] == ["Uniform", "LCMat-S", "Full"]
    # Alone, or beside another selection of everything, it is a row like any other.
    for others in ([], [record(fraction=1.0)]):
        (table,) = tables.accuracy_tables([full, *others])
        assert "Full" in table.methods
        assert 1.0 in table.fractions


def test_published_figures_are_whole() -> None:
    figures = tables.read_published()
    assert figures["CIFAR10", "ResNet18", "ResNet18", "LCMat-S", 0.001] == tables.Published("1", 23.87, 1.1)
    assert figures["CIFAR100", "ResNet18", "ResNet18", "Uniform", 0.01].table == "1"
    assert figures["CIFAR100", "ResNet18", "WRN-16-8", "LCMat-S", 0.05] == tables.Published("2", 33.2, 0.7)
    assert figures["CIFAR10", "", "ResNet18", "Full", 1.0] == tables.Published("1", 95.48, 0.1)
    # The paper's scan is unreadable in these places: they stay missing.
    assert ("CIFAR10", "ResNet18", "ResNet18", "Craig", 0.1) not in figures
    assert all(0 < figure.mean < 100 for figure in figures.values())


def test_figures_are_drawn_and_repeatable(tmp_path: Path) -> None:
    made = [record(m, fraction=f, seed=s) for m in ("LCMat-S", "Uniform") for f in (0.001, 0.01) for s in range(2)]
    made_tables = tables.accuracy_tables(made)
    first = {path.name: path.read_bytes() for path in write_figures(made_tables, tmp_path)}
    assert set(first) == {"CIFAR10-ResNet18.png", "CIFAR10-ResNet18.pdf"}
    assert first["CIFAR10-ResNet18.png"].startswith(b"\x89PNG")
    assert {path.name: path.read_bytes() for path in write_figures(made_tables, tmp_path)} == first
    assert write_figures(tables.accuracy_tables([record()]), tmp_path) == []


def test_figures_of_many_methods_name_them_all(tmp_path: Path) -> None:
    made = [record(f"M{m}", fraction=f) for m in range(27) for f in (0.001, 0.01)]
    full = record("Full", fraction=1.0, selection_network=None, options={}, test_accuracy=95.0)
    png, _ = write_figures(tables.accuracy_tables([*made, full]), tmp_path)
    assert png.stat().st_size > 10_000


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def half(file: io.BufferedWriter) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_folders_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="below"):
        check_writable(tmp_path / "file" / "below")
    check_writable(tmp_path / "new" / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_environment_names_versions_and_no_host() -> None:
    import socket

    found = records.environment(torch.device("cpu"))
    assert found["torch"] == torch.__version__
    assert found["processor"]
    assert found["threads"] >= 1
    assert socket.gethostname() not in json.dumps(found)
