"""The page Fit says what the package says, numbers, bytes, verdicts and remedies: drawn settings of
every preset and control, and drawn configs.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from base64 import urlsafe_b64encode
from itertools import product
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

from lora_np import accounting, models
from lora_np.accounting import planning
from lora_np.accounting.planning import size_text
from lora_np.cli import run
from lora_np.models.sources import hub_name, preset_config, typed_names
from tests.drawing import FULL, few, twentieth

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "explorer"))
import fit_data  # noqa: E402
import fit_parts  # noqa: E402
import front_data  # noqa: E402
import terms  # noqa: E402  # which fit_data has found


class Models(dict):
    """The terms of a preset, worked out when a test first asks for it."""

    def __missing__(self, name):
        self[name] = terms.of(models.preset(name))
        return self[name]


class Known(dict):
    """What the page knows, part by part: every run collects this file."""

    def __missing__(self, name):
        self[name] = Models() if name == "models" else fit_data.PARTS[name]()
        return self[name]


DATA = Known()
PRESETS = list(models.preset_names())
METHODS = ("full", "LoRA", "QLoRA")
# sizes that divide one another often, so that most configs make sense
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# Of the method that is asked for: bytes by part, those that can wait elsewhere, the verdict, how
# far rank, batch and length could go, and what would make it fit.
ANSWERS = """
require(process.argv[1]);
const { tables, gpus, cases, models } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const room = (memory) => ({ name: "a GPU", memory, room: Math.trunc(memory * tables.room), larger: tables.unnamed });
console.log(JSON.stringify(cases.map(([name, setting, gpuName]) => {
  try {
    const gpu = gpus[gpuName] ?? room(gpuName), model = models[name], { targets } = setting;
    if (Array.isArray(targets)) for (const [key, parts] of [["", model.parts[0]], ["+dora", model.parts.flat()]])
      model.lora[targets + key] = loraMemory.composed(parts, targets);
    setting.targets = String(targets);
    const way = loraMemory.plan(model, tables, setting, setting.training)[setting.method];
    const most = way.largest(gpu.room), verdict = loraMemory.verdict(way.total, gpu);
    const remedies = verdict === "fits" ? [] : loraMemory.remedies(model, tables, setting, gpu, gpus);
    return [Object.values(way.parts), way.host, verdict, most.rank, most.batch_size, most.max_length, way.disk,
            remedies.map(({ text, memory, price }) => [text, memory, price])];
  } catch (error) { return String(error.message); }
})));
"""


def in_the_page(cases, described=None):
    """What the page's script makes of the terms, by name of a preset or of what is described."""
    node = shutil.which("node") or pytest.skip("node is not installed")
    given = {
        "tables": DATA["memory"], "gpus": DATA["gpus"], "cases": cases,
        "models": described or {name: DATA["models"][name] for name, *_ in cases},
    }  # fmt: skip
    done = subprocess.run(
        [node, "-e", ANSWERS, str(DOCS / "explorer" / "memory.js")],
        input=json.dumps(given), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def in_the_package(spec, setting, gpu):
    """The same of `accounting.plan`, or "refused"."""
    targets = {"default": None, "attention": terms.attention_of(spec)}.get(
        str(setting["targets"]), setting["targets"]
    )
    lora = {"rank": setting["rank"], "targets": targets, "dora": setting["dora"]}
    method, training = setting["method"], dict(setting["training"])
    try:
        if targets is None and not spec.default_targets:
            raise ValueError("there is no default")
        accounting.count_model(spec, **lora)
        # the page shows all three methods at once: what one refuses is an error there
        if method == "full":
            lora = {}
        asked = accounting.TrainingOptions(**training)
        if DATA["memory"]["methods"][asked.dtype][method] != asked.dtype:
            training["dtype"] = DATA["memory"]["methods"][asked.dtype][method]
        if lora and targets is None:
            lora["targets"] = list(spec.default_targets)
        found = accounting.plan(spec, gpu=gpu, methods=[method], **lora, **training)
    except (ValueError, TypeError):
        return "refused"
    (one,) = found.choices
    memory = one.memory
    return [
        list(memory.parts.values()), memory.host, one.verdict, one.largest_rank, one.largest_batch,
        one.largest_max_length, one.disk,
        [[each.change, each.memory, each.price] for each in found.remedies],
    ]  # fmt: skip


def setting(rng, positions):
    """All controls of the page, drawn."""
    choices = DATA["memory"]["choices"]
    training = {name: values[rng.integers(len(values))] for name, values in choices.items()}
    training = {**DATA["memory"]["usual"], **training}
    for name in ("double_quantization", "master_copy", "adapter_dtype"):  # no controls
        training[name] = DATA["memory"]["usual"][name]
    training["checkpointing"] = bool(rng.integers(2))
    training["offloading"] = bool(training["checkpointing"] and rng.integers(2))
    training["batch_size"] = int(rng.choice([1, 2, 3, 16]))
    longest = positions or 131072
    training["max_length"] = min(int(rng.choice([1, 7, 512, 2048, 4096, 32768])), longest)
    return {
        "rank": int(rng.choice([1, 2, 8, 16, 64, rng.integers(1, 3000)])),
        "targets": ("default", "all-linear", "attention")[rng.integers(3)],
        "dora": bool(rng.integers(4) == 0),
        "method": METHODS[rng.integers(3)],
        "training": training,
    }


def agree(cases, specs, described=None):
    want = [in_the_package(specs[name], asked, gpu) for name, asked, gpu in cases]
    found = in_the_page(cases, described)
    for case, theirs, ours in zip(cases, found, want, strict=True):
        assert ("refused" if isinstance(theirs, str) else theirs) == ours, case
    assert sum(each != "refused" for each in want) > 0.6 * len(want)
    verdicts = {each[2] for each in want if each != "refused"}
    assert {"fits", "no"} <= verdicts


def test_drawn_settings_are_answered_as_by_plan():
    """3,000 of them, or a tenth; every preset and every GPU among them."""
    rng = np.random.default_rng(0)
    gpus = [*DATA["gpus"]]
    cases = []
    for number in range(3000 if FULL else 100):
        name = PRESETS[number % len(PRESETS)]
        asked = setting(rng, DATA["models"][name]["positions"])
        cases.append((name, asked, gpus[int(rng.integers(len(gpus)))]))
    agree(cases, {name: models.preset(name) for name in PRESETS})


def test_drawn_choices_of_modules_are_answered_as_by_plan():
    """3,000 settings, or some of a few presets; every other keeps to what may be chosen."""
    rng = np.random.default_rng(2)
    gpus, described, cases = [*DATA["gpus"]], {}, []
    for name in few(PRESETS, 10):
        spec = models.preset(name)
        described[name] = {**DATA["models"][name], "parts": fit_parts.parts(spec)}
        units = fit_parts.units_of(spec)
        for number in range(43):
            asked = setting(rng, spec.positions)
            chosen = rng.permutation(len(units))[: rng.integers(1, 1 + len(units))]
            names = [one for i in chosen for one in units[i]]
            asked["targets"] = names if number % 8 else names[: len(names) // 2 + 1]
            cases.append((name, asked, gpus[int(rng.integers(len(gpus)))]))
    agree(cases, {name: models.preset(name) for name in described}, described)


def drawn(name, rng):
    """A config of the family with some sizes that fit one another."""
    config = {"model_type": name}
    for field in (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "d_model", "n_embd", "n_layer", "n_head",
    ):  # fmt: skip
        if rng.random() < 0.3:
            config[field] = int(rng.choice(SIZES))
    if rng.random() < 0.5:
        config["tie_word_embeddings"] = bool(rng.integers(2))
    return config


def test_drawn_configs_are_answered_as_by_plan():
    """300 of them, or a fifth."""
    rng = np.random.default_rng(1)
    specs, cases = {}, []
    families = list(models.family_names())
    for number in range(600 if FULL else 60):
        config = drawn(families[number % len(families)], rng)
        try:
            spec = models.from_config(config)
        except (ValueError, TypeError):
            continue
        if not spec.layers:
            continue
        name = str(number)
        specs[name] = spec
        gpu = int(rng.choice([10**6, 10**8, 10**9, 24 * 10**9]))
        cases.append((name, setting(rng, spec.positions), gpu))
    agree(cases, specs, {name: terms.of(spec) for name, spec in specs.items()})
    assert len(cases) >= (300 if FULL else 30)


TYPED = json.loads((DOCS.parent / "tests" / "laws" / "as_typed.json").read_text(encoding="utf-8"))


def test_names_as_people_type_them_mean_the_same_in_the_page():
    """What the package finds, also for names with a letter less or a word more."""
    rng = np.random.default_rng(7)
    tables = {"models": typed_names(), "gpus": planning.gpu_names()}
    cases = []
    for kind, lists in (("models", ("models", "unknown")), ("gpus", ("gpus", "unknown gpus"))):
        for text in [row[0] for each in lists for row in TYPED[each]]:
            cut = int(rng.integers(len(text)))
            cases += [(kind, name) for name in (text, text[:cut] + text[cut + 1 :], f"{text} x")]
    cases = [
        *few(cases, 4),
        *(("gpus", text) for text in ("24", "24.5", "1.500", "2400", "9999.5")),
    ]
    script = """
        globalThis.window = globalThis;
        [window.loraFit, globalThis.cases] = JSON.parse(require("fs").readFileSync(0, "utf8"));
        for (const file of process.argv.slice(1)) require(file);
        const { several, memory } = loraNames;
        console.log(JSON.stringify(cases.map(([kind, text]) => [several(kind, text), loraNames[kind](text), memory(text)])));
    """
    found = in_node(script, cases)
    for (kind, text), (meant, close, bytes_) in zip(cases, found, strict=True):
        assert meant == tables[kind].several(text), text
        assert len(close) <= 5
        assert close[: len(meant)] == meant[:5], text
        try:
            gpu = planning._gpu(text)
        except ValueError:
            gpu = accounting.GPU("", 0, sold=1)
        assert bytes_ == (0 if gpu.sold else gpu.memory), text


def in_node(script, given):
    node = shutil.which("node") or pytest.skip("node is not installed")
    known = {name: DATA[name] for name in ("names", "hub", "gpus")}
    known["models"] = dict.fromkeys(PRESETS)
    done = subprocess.run(
        [node, "-e", script, str(DOCS / "explorer" / "names.js")],
        input=json.dumps([known, given]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def edges():
    """Rooms with not a byte to spare, of small models whose memory falls where a tensor's state
    becomes smaller.
    """
    rng = np.random.default_rng(6)
    for number in range(400 if FULL else 20):
        hidden, inner = rng.choice([64, 96, 160, 2048], 2).tolist()
        config = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": inner}
        config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
        optimizer = ("adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adamw")[number % 4]
        dtype = ("bfloat16", "nf4")[number // 4 % 2]
        options = {"optimizer": optimizer, "max_length": 3, "dtype": dtype}
        spec = models.from_config(config)
        rank = int(rng.integers(1, 64))
        needs = [
            accounting.training_memory(spec, rank=each, targets="all-linear", **options).total
            for each in range(1, 64)
        ]
        falls = [i for i in range(62) if needs[i + 1] < needs[i]]
        at = rank - 1
        if falls and number % 3:
            at = falls[rng.integers(len(falls))] + int(rng.integers(-1, 3))
        need = needs[min(max(at, 0), 62)]
        room = -(-need * 10 // 9)
        memory = (room - 1, room, room + 1, need - 1, need, need + 1)[rng.integers(6)]
        training = {**DATA["memory"]["usual"], **options}
        asked = {"rank": rank, "targets": "all-linear", "dora": False, "method": "LoRA"}
        yield spec, {**asked, "training": training}, memory


def test_the_largest_values_where_there_is_not_a_byte_to_spare():
    found = list(edges())
    specs = {str(i): spec for i, (spec, *_) in enumerate(found)}
    cases = [(str(i), asked, memory) for i, (_, asked, memory) in enumerate(found)]
    agree(cases, specs, {name: terms.of(spec) for name, spec in specs.items()})


def test_a_config_keeps_what_its_modules_need():
    for name in twentieth(PRESETS):
        config = preset_config(name)
        few = terms.needed({**config, "extra": {"a": 1}, "id2label": {"0": "x" * 999}})
        assert models.from_config(few) == models.from_config({**config, "num_labels": 1})
        assert len(json.dumps(few)) < 900


pages = pytest.mark.browser
START = "model=llama-3-8b&rank=16&targets=all-linear&method=LoRA&gpu=RTX+4090&max_length=2048"
GO = """hash => new Promise((done) => {
  addEventListener("hashchange", () => setTimeout(done, 0), { once: true });
  location.hash = hash;
})"""


def result(page):
    return json.loads(page.locator("#fit").get_attribute("data-result"))


def here(page):
    """The address now: what Playwright knows of it may lag behind."""
    return page.evaluate("location.href")


def show(page, name):
    return page.locator(f'#fit [data-show="{name}"]').inner_text()


def takes_all_linear(name):
    """Tell whether PEFT adapts all linear layers: of some it adapts some layers by name alone."""
    try:
        accounting.count_model(name, rank=1, targets="all-linear")
    except ValueError:
        return False
    return True


@pages
def test_every_answer_is_that_of_plan(open_page):
    page = open_page("use/fit.html")
    adapted = [name for name in PRESETS if takes_all_linear(name)]
    assert len(adapted) > 0.95 * len(PRESETS)
    for model, gpu, method in few(product(adapted, DATA["gpus"], METHODS), 200):
        asked = {"model": model, "rank": 16, "targets": "all-linear", "method": method, "gpu": gpu}
        page.evaluate(GO, urlencode(asked))
        lora = {} if method == "full" else {"rank": 16, "targets": "all-linear"}
        (want,) = accounting.plan(model, gpu=gpu, methods=[method], **lora).choices
        found = {
            "total": want.memory.total, "verdict": want.verdict, "host": 0, "rank": want.largest_rank,
            "batch_size": want.largest_batch, "max_length": want.largest_max_length,
        }  # fmt: skip
        assert result(page) == found, (model, gpu, method)
        left = accounting.gpus()[gpu].memory - want.memory.total
        words = {
            "fits": "Fits, with {} GB left.",
            "tight": "Tight, with {} GB left.",
            "no": "Does not fit: needs {} GB more.",
        }
        said = re.sub(r"[\d.,]+(?= GB)", "{}", show(page, "verdict"))
        assert said == words[want.verdict]
        number = float(re.search(r"[\d.,]+(?= GB)", show(page, "verdict"))[0].replace(",", ""))
        assert number == pytest.approx(abs(left) / 2**30, rel=0.006, abs=0.051)


@pages
def test_the_command_says_what_the_page_says(open_page, capsys):
    page = open_page("use/fit.html")
    rng = np.random.default_rng(5)
    gpus = [*DATA["gpus"], "24GB", "40 GiB"]
    usual = DATA["memory"]["usual"]
    for number in range(100 if FULL else 12):
        model = PRESETS[rng.integers(len(PRESETS))]
        drawing = setting(rng, DATA["models"][model]["positions"])
        asked = {
            "model": model, "rank": drawing["rank"], "targets": "all-linear",
            "method": drawing["method"], "gpu": gpus[rng.integers(len(gpus))],
            **{k: int(v) if isinstance(v, bool) else v for k, v in drawing["training"].items()
               if v != usual[k]},
            "dora": int(number % 2),
        }  # fmt: skip
        page.evaluate(GO, urlencode(asked))
        if page.locator(".fit-error").is_visible():  # as DoRA with experts
            continue
        capsys.readouterr()
        run([*shlex.split(show(page, "command"))[1:], "--json"])
        (choice,) = json.loads(capsys.readouterr().out)["choices"]
        found = result(page)
        assert (
            sum(size for size in choice["memory"].values() if isinstance(size, int))
            - choice["memory"]["host"]
            == found["total"]
        )
        assert [choice["verdict"], choice["largest_rank"]] == [found["verdict"], found["rank"]]
        paged = f"{size_text(found['host'])} of optimizer state can be paged to host memory."
        assert (paged in show(page, "note")) == bool(found["host"])


@pages
def test_the_page_shows_the_count_and_keeps_its_address(open_page):
    page = open_page("use/fit.html#model=llama-3-8b&rank=16&targets=all-linear")
    want = accounting.count_model(models.preset("llama-3-8b"), rank=16, targets="all-linear")
    assert page.locator(".fit-peft").inner_text() == want.peft_line
    page.locator("#fit [name=power]").focus()
    page.keyboard.press("ArrowLeft")
    page.locator("#fit").get_by_text("PEFT's default").click()
    want = accounting.count_model(models.preset("llama-3-8b"), rank=8)
    assert page.locator(".fit-peft").inner_text() == want.peft_line
    assert here(page).endswith("#model=llama-3-8b&rank=8&targets=default&method=LoRA&gpu=RTX+4090")
    command = (
        "lora-np plan llama-3-8b --gpu 'RTX 4090' --method LoRA --rank 8 --targets q_proj,v_proj"
    )
    assert show(page, "command") == command


@pages
def test_the_page_shows_what_can_be_learnt_by_heart_where_it_was_measured(open_page):
    page = open_page("use/fit.html#model=llama-3-8b&rank=8&targets=default")
    found = accounting.capacity("llama-3-8b", rank=8)
    low, high = (float(part.split()[0]) for part in show(page, "heart").split(" to "))
    assert low == pytest.approx(found.low / 8192, rel=0.02)
    assert high == pytest.approx(found.high / 8192, rel=0.02)
    page.get_by_text("More settings").click()
    page.locator('#fit [name="dora"]').check()
    assert show(page, "heart") == "not measured"


@pages
def test_the_page_shows_the_memory_by_cause(open_page):
    asked = "model=llama-3-8b&rank=16&targets=all-linear&dtype=nf4&max_length=2048"
    page = open_page(f"use/fit.html#{asked}")
    count = accounting.count_model(models.preset("llama-3-8b"), rank=16, targets="all-linear")

    def shows(**training):
        want = accounting.compare_memory(count, **training)
        said = lambda name, sizes: [str(name), *("–" if n is None else size_text(n) for n in sizes)]
        *causes, total, disk = [said(name, sizes) for name, *sizes in want.table.rows]
        rows = page.locator(".fit-causes tbody").inner_text().splitlines()
        found = [[cell.strip() for cell in row.split("\t")] for row in rows]
        assert found == [*causes, total, ["saved on disk", *disk[1:]]]
        row = page.locator(".fit-row[data-way=LoRA]")
        widths = row.locator("i").evaluate_all(
            "all => all.map(part => [part.dataset.cause, part.getBoundingClientRect().width])"
        )
        shown = {cause: width for cause, width in widths if width > 1}
        bytes_ = want.methods["LoRA"].parts
        for cause, width in shown.items():
            share = bytes_[cause] / bytes_["weights"]
            assert width / shown["weights"] == pytest.approx(share, rel=0.02, abs=0.01)
        gpu = row.locator(".fit-gpu-size").bounding_box()["width"]
        whole = accounting.gpus()["RTX 4090"].memory
        assert shown["weights"] / gpu == pytest.approx(bytes_["weights"] / whole, rel=0.02)

    shows(dtype="nf4", max_length=2048)
    page.get_by_text("More settings").click()
    form = page.locator("#fit")
    form.get_by_label("Optimizer").select_option("paged_adamw_8bit")
    form.get_by_label("Gradient checkpointing").uncheck()
    form.get_by_label("Batch size").fill("4")
    more = {"optimizer": "paged_adamw_8bit", "checkpointing": False, "batch_size": 4}
    shows(dtype="nf4", max_length=2048, **more)
    end = "&dtype=nf4&optimizer=paged_adamw_8bit&batch_size=4&max_length=2048&checkpointing=0"
    assert here(page).endswith(end)


@pages
def test_any_whole_rank_can_be_chosen_and_stays_in_the_address(open_page):
    page = open_page("use/fit.html", viewport={"width": 390, "height": 844})
    slider, number = page.locator("#fit [name=power]"), page.get_by_label("rank r")

    def shows(rank):
        want = accounting.count_model(models.preset("llama-3-8b"), rank=rank)
        assert page.locator(".fit-peft").inner_text() == want.peft_line
        assert number.input_value() == str(rank)
        assert f"#model=llama-3-8b&rank={rank}&targets=default" in here(page)

    for rank in (1, 12, 20, 48, 100, 2000):
        page.evaluate(GO, f"model=llama-3-8b&rank={rank}&targets=default")
        shows(rank)
    number.fill("20")
    shows(20)
    assert slider.get_attribute("aria-valuetext") == "rank 20"
    number.press("ArrowUp")
    shows(21)
    slider.press("ArrowRight")  # the power of two above that next to 21
    shows(32)
    box = slider.bounding_box()
    assert box["x"] + box["width"] <= 390
    slider.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    shows(1024)


EVERY = """() => {
  const form = document.getElementById("fit"), found = [];
  const change = (control, how) => {
    delete form.dataset.result;
    const begin = performance.now();
    how();
    control.dispatchEvent(new Event("input", {bubbles: true}));
    const answered = "result" in form.dataset || !form.querySelector(".fit-error").hidden;
    found.push([control.name, performance.now() - begin, answered]);
  };
  for (const control of form.elements) {
    const {type, name, value} = control;
    if (type === "radio") change(control, () => { control.checked = true; });
    if (type === "checkbox") for (const on of [true, false, control.checked])
      if (!control.disabled) change(control, () => { control.checked = on; });
    if (type === "select-one") for (const option of [...control.options, {value}])
      change(control, () => { control.value = option.value; });
    if (type === "number" || type === "range") for (const number of [3, 8, value])
      change(control, () => { control.value = number; });
  }
  return found;
}"""


@pages
def test_every_control_answers_within_its_own_event(open_page, capsys):
    """Their milliseconds are printed: the median, and the slowest. The parts of modules come once,
    with the first focus or where an address asks for them.
    """
    page = open_page("use/fit.html#model=llama-3-8b&targets=q_proj,o_proj")
    page.wait_for_function("document.querySelector('#fit').dataset.result")
    want = accounting.training_memory("llama-3-8b", rank=8, targets=["q_proj", "o_proj"])
    assert result(page)["total"] == want.total
    taken = {}
    for model in twentieth(PRESETS):
        page.evaluate(GO, urlencode({"model": model, "rank": 16, "targets": "all-linear"}))
        for name, ms, answered in page.evaluate(EVERY):
            assert answered, (model, name)
            taken.setdefault(name, []).append(ms)
    assert not any("python-worker" in response.url for response in open_page.received)
    assert len(taken) >= 15
    with capsys.disabled():
        print()
        for name, each in taken.items():
            print(f"{name:20}{np.median(each):8.0f}{max(each):8.0f}")


def figures(page):
    return page.locator("#fit .explorer-numbers dd").all_inner_texts()


WRONG = [
    ("rank", "0", "rank must be a whole number of at least 1, got 0"),
    ("rank", "2.5", "rank must be a whole number of at least 1"),
    ("rank", "", "rank must be a whole number of at least 1"),
    ("rank", "-4", "rank must be a whole number of at least 1"),
    ("max_length", "9000", "max_length must be at most 8,192"),
    ("max_length", "", "max_length must be a whole number"),
    ("batch_size", "0", "batch_size must be a whole number of at least 1, got 0"),
    ("memory", "2400", "memory must be a size such as 24 GB"),
    ("memory", "0 GB", "memory must be a size such as 24 GB"),
]


@pages
def test_a_number_that_is_wrong_says_so_at_its_field(open_page, axe):
    page = open_page("use/fit.html")
    error = page.locator(".fit-error")
    page.evaluate(axe)
    for name, value, message in WRONG:
        page.evaluate(GO, "model=gpt2")
        page.evaluate(GO, START)
        field = page.locator(f"#fit [name={name}]")
        if name == "memory":
            page.locator("#fit [name=gpu]").select_option("another GPU")
        assert error.is_hidden()
        before = here(page)
        field.fill(value)
        assert message in error.inner_text()
        assert field.get_attribute("aria-invalid") == "true"
        assert figures(page) == ["–"] * 5
        assert here(page) == before
        assert page.locator(".fit-bars i").count() == 0
        assert page.locator("#fit").get_attribute("data-result") is None
        if (name, value) == ("rank", "0"):
            found = page.evaluate("axe.run('#fit')")["violations"]
            assert [each["id"] for each in found] == []
        field.fill("2 TB" if name == "memory" else "2")
        assert error.is_hidden()
        assert field.get_attribute("aria-invalid") is None
        assert page.locator(".fit-bars i").count() > 0


@pages
def test_a_gpu_that_is_typed_is_chosen_in_the_list(open_page):
    page = open_page("use/fit.html#" + START)
    gpu, field = page.locator("#fit [name=gpu]"), page.locator("#fit [name=memory]")
    gpu.select_option("another GPU")
    field.fill("3090 ti")
    field.press("Tab")
    assert gpu.input_value() == "RTX 3090 Ti"
    assert field.is_hidden()
    gpu.select_option("another GPU")
    field.fill("20 GB")
    field.press("Tab")
    assert gpu.input_value() == "another GPU"
    assert field.is_visible()


@pages
def test_a_size_is_said_once_and_without_decimals_from_a_hundred_on(open_page):
    page = open_page(
        "use/fit.html#model=llama-3-8b&rank=100&targets=all-linear&gpu=RTX+5060+Ti+16GB"
    )
    count = accounting.count_model(models.preset("llama-3-8b"), rank=100, targets="all-linear")
    assert show(page, "disk") == f"{4 * count.trainable / 2**20:,.0f} MB"
    assert page.locator(".fit-label").inner_text() == "RTX 5060 Ti: 16 GB"
    for name in page.locator(".fit-map tbody th").all_inner_texts():
        assert name.count("GB") == 1, name


ADDRESSES = [
    ("model=llama-9-8b", 'model: "llama-9-8b" is not among the presets'),
    ("model=gpt2&dtype=int3", "The address asks for dtype 'int3', which is not in the list"),
    ("model=gpt2&method=qora", "The address asks for method 'qora', which is not in the list"),
    ("model=gpt2&gpu=RTX+9000", "memory must be a size such as 24 GB, or a GPU such as "),
    ("model=llama-3-8b&rank=0", "rank must be a whole number of at least 1, got 0"),
    ("config=AAAA", "The address holds a config that cannot be read"),
    ("config=%FF!", "The address holds a config that cannot be read"),
    ("config=BOMB", "The address holds a config that cannot be read"),
    ("model=gpt2&with=model%3Dno", 'model: "no" is not among the presets'),
]


@pages
def test_an_address_that_is_wrong_says_so(open_page):
    pack = zlib.compressobj(wbits=-15)
    bomb = urlsafe_b64encode(pack.compress(b"[" * 10**7) + pack.flush()).decode().rstrip("=")
    page = open_page("use/fit.html")
    plain = here(page).split("#")[0]
    for asked, message in ADDRESSES:
        asked = asked.replace("BOMB", bomb)
        page.goto("about:blank")
        page.goto(f"{plain}#{asked}")
        page.locator(".fit-error").get_by_text(message).wait_for()
        assert figures(page) == ["–"] * 5
        assert here(page).endswith(f"#{asked}")


@pages
def test_a_model_is_found_as_one_types(open_page):
    page = open_page("use/fit.html")
    field = page.get_by_role("combobox", name="Model")
    options_ = page.locator("#fit-models [role=option]")
    field.click()
    assert options_.count() == len(PRESETS)
    assert field.get_attribute("aria-expanded") == "true"
    field.fill("qwen 4b")
    titles = {name: f"{name} {hub_name(name)}".lower() for name in PRESETS}
    found = {name for name, title in titles.items() if "qwen" in title and "4b" in title}
    assert set(options_.locator("span:first-child").all_inner_texts()) == found != set()
    field.press("ArrowDown")
    active = field.get_attribute("aria-activedescendant")
    chosen = page.locator(f"#{active} span").first.inner_text()
    field.press("Enter")
    assert field.input_value() == chosen
    assert here(page).split("#")[1].startswith(f"model={chosen}&")
    assert options_.count() == 0
    field.fill("gemma")
    field.press("Escape")
    assert field.input_value() == chosen
    hub = "https://huggingface.co"
    for text in ("mistralai/Mistral-7B-v0.1", f"{hub}/Mistralai/mistral-7b-v0.1/tree/main"):
        field.fill("gpt2")
        field.press("Enter")
        field.fill(text)
        page.get_by_label("rank r").focus()
        assert field.input_value() == "mistral-7b"
        assert "mistralai/Mistral-7B-v0.1" in show(page, "about")
    for text in ("Qwen2.5 7B Instruct", "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct"):
        field.fill("gpt2")
        field.press("Enter")
        field.fill(text)
        field.press("Enter")
        assert field.input_value() == "qwen2.5-7b"
        assert f"{text.split('.co/')[-1]}: same shapes as qwen2.5-7b" in show(page, "about")
    field.fill("llama 8b")
    field.press("Enter")
    closest = page.locator(".fit-remedies button")
    both = [name for name in PRESETS if "llama" in name and "8b" in name]
    assert closest.all_inner_texts()[: len(both)] == both
    closest.first.click()
    assert field.input_value() == "llama-3-8b"
    field.fill("Qwen/Qwen9-1B")
    field.press("Enter")
    error = page.locator(".fit-error")
    want = 'model: "Qwen/Qwen9-1B" is not among the presets. Copy its config.json and paste it'
    assert want in error.inner_text()
    address = error.locator("a").get_attribute("href")
    assert address == f"{hub}/Qwen/Qwen9-1B/raw/main/config.json"


OWN = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4,
    "intermediate_size": 128, "vocab_size": 32000, "torch_dtype": "bfloat16", "rope_scaling": {"type": "x" * 3000},
    "initializer_range": 0.02, "transformers_version": "4.51.0", "id2label": {str(i): "A" * 9 for i in range(500)},
}  # fmt: skip


@pytest.fixture
def runs(site):
    if not (site / "_static" / "python" / "pyodide" / "pyodide.js").is_file():
        pytest.skip("the site was built without PYODIDE_DIST, so it has no runtime of its own")


@pages
def test_a_config_of_ones_own_is_read_by_the_package_and_travels_in_the_link(
    open_page, tmp_path, runs
):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(OWN), encoding="utf-8")
    page = open_page("use/fit.html")
    page.get_by_role("combobox", name="Model").fill(json.dumps(OWN))
    assert "MB" in show(page, "could")  # what is fetched, before it is
    page.wait_for_function("location.hash.includes('config=')")
    want = accounting.count_model(models.from_config(OWN), rank=16, targets="all-linear")
    assert page.locator(".fit-peft").inner_text() == want.peft_line
    assert show(page, "command").startswith("lora-np plan config.json --gpu ")
    assert len(here(page).split("config=")[1].split("&")[0]) < 200
    first = here(page)
    page.get_by_text("A model of your own", exact=True).click()
    for way in ("file", "textarea"):
        page.evaluate(GO, START)
        if way == "file":
            page.set_input_files("#fit [name=file]", str(file))
        else:
            page.locator("#fit [name=config]").fill(json.dumps({**OWN, "extra": 1}))
        page.wait_for_function("location.hash.includes('config=')")
        assert here(page) == first
    # then every control answers at once
    page.get_by_label("rank r").fill("3")
    page.locator("#fit").get_by_text("QLoRA", exact=True).first.click()
    options = {"rank": 3, "targets": "all-linear", "dtype": "nf4", "max_length": 2048}
    want = accounting.training_memory(models.from_config(OWN), **options)
    assert result(page)["total"] == want.total
    # a choice of modules, also of a preset
    page.get_by_text("choose", exact=True).click()
    page.get_by_label("down_proj").uncheck()
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]
    page.wait_for_function("document.querySelector('#fit').dataset.result")
    again = here(page)
    named = again.split("targets=")[1].split("&")[0].replace("%2C", ",").split(",")
    assert "down_proj" not in named
    want = accounting.training_memory(models.from_config(OWN), **options | {"targets": named})
    assert result(page)["total"] == want.total
    page.evaluate(GO, f"model=llama-3-8b&rank=8&targets={','.join(names)}&method=LoRA")
    page.wait_for_function("document.querySelector('#fit').dataset.result")
    want = accounting.training_memory("llama-3-8b", rank=8, targets=names)
    assert result(page)["total"] == want.total
    page.evaluate(GO, "model=llama-3-8b&targets=q_proj,qproj")
    page.locator(".fit-error").get_by_text("qproj").wait_for()
    # what is wrong
    config, error = page.locator("#fit [name=config]"), page.locator(".fit-error")
    for text, message in [
        ('{"model_type": "nothing"}', "model_type must be .*nothing"),
        ("{", "not JSON"),
        ("[]", "A config.json holds one object"),
        ("null", "A config.json holds one object"),
        ('{"model_type": "llama", "hidden_size": "x"}', "hidden_size must be"),
    ]:
        config.fill(text)
        page.wait_for_function(
            "m => new RegExp(m).test(document.querySelector('.fit-error').textContent)", arg=message
        )
        assert error.is_visible()
        assert figures(page) == ["–"] * 5
    again_page = open_page("use/" + again.split("/use/")[1])
    again_page.wait_for_function("document.querySelector('#fit').dataset.result")
    assert here(again_page) == again


@pages
def test_every_preset_s_config_can_be_packed_and_unpacked(open_page):
    page = open_page("use/fit.html")
    for name in twentieth(PRESETS):
        config = terms.needed(preset_config(name))
        code, back = page.evaluate(
            """async (config) => {
              const code = await loraFitModel.pack(config);
              return [code, await loraFitModel.unpack(code)];
            }""",
            config,
        )
        assert back == config
        assert len(code) < 600


@pages
def test_what_is_wrong_last_is_not_overtaken_by_an_answer_before(open_page):
    """Nor by its announcement, nor by a right config that was still being packed for the
    address.
    """
    page = open_page("use/fit.html")
    before, after = page.evaluate(
        """async config => {
            const form = document.getElementById("fit"), status = form.querySelector('[data-show="status"]');
            const before = status.textContent, say = (name, value) => {
                form.elements.namedItem(name).value = value;
                form.elements.namedItem(name).dispatchEvent(new Event("input", { bubbles: true }));
            };
            say("rank", 9);
            say("config", config);
            say("config", "{");
            await new Promise((done) => { setTimeout(done, 800); });  // an announcement comes after 700
            return [before, status.textContent];
        }""",
        json.dumps(OWN),
    )
    assert before == after
    assert "not JSON" in page.locator(".fit-error").inner_text()
    assert figures(page) == ["–"] * 5


@pages
def test_two_settings_side_by_side(open_page):
    page = open_page("use/fit.html")
    first = result(page)
    page.get_by_role("button", name="Compare with another setting").click()
    page.locator("#fit").get_by_text("QLoRA", exact=True).first.click()
    second = result(page)
    lines = page.locator(".fit-kept tbody").inner_text().splitlines()
    rows = {row[0]: row[1:] for row in (line.split("\t") for line in lines)}
    assert rows["memory"] == [size_text(first["total"]), size_text(second["total"])]
    assert rows["largest rank"] == [f"{first['rank']:,}", f"{second['rank']:,}"]
    assert rows["method"] == ["LoRA", "QLoRA"]
    assert page.locator(".fit-kept strong").count() < len(rows)
    assert page.locator(".fit-row[data-kept]").count() == 1
    again = open_page("use/" + here(page).split("/use/")[1])
    again.locator(".fit-kept tbody tr").first.wait_for()
    assert again.locator(".fit-kept").inner_text() == page.locator(".fit-kept").inner_text()
    again.get_by_role("button", name="Swap").click()
    assert result(again) == first
    again.get_by_role("button", name="End the comparison").click()
    assert again.locator(".fit-kept").is_hidden()
    assert "with=" not in here(again)


@pages
def test_the_map_says_what_plan_says_and_takes_a_click_and_keys(open_page):
    page = open_page("use/fit.html#" + START)
    cells = page.locator(".fit-map td").evaluate_all(
        "all => all.map(c => ({ ...c.dataset, text: c.textContent, says: c.ariaLabel }))"
    )
    assert len(cells) == 3 * len(DATA["gpus"])
    signs = {"fits": "✓", "tight": "≈", "no": "✕"}
    options = {"rank": 16, "targets": "all-linear", "max_length": 2048}
    choices = accounting.plan("llama-3-8b", gpu="T4", **options).choices
    wants = {each.method: each for each in choices}
    for cell in cells:
        gpu, total = accounting.gpus()[cell["gpu"]], wants[cell["method"]].memory.total
        want = "fits" if total <= gpu.room else "tight" if total <= gpu.memory else "no"
        assert cell["verdict"] == want
        assert cell["text"].startswith(signs[want])
        assert cell["says"].startswith(f"{cell['gpu']}, {cell['method']}: ")
        left = pytest.approx(abs(gpu.memory - total) / 2**30, rel=0.006, abs=0.051)
        assert float(cell["text"][2:].replace(",", "")) == left
    page.locator(".fit-map td[data-gpu=L4][data-method=QLoRA]").click()
    assert "method=QLoRA&gpu=L4&" in here(page)
    assert page.locator("#fit [name=gpu]").input_value() == "L4"
    for key in ("ArrowDown", "ArrowLeft", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    gpu = page.evaluate("document.activeElement.dataset.gpu")
    assert gpu != "L4"
    assert f"method=LoRA&{urlencode({'gpu': gpu})}" in here(page)
    assert page.locator(".fit-map td[aria-selected=true]").count() == 1
    assert page.locator(".fit-map td[tabindex='0']").count() == 3


@pages
def test_what_would_make_it_fit_does(open_page):
    page = open_page(
        "use/fit.html#model=llama-3-8b&rank=16&targets=all-linear&method=QLoRA&gpu=RTX+3060+12GB&max_length=4096"
    )
    buttons, asked = page.locator(".fit-remedies button"), here(page).split("#")[1]
    planned = accounting.plan(
        "llama-3-8b", gpu="RTX 3060 12GB", rank=16, targets="all-linear", methods=["QLoRA"],
        max_length=4096,
    )  # fmt: skip
    labels = buttons.all_inner_texts()
    assert [label.split(":")[0].removeprefix("on ") for label in labels] == [
        remedy.change for remedy in planned.remedies
    ]
    assert len(labels) >= 2
    for number, (label, remedy) in enumerate(zip(labels, planned.remedies, strict=True)):
        buttons.nth(number).click()
        assert result(page)["verdict"] == "fits", label
        assert result(page)["total"] == remedy.memory
        assert remedy.price in label
        page.evaluate(GO, asked)
    page = open_page(
        "use/fit.html#model=llama-3.1-405b&rank=16&targets=all-linear&method=full&gpu=T4"
    )
    assert "No single GPU in the list has enough memory." in show(page, "could")
    assert page.locator(".fit-remedies button").count() == 0


@pages
@pytest.mark.parametrize("compared", [False, True])
def test_the_image_is_saved(open_page, compared, tmp_path):
    page = open_page("use/fit.html")
    if compared:
        page.get_by_role("button", name="Compare with another setting").click()
        page.locator("#fit").get_by_text("full", exact=True).first.click()
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG\r\n")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Image, {kind}").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        content = path.read_bytes()
        assert content.startswith(start)
        assert path.name == f"fit.{kind.lower()}"
        if kind == "SVG":
            assert b"Fits, with" in content
            assert (b"Does not fit" in content) == compared
        else:
            assert int.from_bytes(content[16:20], "big") == 2400
            assert len(content) > 40_000


# What buttons have said, since they say it for a moment only.
LABELS = """() => {
  window.labels = [];
  const watch = (changes) => labels.push(...changes.filter(({ target }) => target.tagName === "BUTTON").map(({ target }) => target.textContent));
  new MutationObserver(watch).observe(document.getElementById("fit"), { childList: true, subtree: true });
}"""


@pages
def test_link_and_command_are_copied(open_page):
    page = open_page("use/fit.html", permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(LABELS)
    for name, want in (("Copy the link", here(page)), ("Copy", show(page, "command"))):
        button = page.locator("#fit").get_by_role("button", name=name, exact=True)
        page.evaluate("labels.length = 0")
        button.click()
        page.wait_for_function("labels.includes('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == want
        button.wait_for()  # its own label again


BOTH = START.replace("LoRA", "full") + "&with=" + START.replace("&", "%26").replace("=", "%3D")
SCREENS = [*product((START, BOTH), (390, 1280, 1440), ("light", "dark"))]


@pages
@pytest.mark.parametrize(
    ("asked", "width", "scheme"), SCREENS if FULL else [(BOTH, 390, "dark"), (START, 1280, "light")]
)
def test_it_fits_the_page_without_barriers(open_page, axe, width, scheme, asked):
    page = open_page(
        f"use/fit.html#{asked}", viewport={"width": width, "height": 844}, color_scheme=scheme
    )
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for summary in page.locator("#fit summary").all():
        summary.click()
    page.get_by_role("combobox", name="Model").click()
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    assert [
        (v["id"], v["impact"], [n["target"] for n in v["nodes"]][:3])
        for v in found
        if v["impact"] != "minor"
    ] == []


@pages
def test_it_is_all_within_reach_of_the_keyboard(open_page):
    page = open_page("use/fit.html")
    page.get_by_role("combobox", name="Model").focus()
    reached = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.name || document.activeElement.dataset.act || document.activeElement.tagName"
            )
        )
    assert {
        "method",
        "gpu",
        "rank",
        "power",
        "targets",
        "max_length",
        "batch_size",
        "SUMMARY",
        "TD",
        "link",
        "svg",
        "png",
        "keep",
        "command",
    } <= reached


@pages
def test_on_paper_there_is_the_answer_and_the_map(open_page):
    page = open_page("use/fit.html")
    page.emulate_media(media="print")
    assert page.locator(".fit-verdict").is_visible()
    assert page.locator(".fit-map td").first.is_visible()
    assert page.locator("#fit button:visible").count() == 0


@pages
def test_the_page_and_all_that_others_do_not_load_are_under_130_kB_compressed(open_page):
    def loaded(path):
        before = len(open_page.received)
        open_page(path).wait_for_load_state("networkidle")
        return {
            response.url: len(zlib.compress(response.body()))
            for response in open_page.received[before:]
        }

    # text alone: with the theme's files and nothing else but itself
    everywhere = loaded("develop/vocabulary.html")
    own = {url: size for url, size in loaded("use/fit.html").items() if url not in everywhere}
    assert any("fit-data.js" in url for url in own)
    assert sum(own.values()) < 130_000  # as hosts send them
    assert not any("fit-parts.json" in url for url in own)
    page = open_page("use/fit.html")
    with page.expect_response(lambda response: "fit-parts.json" in response.url) as parts:
        page.get_by_label("rank r").focus()
    assert len(zlib.compress(parts.value.body())) < 85_000  # once the page is used


@pages
def test_the_front_page_leads_to_the_same_answer(open_page):
    front = open_page("index.html")
    for name, value in {"model": "llama-3.1-8b", "gpu": "T4"}.items():
        front.locator(f"[data-choice={name}]").select_option(value)
    said = front.locator("[data-part=memory] .front-method", has_text="LoRA").first.inner_text()
    page = open_page(front.locator("[data-part=more]").get_attribute("href"))
    options = {"rank": 16, "targets": "all-linear", "max_length": front_data.MAX_LENGTH}
    total = accounting.training_memory("llama-3.1-8b", **options).total
    assert result(page)["total"] == total
    assert f"{total / 2**30:.1f} GB: does not fit" in said
    command = "lora-np plan llama-3.1-8b --gpu T4 --method LoRA --rank 16 "
    assert show(page, "command").startswith(command)
