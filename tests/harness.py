"""What tests of every wing share: where the project lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
