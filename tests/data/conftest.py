"""Without a network, and apart from what the machine's user has cached."""

import socket
from collections.abc import Iterator

import datasets
import huggingface_hub
import pytest

from lcmat.data import archives


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Cut the network and list the hosts asked for: a test that expects any says so by clearing the list."""
    asked = []

    def refuse(host: str, *args: object, **options: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(archives, "SYSTEM_FOLDERS", {})
    for module in (huggingface_hub.constants, datasets.config):  # the loader switches them off for the process
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", module.HF_HUB_OFFLINE)
    yield asked
    assert asked == []
