"""Every command that a page, the README or --help shows is run; every block of Python is a
doctest.
"""

import inspect
import json
import pkgutil
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import claims
import lora_np
from benchmarks import _gguf
from lora_np import adapters, language
from lora_np.cli import run
from lora_np.hub import safetensors
from tests.commands import every_command
from tests.drawing import every

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [
    page for page in PAGES if not {"_build", "practice", "claims"} & {*page.relative_to(ROOT).parts}
]  # made with the site
NOT_HERE = {
    "lora-np finetune": "needs a language model: tests/language",
    "lora-np evaluate": "needs a language model: tests/language/test_evaluating.py",
    "lora-np bake": "needs a language model: tests/language/test_baking.py",
    "lora-np generate": "needs a language model: tests/language",
    "lora-np resize big --rank 8 -o small --base": "needs a language model: tests/language",
    "lora-np combine style task -o both --method regmean": "needs a language model: tests/language",
    "lora-np repair": "needs a base of the adapter's shapes: tests/adapters/test_repairing.py",
    "lora-np merge austen genesis-style": "needs a training: tests/laws/test_last_metre.py",
    "lora-np capacity austen": "a measurement of a text: tests/accounting/test_bits.py",
    "lora-np capacity my-model": "needs a language model: tests/accounting/test_bits.py",
    "lora-np lab": "opens JupyterLab: tests/browser",
    "lora-np tour": "the main job: tests/course/test_guided_tour.py",
    "lora-np exercises nbgrader": "a course for nbgrader: tests/grading/test_assignments.py",
    "lora-np exercises grade": "processes of students: tests/grading/test_classroom.py",
}
# Python that is shown without being a doctest, and where it runs.
ELSEWHERE = {
    "training.md": "tests/training: a sweep on a cluster of two workers",
    "README.md": "pasteable: test_the_readme_shows_what_is_printed",
}


def shown_commands():
    """Commands in blocks of code, and the example of each command's help."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"(?:\s{4,}|\$ )\s*(lora-np .*)", line):
                yield found[1]
    # rows of the questions from issue trackers end with a command
    faq = (ROOT / "docs" / "understand" / "faq.md").read_text(encoding="utf-8")
    yield from re.findall(r"\| `(lora-np .*)` \|$", faq, re.MULTILINE)
    for words, command in every_command():
        example = re.search(r"Example: (.*?)(?:\n\n|$)", command.help or "", re.DOTALL)
        assert example, f"{words} --help shows no example"
        yield " ".join(example[1].split())


COMMANDS = sorted(
    {
        " ".join(shlex.split(command, comments=True)): command for command in shown_commands()
    }.values()
)


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory):
    """A folder with every file that the examples name."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("examples")
        patch.chdir(folder)
        write_example_files()
    return folder


