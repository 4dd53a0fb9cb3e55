"""`inspect` says what an adapter contains: for people, for programs, as a page."""

import json
from html.parser import HTMLParser
from math import prod

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import TokenRows, in_memory
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.files import FileError
from lora_np.models import open_model


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


RNG = np.random.default_rng(0)


def test_an_inspection_shows_each_module_as_its_formed_product_would(make_adapter):
    path = make_adapter("a", rank=3, dtype="float64")
    found, adapter = adapters.inspect(path), adapters.load(path)
    total = sum(np.linalg.norm(adapter.delta(name)) ** 2 for name in adapter)
    for row in found.table.records:
        s = np.linalg.svdvals(adapter.delta(row["module"]))[: row["rank"]]
        np.testing.assert_allclose(found.spectra[row["module"]], s)
        share = np.square(s) / np.square(s).sum()
        assert row["norm"] == pytest.approx(np.linalg.norm(s))
        assert row["share"] == pytest.approx(np.square(s).sum() / total)
        assert row["stable rank"] == pytest.approx(np.square(s / s[0]).sum())
        assert row["rank for 99 %"] == 1 + int(np.argmax(share.cumsum() >= 0.99))
        assert row["excess rank"] == row["rank"] - row["rank for 99 %"]


def test_dead_modules_and_nan_are_called_out(tmp_path):
    A = np.ones((2, 3))
    modules = {
        "fine": AdapterModule.of(A=A, B=np.ones((4, 2)), alpha=1),
        "dead": AdapterModule.of(A=A, B=np.zeros((4, 2)), alpha=1),
        "nan": AdapterModule.of(A=A, B=np.full((4, 2), np.nan), alpha=1),
    }
    adapters.save(Adapter(modules), tmp_path / "a")
    table = adapters.inspect(tmp_path / "a").table
    assert {row["module"]: row["status"] for row in table.records} == {
        "fine": "ok",
        "dead": "DEAD",
        "nan": "NOT FINITE",
    }
    assert "DEAD: dead: lora_B.weight is zero, as without training" in table.notes
    assert "NOT FINITE: nan: lora_B.weight holds NaN" in table.notes
    assert json.loads(table.to_json())


@pytest.mark.parametrize("part", ["magnitude", "bias"])
def test_a_module_is_not_dead_if_another_part_may_change_the_layer(part):
    made = AdapterModule.of(A=np.ones((2, 3)), B=np.zeros((4, 2)), alpha=1, **{part: np.ones(4)})
    found = adapters.inspect(Adapter({"q": made}))
    assert found.rows[0].status == "ok"
    assert not any("DEAD" in note for note in found.notes)


def test_with_a_base_updates_are_held_against_it(make_checkpoint, tmp_path):
    base = make_checkpoint("base", dtype="float64")
    W0 = open_model(base).read("model.layers.0.q_proj.weight")
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    module = AdapterModule.of(
        A=Vh[3:], B=2 * s[3] * U[:, 3:], alpha=1
    )  # three times as loud in W0's weakest direction
    adapters.save(Adapter({"model.layers.0.q_proj": module}), tmp_path / "a")
    row = adapters.inspect(tmp_path / "a", base=base).table.records[0]
    assert row["amplification"] == pytest.approx(2.0)
    assert row["relative"] == pytest.approx(2 * s[3] / np.linalg.norm(W0))
    assert row["intruders"] == 0
    new = AdapterModule.of(
        A=np.array([[1.0, -1.0, 1.0, -1.0]]), B=50 * (U @ np.ones((4, 1))), alpha=1
    )
    adapters.save(Adapter({"model.layers.0.q_proj": new}), tmp_path / "b")
    assert adapters.inspect(tmp_path / "b", base=base).table.records[0]["intruders"] >= 1


