"""Hashes that name things by all that determines them, and the formats of what is kept under such names."""

from __future__ import annotations

import hashlib
import json

# The format of each kind of file in the cache is part of its name: raise it when what the files mean changes.
FORMATS = {"signals": 1, "synthetic": 2, "analyses": 1}


def config_hash(config: object) -> str:
    """Return twelve hexadecimal digits that depend on every value of a JSON-like configuration.

    Twelve are short enough for a file's name; among a million configurations two share them once in 500 times.
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def bytes_hash(*parts: bytes) -> str:
    """Return sixteen hexadecimal digits that depend on every byte, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
