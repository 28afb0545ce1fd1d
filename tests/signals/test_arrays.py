"""Signals from arrays as people have them: types, byte orders, tables, lists of batches, labels that are text."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch

from lcmat import Signals, Subset, UserError
from lcmat.runs.signal_files import load_signals
from methods import select

NAMES = np.array(["cat", "dog", "owl"])
Y = np.arange(60) % 3
RNG = np.random.default_rng(0)
F, Z = RNG.normal(size=(60, 8)).astype("f4"), RNG.normal(size=(60, 3)).astype("f4")


def picks(**fields: object) -> list[int]:
    """What is selected of the samples with some fields in other forms."""
    return select(Signals(**{"features": F, "logits": Z, "labels": Y} | fields), fraction=0.2).indices.tolist()


FORMS = {
    "big-endian features": {"features": F.astype(">f4")},
    "big-endian labels": {"labels": Y.astype(">i8")},
    "long double": {"features": F.astype(np.longdouble)},
    "unsigned labels": {"labels": Y.astype(np.uint64)},
    "16-bit unsigned labels": {"labels": Y.astype(">u2")},
    "objects": {"labels": Y.astype(object), "features": F.astype(object).astype(np.float32)},
    "a masked array without a mask": {"features": np.ma.masked_array(F), "labels": np.ma.masked_array(Y)},
    "a list of rows": {"features": list(torch.from_numpy(F)), "labels": list(Y)},
    "a list of tensors": {"labels": list(torch.from_numpy(Y))},
    "a list of batches": {"features": list(torch.from_numpy(F).split(16)), "labels": list(torch.tensor(Y).split(9))},
    "a list of arrays of batches": {"features": np.array_split(F, 7), "labels": np.array_split(Y, 4)},
    "tables": {"features": pd.DataFrame(F), "logits": pd.DataFrame(Z), "labels": pd.Series(Y)},
    "a table with an index of its own": {"labels": pd.Series(Y, index=np.arange(60)[::-1])},
    "nullable integers": {"labels": pd.array(Y, dtype="Int64")},
    "a sparse matrix": {"features": scipy.sparse.csr_matrix(F)},
    "a sparse tensor": {"features": torch.from_numpy(F).to_sparse()},
    "a quantized tensor": {"features": torch.quantize_per_tensor(torch.from_numpy(F), 1e-6, 0, torch.qint32)},
    "a column of `datasets`' text": {"labels": pa.chunked_array([NAMES[Y][:30], NAMES[Y][30:]])},
    "reversed strides": {"features": np.ascontiguousarray(F[::-1])[::-1]},
    "text": {"labels": NAMES[Y]},
    "a list of text": {"labels": NAMES[Y].tolist()},
    "objects of text": {"labels": NAMES[Y].astype(object)},
    "text of varying width": {"labels": NAMES[Y].astype(np.dtypes.StringDType())},
    "bytes": {"labels": np.char.encode(NAMES[Y])},
    "a list of bytes": {"labels": [name.encode() for name in NAMES[Y]]},
    "categories in another order": {"labels": pd.Categorical(NAMES[Y], categories=["owl", "cat", "dog"])},
    "a column of categories": {"labels": pd.Series(NAMES[Y], index=np.arange(60)[::-1], dtype="category")},
    "named integers": {"labels": Y, "class_names": ["cat", "dog", "owl"]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_the_same_signals_give_the_same_picks(form: str) -> None:
    assert picks(**FORMS[form]) == picks()


def test_parts_by_slices_are_those_by_positions() -> None:
    signals = Signals(features=F, logits=Z, labels=Y)
    assert torch.equal(signals[10:40:3].features, signals[torch.arange(10, 40, 3)].features)


def test_the_precision_of_lists_and_arrays_stays() -> None:
    """Lists of Python's numbers are float32, as PyTorch has it; arrays and tensors keep their own type."""
    wide = F.astype(np.float64)
    assert Signals(features=wide.tolist(), labels=Y).features.dtype == torch.float32
    for form in (wide, wide.astype(">f8"), wide.astype(np.longdouble), pd.DataFrame(wide), list(wide)):
        assert Signals(features=form, labels=Y).features.dtype == torch.float64
    assert Signals(features=F.astype(np.float16), labels=Y).features.dtype == torch.float32


