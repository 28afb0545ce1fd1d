"""Downloading, from a server on the loopback address: checked, atomic, and gone without a trace if it fails."""

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision

from lcmat import data
from lcmat.errors import UserError


def cifar10_archive(path: Path) -> str:
    """Write a small archive in CIFAR-10's format and return its md5."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {n: {"data": np.full((10, 3072), i, np.uint8), "labels": list(range(10))} for i, n in enumerate(names)}
    files["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            raw = pickle.dumps(content, protocol=2)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return hashlib.md5(path.read_bytes()).hexdigest()


class Handler(SimpleHTTPRequestHandler):
    """Serves files without a word on stderr."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The archive that torchvision's address and checksum lead to, served on the loopback address."""
    archive = tmp_path / "server" / torchvision.datasets.CIFAR10.filename
    archive.parent.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(archive.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", cifar10_archive(archive))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    yield archive
    server.shutdown()
    server.server_close()


def test_download_lands_whole_in_the_data_folder(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    loaded = data.load("CIFAR10", folder)
    assert capfd.readouterr() == ("", ""), "no progress bar where there is no terminal"
    assert len(loaded.train) == 50
    assert loaded.train.images[-1].unique().tolist() == [4]
    assert [path.name for path in folder.iterdir()] == [source.name]
    source.unlink()  # the second time it is found locally
    assert data.load("CIFAR10", folder).fingerprint() == loaded.fingerprint()


@pytest.mark.parametrize("existing", [False, True], ids=["new folder", "existing folder"])
def test_wrong_checksum_is_refused_and_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    folder = tmp_path / "data"
    if existing:
        folder.mkdir()
        (folder / "other").write_text("kept")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(UserError, match=r"could not be downloaded \(.*corrupted.*\); put the files there"):
        data.load("CIFAR10", folder)
    assert [path.name for path in folder.iterdir()] == ["other"] if existing else not folder.exists()
