"""Large files through the real web server: accepted up to the limit, checked and run in flat memory.

The full size is `python -m bench.batch_memory`.
"""

from collections.abc import Iterator

import pytest

from tests.batch_sizes import MIB, Resident, Site, measure, site

LIMIT = 200 * MIB


@pytest.fixture(scope="module")
def where() -> Iterator[Site]:
    with site() as running:
        yield running


def zeros(length: int) -> Iterator[bytes]:
    for start in range(0, length, MIB):
        yield b"0" * min(MIB, length - start)


def test_a_file_of_200_mb_is_accepted_in_flat_memory(where) -> None:
    web = Resident(where.web.process.pid)
    web.begin()
    status, file = where.upload(zeros(LIMIT), LIMIT)
    assert (status, file["bytes"]) == (200, LIMIT)
    assert web.growth() < 64 * MIB, f"{web.growth() / MIB:.0f} MiB"
    where.ask("DELETE", f"/v1/files/{file['id']}")


def test_a_byte_more_is_refused(where) -> None:
    status, told = where.upload(zeros(LIMIT + 1), LIMIT + 1)
    assert (status, told["error"]["code"]) == (413, "file_too_large")


def test_a_file_is_checked_and_run_in_less_memory_than_it_has_bytes(where) -> None:
    found = measure(where, 6_000)
    assert found.file > 20 * MIB
    assert found.check < found.file / 2, found
    assert found.run < 300 * MIB and found.upload < 64 * MIB, found