def test_the_same_map_from_other_factors_is_the_same(make_adapter, tmp_path):
    adapter = adapters.load(make_adapter("a", rank=2, dtype="float64"))
    mixed = {}
    for name, module in adapter.items():
        M = RNG.standard_normal((2, 2))
        B = np.hstack([module.B @ M, np.zeros((module.shape[0], 1))])
        A = np.vstack([np.linalg.solve(M, module.A), RNG.standard_normal((1, module.shape[1]))])
        mixed[name] = AdapterModule.of(A=A, B=B, alpha=module.scale * 3)
    adapters.save(Adapter(mixed), tmp_path / "b")
    found = adapters.diff(tmp_path / "a", tmp_path / "b")
    assert found.same
    assert all(row["cosine"] == pytest.approx(1) for row in found.table.records)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_very_same_factors_differ_by_nothing(make_adapter, tmp_path, dtype):
    path = make_adapter("a", dtype=dtype, rank=3)
    adapters.save(adapters.load(path), tmp_path / "copy")
    found = adapters.diff(path, tmp_path / "copy", tolerance=0)
    assert found.same
    assert all((row["relative difference"], row["cosine"]) == (0, 1) for row in found.table.records)


def test_differences_are_those_of_the_formed_products(make_adapter, tmp_path):
    paths = make_adapter("a", dtype="float64"), make_adapter("b", seed=4, alpha=3, dtype="float64")
    one, two = (adapters.load(path) for path in paths)
    found = adapters.diff(*paths)
    assert not found.same
    for row in found.table.records:
        x, y = one.delta(row["module"]), two.delta(row["module"])
        norms = np.linalg.norm(x), np.linalg.norm(y)
        assert row["relative difference"] == pytest.approx(np.linalg.norm(x - y) / max(norms))
        assert row["cosine"] == pytest.approx(np.vdot(x, y) / np.prod(norms))


def test_what_only_one_adapter_has_differs_altogether(make_adapter):
    one = make_adapter("a")
    two = make_adapter("b", shapes={"model.layers.0.q_proj": (6, 4)})
    found = adapters.diff(one, two)
    assert [row["relative difference"] for row in found.table.records][1:] == [1.0, 1.0]
    assert not found.same


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_began_with_a_part_of_the_base_is_compared_on_it(make_adapter, make_checkpoint, init):
    base, plain = make_checkpoint("base"), make_adapter("plain")
    path = make_adapter("a", init_lora_weights=init)
    assert adapters.diff(path, path).same
    assert adapters.diff(path, adapters.to_lora(path, base=base), base=base).same
    assert not adapters.diff(path, plain, base=base).same
    for other in (plain, make_adapter("b", rank=3, init_lora_weights=init)):
        with pytest.raises(FileError, match=f"init_lora_weights = '{init}' takes the first B A"):
            adapters.diff(path, other)


def test_settings_and_the_order_of_tokens_are_compared():
    made = {"q": module(np.random.default_rng(0), 4, 4, 2)}
    tokens = [Adapter(made, raw={"alora_invocation_tokens": x}) for x in (None, [1], [2])]
    for i, j in ((0, 0), (0, 1), (1, 1), (1, 2)):
        assert adapters.diff(tokens[i], tokens[j]).same == (i == j)
    new = np.eye(2, 4)
    one, other = (
        Adapter(made, rows={"embed.weight": TokenRows(tokens, in_memory(rows))})
        for tokens, rows in (((1, 7), new), ((7, 1), new[::-1]))
    )
    assert adapters.diff(one, other, tolerance=0).same


def test_dead_modules_are_the_same_as_each_other_only(tmp_path):
    A = np.ones((2, 3))
    for name, B in (("dead", np.zeros((4, 2))), ("alive", np.ones((4, 2)))):
        adapters.save(Adapter({"q": AdapterModule.of(A=A, B=B, alpha=1)}), tmp_path / name)
    assert adapters.diff(tmp_path / "dead", tmp_path / "dead").same
    assert not adapters.diff(tmp_path / "dead", tmp_path / "alive").same
