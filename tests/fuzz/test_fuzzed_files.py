"""Damaged files and settings by the thousand: read, or refused in one sentence; nothing else.

Each input may take 5 s, and all of a reader's inputs 3 GB (in the long form, where a process of its
own reads them). The inputs are the same in every run.
"""

from __future__ import annotations

import pytest
from limited import fuzz, fuzz_within_memory
from readers import READERS

#: Inputs of each reader in the long form.
MANY = 1_500


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, tmp_path):
    reader = READERS[name]
    outcome = fuzz(reader.inputs, lambda content: reader.read(content, tmp_path), reader.short)
    assert not outcome.failures, outcome
    assert outcome.counts["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_by_the_thousand(name, tmp_path):
    reader = READERS[name]
    outcome = fuzz_within_memory(reader.inputs, lambda c: reader.read(c, tmp_path), MANY)
    print(f"{name}: {dict(outcome.counts)}")
    assert not outcome.failures, outcome
