"""Records: one JSON file for each run, the hashes that name it and what it keeps, and where these lie.

What a run does to earn its record belongs to `runs`; what tables make of records, to `reports`.
"""

from lcmat.records.environment import environment
from lcmat.records.keys import config_hash
from lcmat.records.place import record_path, slug
from lcmat.records.record import read_record, read_records, write_record

__all__ = ["config_hash", "environment", "read_record", "read_records", "record_path", "slug", "write_record"]
