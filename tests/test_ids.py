"""Identifiers sort by time and read back."""

import time
import uuid

import pytest

from maas import ids


def test_uuid7_is_version_7_and_sorted_by_time() -> None:
    first = ids.uuid7()
    time.sleep(0.002)
    second = ids.uuid7()
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first < second
    assert abs((first.int >> 80) / 1000 - time.time()) < 5


def test_a_thousand_are_all_different() -> None:
    assert len({ids.uuid7() for _ in range(1000)}) == 1000


def test_ids_read_back() -> None:
    value = ids.uuid7()
    assert ids.decode(ids.FILE, ids.encode(ids.FILE, value)) == value


@pytest.mark.parametrize(
    "text", ["", "file-", "file-xyz", "batch_" + "0" * 32, "file-" + "0" * 31, "file-" + "A" * 32, "file-" + "0" * 33, "0" * 32]
)
def test_other_texts_are_no_ids(text) -> None:
    assert ids.decode(ids.FILE, text) is None
