"""Tests in the wings of the library; beside them what they share: oracles, problems, the harness."""
