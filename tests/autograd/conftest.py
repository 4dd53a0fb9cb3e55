"""What a test adds to the tables of derivatives goes with it: it would belong to later runs."""

import pytest

from lora_np.autograd.tables import COMPOSITIONS, CONSTANTS, DERIVATIVES

TABLES = DERIVATIVES, COMPOSITIONS, CONSTANTS


@pytest.fixture(autouse=True)
def tables_as_before():
    before = [table.copy() for table in TABLES]
    yield
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)