@pytest.mark.parametrize("how", ["array", "list", "file"])
def test_labels_that_are_text_keep_their_names(how: str, tmp_path: Path) -> None:
    """Numbered in sorted order; the names stay with signals, parts of them, subsets, and files of these."""
    text = np.array(["owl", "cat", "dog"])[Y]
    if how == "file":
        np.savez(tmp_path / "s.npz", features=F, logits=Z, labels=text)
        signals = load_signals(tmp_path / "s.npz")
    else:
        signals = Signals(features=F, logits=Z, labels=text if how == "array" else text.tolist())
    assert signals.labels.tolist() == np.array([2, 0, 1])[Y].tolist()
    assert signals.class_names == signals[torch.arange(3)].class_names == ("cat", "dog", "owl")
    subset = select(signals, fraction=0.2)
    subset.save(tmp_path / "subset.npz")
    for one in (subset, subset.prefix(0.1), Subset.load(tmp_path / "subset.npz")):
        assert one.class_names == ("cat", "dog", "owl")
        assert [one.class_names[number] for number in one.classes] == text[one.indices].tolist()


def test_subsets_of_integers_have_no_names(tmp_path: Path) -> None:
    """And no further array in their files."""
    subset = select(Signals(features=F, logits=Z, labels=Y), fraction=0.2)
    subset.save(tmp_path / "subset.npz")
    assert subset.class_names is Subset.load(tmp_path / "subset.npz").class_names is None
    with np.load(tmp_path / "subset.npz") as file:
        assert "class_names" not in file.files


def test_class_names_say_which_column_is_which() -> None:
    """In place of the sorted order, and where a class has no sample."""
    signals = Signals(features=F, logits=Z, labels=NAMES[Y], class_names=["owl", "cat", "dog"])
    assert signals.labels.tolist() == np.array([1, 2, 0])[Y].tolist()
    few = Signals(logits=Z[:2], labels=["owl", "dog"], class_names=("cat", "dog", "owl"))
    assert few.labels.tolist() == [2, 1]


def test_a_validation_file_that_lacks_a_class_is_numbered_as_the_training_samples(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "s.npz", features=F, logits=Z, labels=NAMES[Y],
        validation_features=F[:2], validation_logits=Z[:2], validation_labels=["owl", "dog"],
    )  # fmt: skip
    assert load_signals(tmp_path / "s.npz").validation.labels.tolist() == [2, 1]


def test_numbers_as_text_in_their_own_order_are_names() -> None:
    """Without logits the order is nobody's but ours."""
    digits = np.array(["0", "1", "2"])[Y]
    assert picks(labels=digits) == picks()
    many = [str(number) for number in range(12)]
    assert Signals(labels=many).labels.tolist() == np.argsort(np.argsort(many)).tolist()
    with pytest.raises(UserError, match="numbers written as text"):
        Signals(logits=np.eye(12), labels=many)
    assert Signals(logits=np.eye(12), labels=many, class_names=many).labels.tolist() == list(range(12))


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("method", ["Uniform", "kCenterGreedy", "Herding", "Moderate"])
def test_labels_that_are_ids_cost_no_memory_by_their_size(method: str, balanced: bool) -> None:
    ids = np.array([10**9, 7, 4 * 10**12])
    order = np.argsort(np.argsort(ids))
    tracemalloc.start()
    subset = select(Signals(features=F, labels=ids[Y]), method, fraction=0.2, balanced=balanced)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    assert subset.class_names == ("7", "1000000000", "4000000000000")
    assert [int(subset.class_names[number]) for number in subset.classes] == ids[Y][subset.indices].tolist()
    plain = select(Signals(features=F, labels=order[Y]), method, fraction=0.2, balanced=balanced)
    assert subset.indices.tolist() == plain.indices.tolist()
    assert subset.prefix(0.1).class_sizes.tolist() == [20, 20, 20] if subset.nested else True


def test_labels_that_are_ids_beside_logits_are_refused() -> None:
    """Which column is meant is not known."""
    with pytest.raises(UserError, match="a label is 1000000000, but logits have 3 columns"):
        Signals(logits=Z, labels=Y + 10**9 - 2)


def masked(array: np.ndarray) -> np.ma.MaskedArray:
    """The array with a masked value in its fourth row."""
    found = np.ma.masked_array(array, mask=np.zeros(array.shape, bool))
    found[3] = np.ma.masked
    return found


