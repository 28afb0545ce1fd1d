"""Hashes that name things by all that determines them."""

from __future__ import annotations

import hashlib
import json


def config_hash(config: object) -> str:
    """Return twelve hexadecimal digits that depend on every value of a JSON-like configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
