"""`inspect` says what an adapter contains: for people, for programs, as a page."""

import json
from html.parser import HTMLParser
from math import prod

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import in_memory
from lora_np.adapters.peft_format import WEIGHTS


def module(rng, d, k, rank, *, alpha=8.0, dtype="float32", **options):
    return AdapterModule.of(
        A=rng.standard_normal((rank, k)),
        B=rng.standard_normal((d, rank)),
        alpha=alpha,
        dtype=dtype,
        **options,
    )


@pytest.fixture
def made(tmp_path):
    rng = np.random.default_rng(0)
    modules = {
        f"model.layers.{i}.self_attn.{name}": module(rng, d, 6, 4 if name == "q_proj" else 2)
        for i in range(11)
        for name, d in (("q_proj", 8), ("v_proj", 3))
    }
    raw = {
        "peft_type": "LORA", "base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM", "r": 4,
        "lora_alpha": 8, "rank_pattern": {"v_proj": 2}, "target_modules": ["q_proj", "v_proj"],
        "modules_to_save": ["lm_head"], "peft_version": "0.21.2",
    }  # fmt: skip
    full = {"lm_head.weight": in_memory(rng.standard_normal((9, 6)), "float32")}
    adapters.save(Adapter(modules, full, raw), tmp_path / "a")
    return tmp_path / "a"


def test_contents_are_those_of_the_files(made):
    found, adapter = adapters.inspect(made), adapters.load(made)
    said = found.contents
    assert said["base"] == "org/base"
    assert said["type"] == "LoRA"
    assert said["rank"] == {"4": 11, "2": 11}
    assert said["alpha"] == {"8": 22}
    assert said["scale"] == {"2": 11, "4": 11}
    assert said["targets"] == ["q_proj", "v_proj"]
    assert said["saved in full"] == ["lm_head"]
    assert said["modules"] == 22
    assert said["parameters"] == sum(prod(tensor.shape) for tensor in adapter.stored)
    assert said["dtype"] == {"float32": 45}
    assert said["bytes"] == (made / WEIGHTS).stat().st_size
    text = str(found.contents_table)
    assert "4 (11 times), 2 (11 times)" in text
    assert "org/base" in text


def test_totals_add_up(made):
    found = adapters.inspect(made)
    *kinds, total = found.kinds
    assert [kind.kind for kind in found.kinds] == ["q_proj", "v_proj", "saved in full", "all"]
    assert (
        total.parameters == sum(kind.parameters for kind in kinds) == found.contents["parameters"]
    )
    assert total.bytes == sum(kind.bytes for kind in kinds) == 4 * total.parameters
    assert total.modules == sum(kind.modules for kind in kinds[:2]) == 22
    assert sum(kind.share for kind in kinds[:2]) == pytest.approx(total.share) == pytest.approx(1)
    assert sum(kind.norm**2 for kind in kinds[:2]) == pytest.approx(total.norm**2)
    assert sum(row.norm**2 for row in found.rows) == pytest.approx(total.norm**2)


def test_layers_are_in_order(made):
    names = [row.name for row in adapters.inspect(made).rows]
    assert [name.split(".")[2] for name in names] == [str(i) for i in range(11) for _ in range(2)]


@pytest.mark.parametrize("with_base", [False, True])
def test_every_column_has_its_legend(make_adapter, make_checkpoint, with_base):
    base = make_checkpoint("base") if with_base else None
    found = adapters.inspect(make_adapter("a"), base=base)
    assert [*found.legend] == [*found.table.columns]
    assert ("intruders" in found.legend) == with_base
    assert all(f"{name}: {meaning}" in found.table.notes for name, meaning in found.legend.items())


def test_programs_get_the_same(made):
    found = adapters.inspect(made)
    content = json.loads(found.to_json())
    assert [*content] == ["title", "contents", "kinds", "rows", "legend", "notes"]
    assert content["contents"] == dict(found.contents)
    assert [[*row.values()] for row in content["rows"]] == [*map(list, found.table.rows)]
    assert content["kinds"] == found.kinds_table.records
    assert {*content["rows"][0]} == {*content["legend"]}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"rslora": True}, "LoRA, rank-stabilised"),
        ({"magnitude": np.ones(8)}, "DoRA"),
        ({"bias": np.ones(8)}, "LoRA, with a bias of B"),
        ({"dtype": "bfloat16"}, "LoRA"),
    ],
    ids=str,
)
def test_the_type_is_that_of_what_is_there(tmp_path, options, kind):
    raw = {
        "use_rslora": "rslora" in options,
        "use_dora": "magnitude" in options,
        "lora_bias": "bias" in options,
    }
    made = module(np.random.default_rng(1), 8, 6, 2, **options)
    adapters.save(
        Adapter({"q": made}, raw={"peft_type": "LORA", "target_modules": ["q"], **raw}),
        tmp_path / "a",
    )
    found = adapters.inspect(tmp_path / "a")
    assert found.contents["type"] == kind
    assert found.contents["base"] is None
    assert "not named" in str(found.contents_table)
    assert "bfloat16" in found.contents["dtype"] or options.get("dtype") is None


class Reader(HTMLParser):
    """What a browser would see: elements in order, and text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_page_has_the_figure_and_all_tables(made):
    page = adapters.inspect(made).to_html()
    found = Reader(page)
    assert [tag for tag in found.tags if tag in ("table", "svg")] == [
        "table",
        "svg",
        "table",
        "table",
    ]
    assert "model.layers.10.self_attn.v_proj" in found.text
    assert "excess rank: the rank beyond that" in found.text
    assert "width=device-width" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://purl.org", "").replace("http://creativecommons.org", "")  # nothing is fetched