@pytest.fixture
def example_files(example_folder, tmp_path, monkeypatch):
    shutil.copytree(example_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def write_example_files():
    rng = np.random.default_rng(0)
    np.save("update.npy", rng.normal(size=(20, 30)))
    Path("lora-np-tour").mkdir()
    safetensors.save({"weight": rng.normal(size=(20, 30))}, "lora-np-tour/full-update.safetensors")
    safetensors.save(
        {"layers.0.q_proj.lora_B.weight": rng.normal(size=(20, 4))}, "adapter.safetensors"
    )
    W0 = rng.normal(size=(64, 64)).astype(np.float32)
    sizes = ("hidden_size", "intermediate_size")
    config = {"model_type": "llama", **dict.fromkeys(sizes, 64), "num_hidden_layers": 1}
    config |= {"num_attention_heads": 4, "vocab_size": 3}
    for name in ("base", "llama", "my-model", "tuned", "my-llama", "path/to"):
        weights = (
            W0
            if name in ("base", "llama", "my-model")
            else W0 + rng.normal(size=W0.shape).astype("f4")
        )
        Path(name).mkdir(parents=True)
        safetensors.save(
            {"model.layers.0.self_attn.q_proj.weight": weights}, Path(name, "model.safetensors")
        )
        Path(name, "config.json").write_text(json.dumps(config))
    for name in (
        "adapter",
        "my-adapter",
        "small-adapter",
        "big",
        "style",
        "hotel",
        "task",
        "lora-np-tour/adapter-r8",
    ):
        module = adapters.AdapterModule.of(
            A=rng.normal(size=(8, 64)), B=rng.normal(size=(64, 8)), alpha=16
        )
        adapters.save(adapters.Adapter({"model.layers.0.self_attn.q_proj": module}), name)
    shapes = {"model.embed_tokens": (3, 64), "model.norm": (64,)}
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"model.layers.0.{name}"] = (64,)
    for name in (
        *map("self_attn.{}_proj".format, "qkvo"),
        *map("mlp.{}_proj".format, ("up", "gate", "down")),
    ):
        shapes[f"model.layers.0.{name}"] = (64, 64)
    whole = {
        f"{name}.weight": rng.normal(size=shape).astype("f4") for name, shape in shapes.items()
    }
    Path("smollm2").mkdir()
    safetensors.save(whole, "smollm2/model.safetensors")
    Path("smollm2/config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    Path("smollm2/tokenizer.json").write_text(json.dumps(language.Characters("abc").tokenizer()))
    _gguf.write("smollm2", "smollm2.gguf")
    adapters.convert("adapter", "adapter.gguf", to="gguf", base="llama")
    adapters.convert("adapter", "mlx-adapter", to="mlx")
    adapters.convert(adapters.Adapter({"down.0.to_q": module}), "unet.safetensors", to="kohya")
    safetensors.save({"down.0.to_q.weight": W0}, "diffusion_pytorch_model.safetensors")
    for folder in ("week-1", "my-exercises"):
        assert run(["exercises", "start", folder, "--lesson", "1"]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_runs(command, example_files, capsys):
    for start, where in NOT_HERE.items():
        if command.startswith(start):
            pytest.skip(where)
    words = shlex.split(command, comments=True)[1:]
    if "-o" in words:
        target = Path(words[words.index("-o") + 1])
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    if words[:2] == ["exercises", "start"]:
        shutil.rmtree(words[2])
    capsys.readouterr()
    status = run(words)
    out, err = capsys.readouterr()
    assert err == ""
    assert out
    # These say no, not that something failed: adapters that differ, exercises that are not done
    # yet. What a plan says, docs/use/plan.md shows, and tests/accounting/test_planning.py holds it to
    # that.
    no = {"diff": [3], "plan": [0, 3], "check": [0, 3]}.get(words[0], [0])
    assert status in ([1] if words[:2] == ["exercises", "check"] else no)


@every("page", PAGES)
def test_every_block_of_python_is_a_doctest(page):
    if page.name in ELSEWHERE:
        return
    blocks = re.findall(
        r"^ *```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert all(block.startswith(">>> ") for block in blocks)


def test_the_readme_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    """Blocks of Python and of commands, pasted one after the other; what is printed begins as the
    comment beside `print` says.
    """
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["python", "sh", "sh"]
    for kind, block in blocks:
        if kind == "python":
            assert len(block.splitlines()) <= 12
            exec(block, {})
            printed = capsys.readouterr().out.splitlines()
            comments = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
            assert len(comments) == 2
            assert [line for line in printed if line in comments] == comments
        for line in block.splitlines() if kind == "sh" else ():
            assert run(shlex.split(line)[1:]) == 0, line
    assert len(text.splitlines()) <= 110


# What README and the front page say, and the numbers of benchmarks/RESULTS.md on one line.
EVIDENCE = {
    "103,546,880": ("PEFT on meta tensors", "103,546,880 of 70,657,253,376"),
    "2.02 s**, 804 MiB": ("SmolLM2-135M    lora_np, fused", "2019.2", "804"),
    "2.41 s**, 1,463 MiB": ("SmolLM2-135M    torch + PEFT", "2409.4", "1463"),
    "9.2 s**, 72 MiB": ("merge                   lora_np  ", "9.188", "71.93"),
    "12.6 s**, 642 MiB": ("merge                   PEFT", "12.6", "642.1"),
    "318 s**": ("seconds of 60 steps of SmolLM2", "318", "295"),
    "295 s**": ("seconds of 60 steps of SmolLM2", "318", "295"),
}


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "index.md"], ids=lambda page: page.name)
def test_the_evidence_is_what_was_recorded(page):
    text = page.read_text(encoding="utf-8")
    recorded = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    for shown, wanted in EVIDENCE.items():
        assert shown.replace("**", "") in text.replace("**", ""), shown
        assert [line for line in recorded if all(part in line for part in wanted)], wanted
    verdicts = [claim["verdict"] for claim in claims.records().values()]
    assert re.search(rf"\b{len(verdicts)} claims of papers\b", text)
    for verdict in ("supported", "mixed", "contradicted here"):
        assert f"{verdicts.count(verdict)} {verdict}" in text


def test_every_name_that_a_page_links_to_exists():
    """Roles such as {func}`~lora_np.fit` lead to a public name."""
    role = re.compile(r"\{(?:func|class|meth|mod|exc|data|attr)\}`~?(lora_np[\w.]*)")
    for page in PAGES:
        for name in role.findall(page.read_text(encoding="utf-8")):
            try:
                pkgutil.resolve_name(name)
            except (AttributeError, ImportError):
                pytest.fail(f"{page.name} links to {name}")


def test_every_package_has_a_page():
    """And the page lists what ``__all__`` names: see docs/_ext/public_names.py."""
    reference = ROOT / "docs" / "reference"
    named = set(
        re.findall(
            r"public-names:: (\S+)",
            "".join(page.read_text("utf-8") for page in reference.glob("*.md")),
        )
    )
    packages = {name for name in lora_np.__all__ if inspect.ismodule(getattr(lora_np, name))}
    assert {f"lora_np.{name}" for name in packages} <= named