REFUSED: dict[str, tuple[Callable[[], dict], str]] = {
    "dates": (lambda: {"labels": np.array(["2020-01-01"] * 60, "M8[D]")}, "labels must be integers or text, not dates"),
    "times": (lambda: {"features": F.astype("m8[s]")}, "features must be numbers, not dates or times"),
    "booleans": (lambda: {"labels": Y > 0}, "labels must be integers or text, not torch.bool"),
    "floats": (lambda: {"labels": Y.astype(float)}, "labels must be integers or text, not torch.float64"),
    "a missing label": (lambda: {"labels": [*NAMES[Y][:59], None]}, r"labels hold missing values, first at \[59\]"),
    "a missing category": (lambda: {"labels": pd.Categorical(["cat", None] * 30)}, "labels hold missing values"),
    "a missing feature": (
        lambda: {"features": pd.DataFrame(F).astype(object).where(F < 2, None)}, "features hold missing"),
    "a masked label": (lambda: {"labels": masked(Y)}, r"labels hold masked values, first at \[3\]"),
    "a masked feature": (lambda: {"features": masked(F)}, r"features hold masked values, first at \[3, 0\]"),
    "text for features": (lambda: {"features": F.astype(str)}, "features must be numbers, not text such as"),
    "a table with a column of text": (
        lambda: {"features": pd.DataFrame(F).assign(name="x")}, "features hold values of types float, str"),
    "numbers beside text": (lambda: {"labels": ["cat", 1] * 30}, "labels hold values of types int, str"),
    "tables in another order": (
        lambda: {"features": pd.DataFrame(F), "labels": pd.Series(Y).sample(frac=1, random_state=0)},
        "labels and features are tables whose indices differ"),
    "rows of unequal length": (lambda: {"features": [[1.0], [1.0, 2.0]] * 30}, "rows of equal length"),
    "batches of unequal width": (lambda: {"features": [F[:30], F[30:, :4]]}, "do not fit together"),
    "batches of images": (lambda: {"features": [F.reshape(60, 2, 4)]}, "list of arrays of 3 dimensions|3"),
    "a meta tensor": (lambda: {"features": torch.from_numpy(F).to("meta")}, "features are a meta tensor"),
    "a nested tensor": (
        lambda: {"features": torch.nested.nested_tensor(list(torch.from_numpy(F)))}, "features are a nested tensor"),
    "a dictionary": (lambda: {"features": {"a": F}}, "features must be an array or a tensor, not dict"),
    "a set": (lambda: {"labels": {0, 1}}, "labels must be an array or a tensor, not set"),
    "a generator": (lambda: {"labels": (y for y in Y)}, "labels must be an array or a tensor, not generator"),
    "one text": (lambda: {"labels": "cat"}, "labels must be an array or a tensor, not str"),
    "a number": (lambda: {"labels": 3}, r"labels must have shape \(n,\), not \(\)"),
    "records": (lambda: {"features": np.zeros(60, [("a", float)])}, "features must be numbers, not of type"),
    "beyond 64 bits": (lambda: {"labels": np.full(60, 2**63, np.uint64)}, "beyond 64-bit integers"),
    "objects beyond 64 bits": (lambda: {"labels": [2**70] * 60}, "labels hold a value that int64 cannot hold"),
    "bytes that are no text": (lambda: {"labels": [b"\xff\xfe"] * 60}, "labels hold bytes that are no text"),
    "other objects": (lambda: {"labels": [object()] * 60}, "labels hold values of types object"),
    "names of too few classes": (lambda: {"labels": NAMES[Y % 2]}, "labels name 2 classes, but logits have 3 columns"),
    "class_names of too many": (lambda: {"class_names": list("abcd")}, "class_names are 4 classes"),
    "class_names without a label's": (
        lambda: {"labels": NAMES[Y], "class_names": ["cat", "dog", "ox"]}, "a label is 'owl', which is none"),
    "class_names twice": (lambda: {"class_names": ["a", "a", "b"]}, "class_names hold a name twice"),
    "class_names of numbers": (lambda: {"class_names": [1, 2, 3]}, "class_names must be a list of texts"),
    "class_names as one text": (lambda: {"class_names": "abc"}, "class_names must be a list of texts"),
    "dynamics of no mapping": (lambda: {"dynamics": 5}, "dynamics must map correctness, margin, error_norm"),
    "dynamics of text": (lambda: {"dynamics": {"margin": [["a"] * 60]}}, "dynamics 'margin' must be numbers"),
    "dynamics named by a number": (lambda: {"dynamics": {1: 2}}, "unknown dynamics 1"),
    "initialisations of no list": (lambda: {"initialisations": 5}, "must be a list of Signals, not int"),
    "one initialisation": (
        lambda: {"initialisations": Signals(labels=Y)}, "initialisations must be a list of Signals, not Signals"),
    "validation as a tuple": (lambda: {"validation": (F, Z, Y)}, "validation must be Signals of a held-out split"),
    "validation of other classes": (
        lambda: {"labels": NAMES[Y], "validation": Signals(labels=np.array(["ant", "bee", "cow"])[Y])}, "other names"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_clear_meaning_is_refused_by_its_field(case: str) -> None:
    """In one line, without a library's own words at length."""
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        Signals(**{"features": F, "logits": Z, "labels": Y} | make())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_objects_in_files_are_refused_without_advice_to_unpickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", labels=NAMES[Y].astype(object))
    with pytest.raises(UserError, match=r"Python objects: make numbers of them, or text") as caught:
        load_signals(tmp_path / "s.npz")
    assert "pickle" not in str(caught.value)
