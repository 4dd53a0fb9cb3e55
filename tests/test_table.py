from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lora_np.table import Table, parse_bytes

TABLE = Table(
    ("name", "count", "share", "bytes"),
    [("a|b", 1_234_567, 0.5, None), ("<c>", np.int64(8), 12_345.678, 2)],
    title="T & t",
    notes=["one note"],
    formats={"bytes": "{} B".format},
)


def test_people_see_separators_and_formats() -> None:
    assert str(TABLE).splitlines() == [
        "T & t",
        "name      count      share  bytes",
        "----  ---------  ---------  -----",
        "a|b   1,234,567        0.5",
        "<c>           8  1.235e+04    2 B",
        "one note",
    ]
    assert repr(TABLE) == str(TABLE)


def test_json_has_plain_values() -> None:
    content = json.loads(TABLE.to_json())
    assert content["rows"][0] == {"name": "a|b", "count": 1234567, "share": 0.5, "bytes": None}
    assert type(content["rows"][1]["count"]) is int
    assert (content["title"], content["notes"]) == ("T & t", ["one note"])


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(TABLE.to_csv())))
    assert [row["count"] for row in rows] == ["1234567", "8"]
    assert rows[0]["bytes"] == ""
    assert rows[0]["name"] == "a|b"


def test_csv_quotes_a_carriage_return() -> None:
    text = Table(["a", "b"], [("x\ry", 1)]).to_csv()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a", "b"], ["x\ry", "1"]]
    assert text.endswith('",1\n')


def test_decimals_of_sizes_are_exact() -> None:
    sizes = [parse_bytes("size", f"{n // 100}.{n % 100:02} GB") for n in range(1_000)]
    assert sizes == [n * 10**7 for n in range(1_000)]


def test_html_is_well_formed_and_escaped() -> None:
    tree = ET.fromstring(f"<div>{TABLE._repr_html_()}</div>")
    assert [cell.text for cell in tree.iter("td")][:2] == ["a|b", "1,234,567"]
    assert [cell.text for cell in tree.iter("td")][4] == "<c>"
    assert tree.find(".//caption").text == "T & t"  # type: ignore[union-attr]
    assert tree.find("p").text == "one note"  # type: ignore[union-attr]


def test_an_empty_table_prints() -> None:
    assert str(Table(["a", "b"], [])) == "a  b\n-  -"


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a row must have 2 cells, got 1"):
        Table(["a", "b"], [(1,)])
