"""Labels are matched by name: across files, splits and folders, whatever number each gives a class."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from lcmat.data import Dataset, load
from lcmat.data.labels import LabelColumn, numbered
from tests.data_files import encoded, flat, put, refusal, write_parquet

pytestmark = pytest.mark.usefixtures("hosts")

CLASSES = ("dark", "mid", "light")
SHADES = {"dark": 10, "mid": 100, "light": 200}  # an image says by its pixels what it is of


def write(path: Path, names: list[str], order: tuple[str, ...] | None = CLASSES) -> None:
    """Write a Parquet file of images of these classes, as a ClassLabel in an order of its own, or as text (None)."""
    labels = names if order is None else [order.index(name) for name in names]
    write_parquet(path, [encoded(flat([SHADES[name]])[0]) for name in names], order or (), label=labels)


def shown(dataset: Dataset) -> list[tuple[str, str]]:
    """Return for each image of both splits the name of its label and what its pixels say."""
    of_shade = {shade: name for name, shade in SHADES.items()}
    pairs = []
    for split in (dataset.train, dataset.test):
        for label, image in zip(split.labels.tolist(), split.images, strict=True):
            pairs.append((dataset.classes[label], of_shade[int(image[0, 0, 0])]))
    return pairs


@pytest.mark.parametrize(
    ("order", "tested"),
    [(CLASSES, CLASSES), (("light", "dark", "mid"), CLASSES), (("light", "dark"), ("dark", "light")), (None, CLASSES)],
    ids=["same", "other_order", "one_absent", "text"],
)
@pytest.mark.parametrize("train_order", [CLASSES, None], ids=["declared", "text"])
def test_a_test_split_has_an_order_of_its_own(tmp_path: Path, train_order: tuple, order: tuple, tested: tuple) -> None:
    """Cases b and c of the report: 0% and 50% in place of 100%."""
    write(tmp_path / "train.parquet", [*CLASSES] * 2, train_order)
    write(tmp_path / "test.parquet", [*tested], order)
    pairs = shown(load(f"hf:{tmp_path}"))
    assert len(pairs) == 6 + len(tested)
    assert all(name == seen for name, seen in pairs)


def test_many_files_of_all_kinds_agree_on_what_the_pixels_say(tmp_path: Path) -> None:
    """Case d and its like: parts in any order, with some of the classes, as numbers with names or as text."""
    draw = np.random.default_rng(0)
    for trial in range(12):
        folder = tmp_path / str(trial)
        for split, count in (("train", 3), ("test", 2)):
            for part in range(count):
                own = draw.permutation(CLASSES)[: 3 if part == 0 else draw.integers(1, 4)].tolist()
                order = None if draw.random() < 0.3 else tuple(own)
                write(folder / f"{split}-{part}.parquet", draw.choice(own, 5).tolist() + own, order)
        pairs = shown(load(f"hf:{folder}"))
        assert pairs
        assert all(name == seen for name, seen in pairs)


def test_a_later_file_may_add_a_class_and_the_order_is_that_of_declaration(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", ["mid", "dark"], ("mid", "dark"))
    write(tmp_path / "train-1.parquet", ["light", "mid"], ("light", "mid"))
    write(tmp_path / "test.parquet", ["light"], ("light",))
    dataset = load(f"hf:{tmp_path}")
    assert dataset.classes == ("mid", "dark", "light")
    assert dataset.train.labels.tolist() == [0, 1, 2, 0]
    assert dataset.test.labels.tolist() == [2]


Given = tuple[list, tuple[str, ...] | None]  # values and names of a file


@pytest.mark.parametrize(
    ("train", "test", "classes", "labels", "line"),
    [
        (([0, 1], ("x", "y")), ([1, 0], None), ("x", "y"), [1, 0], "has numbers without names"),
        (([0, 1], None), ([1, 0], ("y", "x")), ("0", "1"), [1, 0], "labels are matched by number"),
        (([0, 1], ("0", "1")), ([0, 1], ("1", "0")), ("0", "1"), [1, 0], None),
        ((list(range(10)), tuple("0123456789")), ([0, 1], ("3", "7")), tuple("0123456789"), [3, 7], None),
        (([1, 2, 10], None), (["10", "1"], None), ("1", "2", "10"), [2, 0], None),
        ((["1", "10", "2"], None), ([10, 2], None), ("1", "10", "2"), [1, 2], None),
        (([1.0, 2.0], None), ([2, 1], None), ("1.0", "2.0"), [1, 0], None),
        (([False, True], None), ([1, 0], None), ("False", "True"), [1, 0], None),
        (([b"cat", b"dog"], None), (["dog"], None), ("cat", "dog"), [1], None),
        ((["z", "é"], None), ([unicodedata.normalize("NFD", "é")], None), ("z", "é"), [1], None),
        (([0, 1], ("x", "y")), ([1.0], None), ("x", "y"), [1], "has numbers without names"),
    ],
    ids=[
        "numbers_after_names", "names_after_numbers", "digits_by_name", "some_digits_by_name", "text_of_numbers",
        "numbers_of_text", "floats", "truth", "bytes", "encoding_of_accents", "floats_after_names",
    ],
)  # fmt: skip
def test_labels_of_two_kinds(train: Given, test: Given, classes: tuple, labels: list[int], line: str | None) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = numbered([LabelColumn("train", *train)], [LabelColumn("test", *test)])
    assert found[0] == classes
    assert found[1].tolist() == list(range(len(classes)))
    assert found[2].tolist() == labels
    assert [line in str(one.message) for one in said] == [True] * (line is not None)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([([0, 1], ("x", "y"))], ([0], ("z",)), "label 'z', which is none of the training classes"),
        ([(["Cat"], None)], (["cat"], None), "label 'cat', which is none"),
        ([([0], ("x", "y"))], ([1], ("x", "y")), "label 'y', which no training image is of"),
        ([([0, 1], ("x", "y"))], ([2], None), "label '2', which is none"),
        ([([0, 1], ("x", "y"))], ([-1], ("x", "y")), "label '-1', which is none"),
        ([([0, 1], ("x", "y")), ([0, 1], ("y", "x")), ([0], None)], ([0], ("x",)), "name in several orders"),
        ([([0], None), (["x"], None)], ([0], None), "numbers in one and text in another"),
        ([([0.0, 0.5, 1.0], None)], ([0.5], None), "labels are measurements, such as 0.5, and no classes"),
        ([([0, 1], ("é", unicodedata.normalize("NFD", "é")))], ([0], None), "how letters are encoded alone"),
        ([([0, None, 1], None)], ([0], None), "1 rows have no label"),
        ([([0.0, float("nan")], None)], ([0], None), "1 rows have no label"),
        ([([], None)], ([0], None), "the training split is empty"),
        ([(["x"], None)], ([f"{i}" for i in range(900)], None), "and 895 more"),
        ([(["x"], None)], (["y" * 5000], None), "yyy…"),
    ],
    ids=[
        "unknown_name", "other_case", "untrained", "number_too_large", "no_test_labels", "unclear_numbers",
        "numbers_and_text", "measurements", "encodings", "missing", "nan", "empty", "many", "long",
    ],
)  # fmt: skip
def test_labels_that_are_refused(train: list[Given], test: Given, message: str) -> None:
    said = refusal(numbered, [LabelColumn("a file", *given) for given in train], [LabelColumn("a file", *test)])
    assert message in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("labels", "column"),
    [([[0], [1]], "label"), ([{"a": 0}] * 2, "label"), ([0, 1], "species")],
    ids=["lists", "mappings", "absent"],
)
def test_labels_of_another_kind_in_the_test_split_alone(tmp_path: Path, labels: list, column: str) -> None:
    images = [encoded(flat([i])[0]) for i in range(2)]
    write_parquet(tmp_path / "train.parquet", images, label=[0, 1])
    write_parquet(tmp_path / "test.parquet", images, **{column: labels})
    message = refusal(load, f"hf:{tmp_path}")
    assert str(tmp_path / "test.parquet") in message
    assert "'label'" in message


def test_categories_as_pandas_writes_them(tmp_path: Path) -> None:
    images = [encoded(flat([i])[0]) for i in range(3)]
    write_parquet(tmp_path / "train.parquet", images, label=["dog", "cat", "dog"])
    table = pyarrow.parquet.read_table(tmp_path / "train.parquet")
    coded = table.set_column(1, "label", table.column("label").dictionary_encode())
    pyarrow.parquet.write_table(coded, tmp_path / "train.parquet")
    write_parquet(tmp_path / "test.parquet", images, label=["cat", "dog", "cat"])
    dataset = load(f"hf:{tmp_path}")
    assert dataset.classes == ("cat", "dog")
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([1, 0, 1], [0, 1, 0])


def test_folders_whose_names_are_encoded_differently_are_one_class(tmp_path: Path) -> None:
    for place, name in (("train", "é"), ("train", "z"), ("test", unicodedata.normalize("NFD", "é"))):
        put(tmp_path / place / name / "0.png", encoded(flat([5])[0]))
    dataset = load("ImageFolder", tmp_path)
    assert dataset.classes == ("z", "é")
    assert dataset.test.labels.tolist() == [1]
    put(tmp_path / "train" / unicodedata.normalize("NFD", "é") / "0.png", encoded(flat([5])[0]))
    assert "how letters are encoded alone" in refusal(load, "ImageFolder", tmp_path)
