"""Which Parquet files belong together, and which files a row of them may name."""

import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from lcmat.data import load
from tests.data_files import encoded, flat, put, refusal, write_parquet

pytestmark = pytest.mark.usefixtures("hosts")


def write(path: Path, *values: int) -> None:
    """Write images whose pixels and labels are these values."""
    write_parquet(path, [encoded(flat([value])[0]) for value in values], label=values)


def values(folder: Path, **columns: str) -> tuple[list[int], list[int]]:
    """Return what the images of both splits hold."""
    dataset = load(f"hf:{folder}", columns=columns)
    return tuple(split.images[:, 0, 0, 0].tolist() for split in (dataset.train, dataset.test))


def configurations(folder: Path, *places: str) -> None:
    for number, place in enumerate(places):
        write(folder / place / "train.parquet", 10 * number, 10 * number + 1)
        write(folder / place / "test.parquet", 10 * number)


@pytest.mark.parametrize(
    ("places", "known"),
    [
        (("clean", "other"), "clean, other"),
        (("data/clean", "data/other"), "clean, other"),
        (("a/x", "b/x"), "a/x, b/x"),
        ((".", "old"), "old, ."),
    ],
    ids=str,
)
def test_several_configurations_are_listed_and_one_is_chosen(tmp_path: Path, places: tuple, known: str) -> None:
    """Case e of the report: they were joined into one dataset."""
    configurations(tmp_path, *places)
    expected = f"{tmp_path} holds 2 configurations; name one with --config_name: {known}"
    assert refusal(load, f"hf:{tmp_path}") == expected
    found = [values(tmp_path, config_name=name) for name in sorted(known.split(", "))]
    assert sorted(found) == [([0, 1], [0]), ([10, 11], [10])]
    message = refusal(load, f"hf:{tmp_path}", columns={"config_name": "zzz"})
    assert message == f"{tmp_path} has no configuration 'zzz'; known: {known}"


def test_a_configuration_given_stands_in_name_and_variant(tmp_path: Path) -> None:
    configurations(tmp_path / "pets", "clean", "other")
    dataset = load(f"hf:{tmp_path / 'pets'}", columns={"config_name": "other"})
    assert (dataset.name, dataset.variant) == ("hf:pets:other", {"config_name": "other"})
    alone = load(f"hf:{tmp_path / 'pets/other'}")
    assert (alone.name, alone.variant, alone.fingerprint()) == ("hf:other", {}, dataset.fingerprint())


def test_one_configuration_needs_no_name(tmp_path: Path) -> None:
    configurations(tmp_path, "data/plain")
    assert values(tmp_path) == values(tmp_path, config_name="plain") == ([0, 1], [0])


def test_configurations_are_for_hugging_face_datasets() -> None:
    assert "--config_name is for hf: datasets" in refusal(load, "digits", columns={"config_name": "plain"})


README = """---
configs:
- config_name: en
  data_files:
  - split: train
    path: data/train-en-*
  - split: test
    path: [data/test-en-*]
- config_name: fr
  data_files: {train: data/train-fr-*, test: data/test-fr-*}
---
"""


def test_configurations_that_share_a_folder_are_those_of_the_readme(tmp_path: Path) -> None:
    for number, language in enumerate(("en", "fr")):
        for split in ("train", "test"):
            write(tmp_path / f"data/{split}-{language}-00000-of-00001.parquet", 10 * number, 10 * number + 1)
    assert "several versions" in refusal(load, f"hf:{tmp_path}")
    (tmp_path / "README.md").write_text(README)
    assert "2 configurations; name one with --config_name: en, fr" in refusal(load, f"hf:{tmp_path}")
    assert values(tmp_path, config_name="fr") == ([10, 11], [10, 11])


@pytest.mark.parametrize(
    "text",
    ["no header", "---\nconfigs: [[[\n---\n", "---\nconfigs: 3\n---\n", "---\n" + "[" * 5000 + "\n---\n",
     README.replace("data/", "../secret/"), README.replace("data/", "/etc/")],
    ids=["none", "broken", "number", "deep", "above", "absolute"],
)  # fmt: skip
def test_a_readme_that_declares_nothing_of_use(tmp_path: Path, text: str) -> None:
    configurations(tmp_path / "pets", ".")
    configurations(tmp_path / "secret", "data/train-en-")
    (tmp_path / "pets/README.md").write_text(text)
    assert values(tmp_path / "pets") == ([0, 1], [0])


def test_the_librarys_configurations_are_listed_too(
    tmp_path: Path, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of images whose README.md declares two."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for value, name in ((5, "en"), (9, "fr")):
        for part in ("train", "test"):
            for kind in ("cat", "dog"):
                put(tmp_path / "pets" / name / part / kind / "0.png", encoded(flat([value])[0]))
    declared = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("en", "fr"))
    put(tmp_path / "pets/README.md", f"---\nconfigs:\n{declared}---\n")
    assert "2 configurations; name one with --config_name: en, fr" in refusal(load, f"hf:{tmp_path / 'pets'}")
    assert values(tmp_path / "pets", config_name="fr") == ([9, 9], [9, 9])
    assert "did you mean en?" in refusal(load, f"hf:{tmp_path / 'pets'}", columns={"config_name": "enn"})
    hosts.clear()


def test_what_save_to_disk_left_is_read(tmp_path: Path, hosts: list[str]) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    content = {"image": [Image.new("RGB", (4, 4), (v,) * 3) for v in (5, 9)], "label": [0, 1]}
    split = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict(train=split, test=split).save_to_disk(str(tmp_path / "saved"))
    assert values(tmp_path / "saved") == ([5, 9], [5, 9])
    hosts.clear()


@pytest.mark.parametrize(
    "hidden", [".ipynb_checkpoints/train-checkpoint.parquet", "._train.parquet", ".old/x/train.parquet"]
)
def test_hidden_files_are_counted(tmp_path: Path, hidden: str) -> None:
    configurations(tmp_path, ".")
    write(tmp_path / hidden, 99)
    with pytest.warns(UserWarning, match="left out 1 hidden Parquet files"):
        assert values(tmp_path) == ([0, 1], [0])


def test_files_of_a_split_in_folders_of_their_own(tmp_path: Path) -> None:
    for place, value in (("train/0000", 1), ("train/0001", 2), ("test/0000", 2)):
        write(tmp_path / f"a/{place}.parquet", value)
    for place, value in (("train/left", 1), ("train/right", 2), ("test/left", 2)):
        write(tmp_path / f"b/{place}.parquet", value)
    assert values(tmp_path / "a") == values(tmp_path / "b") == ([1, 2], [2])


def test_missing_parts_are_said(tmp_path: Path) -> None:
    for part in (0, 2):
        write(tmp_path / f"train-0000{part}-of-00003.parquet", part)
    write(tmp_path / "test.parquet", 0)
    with pytest.warns(UserWarning, match="2 of 3 files of split 'train' are here"):
        assert values(tmp_path) == ([0, 2], [0])


@pytest.mark.parametrize("other", ["train-00000-of-00002", "train", "train-en-00000-of-00001"])
def test_several_versions_of_a_split_are_refused(tmp_path: Path, other: str) -> None:
    """A download beside an older one: each image would be there twice."""
    for name in ("train-00000-of-00001", other, "test"):
        write(tmp_path / f"{name}.parquet", 1)
    assert "split 'train' is here in several versions" in refusal(load, f"hf:{tmp_path}")


# --- rows that name a file --------------------------------------------------------------------------------------------


def write_row(folder: Path, path: str | None) -> None:
    """Write splits whose only image is a file of this name, and no bytes."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array([{"bytes": None, "path": path}], kind), "label": [0]})
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")


@pytest.mark.parametrize("name", ["images/0.png", "{}/images/0.png", "images/link.png", "../pets/images/0.png"])
def test_a_file_of_the_datasets_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its name counts from the dataset's folder, not from where the command runs."""
    folder = tmp_path / "pets"
    put(folder / "images/0.png", encoded(flat([77])[0]))
    (folder / "images/link.png").symlink_to("0.png")
    write_row(folder, name.format(folder))
    monkeypatch.chdir(tmp_path)
    assert values(folder) == ([77], [77])


def linked(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "above").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "fifo.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "lies outside"),
        ("{}/secret.png", "lies outside"),
        ("link.png", "lies outside"),
        ("above/secret.png", "lies outside"),
        ("loop/x.png", "lies outside"),
        ("a\0b", "lies outside"),
        ("x" * 9000, "lies outside"),
        ("/proc/self/environ", "lies outside"),
        ("fifo.png", "is not there"),
        (".", "is not there"),
        ("http://localhost/0.png", "is not there"),
        ("~/secret.png", "is not there"),
    ],
    ids=lambda text: text[:20].replace("\0", "0").replace("/", "_"),
)
def test_any_other_file_is_not_read(tmp_path: Path, name: str, reason: str) -> None:
    """A Parquet file from somebody else had files of this machine read and exported."""
    folder = tmp_path / "pets"
    put(tmp_path / "secret.png", encoded(flat([99])[0]))
    write_row(folder, name.format(tmp_path))
    linked(folder)
    message = refusal(load, f"hf:{folder}")
    assert reason in message
    assert message.startswith(f"{folder / 'train.parquet'}: an image is given as a file, ")
    assert len(message) < 400


@pytest.mark.parametrize("name", [None, ""])
def test_a_row_with_neither_bytes_nor_file(tmp_path: Path, name: str | None) -> None:
    write_row(tmp_path / "pets", name)
    assert refusal(load, f"hf:{tmp_path / 'pets'}").startswith("cannot read image (unnamed) of ")


@pytest.mark.parametrize(
    "write_column", [lambda: ["/etc/hostname"], lambda: [encoded(flat([5])[0])]], ids=["text", "bytes"]
)
def test_columns_that_are_no_images(tmp_path: Path, write_column: Callable[[], list]) -> None:
    table = pyarrow.table({"image": write_column(), "label": [0]})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    assert "column 'image' holds no images" in refusal(load, f"hf:{tmp_path}")
