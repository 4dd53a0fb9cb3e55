"""What people type works, or the error says what to type."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters.adapter import in_memory
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.table import Table

HOSTILE = "q\x1b[31m\x9bK\u202e"


@pytest.fixture
def command(capsys):
    """Run a command in this process; its status, output and complaint."""

    def run_command(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run_command


def updates(path):
    return {name: module.delta() for name, module in adapters.load(path).items()}


OPERATIONS = {
    "inspect": lambda a, b, base, out: adapters.inspect(a).table.records,
    "inspect with a base": lambda a, b, base, out: adapters.inspect(a, base=base).table.records,
    "diff": lambda a, b, base, out: adapters.diff(a, b).table.records,
    "resize": lambda a, b, base, out: adapters.resize(a, out, rank=1).table.records,
    "combine": lambda a, b, base, out: adapters.combine([a, b], out).table.records,
    "merge": lambda a, b, base, out: adapters.merge(base, a, out).table.records,
    "load": lambda a, b, base, out: [*adapters.load(a)],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_adapter_is_a_path_one_of_its_files_or_an_object(
    name, make_adapter, make_checkpoint, tmp_path
):
    a, b, base = make_adapter("a"), make_adapter("b", seed=1), make_checkpoint("base")
    forms = {
        "path": (a, b),
        "text": (str(a), f"{b}/"),
        "weights": (a / "adapter_model.safetensors", b / "adapter_model.safetensors"),
        "config": (a / "adapter_config.json", b / "adapter_config.json"),
        "object": (adapters.load(a), adapters.load(b)),
        "in memory": tuple(
            adapters.Adapter(x.modules, raw=x.raw) for x in map(adapters.load, (a, b))
        ),
    }
    found = {form: OPERATIONS[name](*two, base, tmp_path / form) for form, two in forms.items()}
    for form in forms:
        assert found[form] == found["path"], form
    if (tmp_path / "path" / "adapter_config.json").exists():
        for form in forms:
            for module, update in updates(tmp_path / form).items():
                np.testing.assert_array_equal(update, updates(tmp_path / "path")[module])


def test_what_is_in_memory_can_be_attached_saved_and_told(make_adapter, tmp_path):
    made = adapters.load(make_adapter("a"))
    lone = adapters.Adapter(made.modules, raw=made.raw)
    found = adapters.inspect(lone)
    adapters.save(lone, tmp_path / "again")
    assert found.contents == adapters.inspect(tmp_path / "again").contents
    assert "3 modules" in found.title


@pytest.mark.parametrize(
    "wrong", [None, 8, ["a"], np.ones(3), adapters], ids=lambda wrong: type(wrong).__name__
)
def test_what_is_no_adapter_is_refused_with_what_would_be(wrong, tmp_path):
    with pytest.raises(TypeError, match="adapter must be a name, a path or an Adapter, got"):
        adapters.inspect(wrong)


def test_arrays_of_an_adapter_in_memory_are_never_changed(make_checkpoint, tmp_path):
    base, rng = make_checkpoint("base", dtype="float64"), np.random.default_rng(3)
    A, B, W = rng.standard_normal((2, 4)), rng.standard_normal((6, 2)), rng.standard_normal((6, 4))
    kept = [array.copy() for array in (A, B, W)]
    name = "model.layers.0.q_proj"
    module = adapters.AdapterModule.of(A=A, B=B, alpha=2)
    made = adapters.Adapter({name: module}, full={f"{name}.weight": in_memory(W)})
    adapters.merge(base, made, tmp_path / "merged")
    for array, before in zip((A, B, W), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    (file,) = [
        found
        for found in map(safetensors.open, (tmp_path / "merged").glob("*.safetensors"))
        if f"{name}.weight" in found.tensors
    ]
    np.testing.assert_allclose(file.read(f"{name}.weight"), W + B @ A, atol=1e-12)


def test_what_is_read_is_never_replaced(make_adapter):
    a = make_adapter("a")
    for form in (a, a / "adapter_model.safetensors", adapters.load(a)):
        with pytest.raises(ValueError, match="is an input itself"):
            adapters.resize(form, a, rank=1, force=True)
        with pytest.raises(ValueError, match="is an input itself"):
            adapters.combine([form], a, force=True)


def test_what_is_not_there_is_one_class_of_error(make_adapter, make_checkpoint, tmp_path):
    a, base = make_adapter("a"), make_checkpoint("base")
    for use in (
        lambda: adapters.load(tmp_path / "none"),
        lambda: adapters.inspect("none"),
        lambda: adapters.diff(a, tmp_path / "none"),
        lambda: adapters.resize(tmp_path / "none", tmp_path / "out", rank=1),
        lambda: adapters.merge(tmp_path / "none", a, tmp_path / "out"),
        lambda: adapters.merge(base, tmp_path / "none", tmp_path / "out"),
        lambda: adapters.extract(base, tmp_path / "none", tmp_path / "out", rank=1),
        lambda: safetensors.open(tmp_path / "none.safetensors"),
    ):
        for kind in (FileNotFoundError, FileError):
            with pytest.raises(kind, match=r"no such (file|directory)"):
                use()
    for kind in (FileNotFoundError, FileError):
        with pytest.raises(kind, match=r"base: a model, not an adapter: .* adapter_config\.json"):
            adapters.load(base)


def test_sizes_have_units_and_directories_are_made(command, make_adapter, tmp_path):
    a = make_adapter("a")
    for text in ("1000", "1kB", "1 KB", "0.001MB"):
        out = tmp_path / "some" / "where" / text
        assert (
            command("resize", a / "adapter_model.safetensors", "--budget", text, "-o", out)[0] == 0
        )
        assert (out / "adapter_model.safetensors").stat().st_size <= 1000
    status, _, err = command("resize", a, "--budget", "10 XB", "-o", tmp_path / "out")
    assert (status, err.count("\n")) == (2, 1)
    assert "budget must be bytes or text such as '24 GB'" in err
    result = adapters.resize(a, tmp_path / "new" / "small", budget="1 kB")
    assert result.bytes <= 1000


def test_values_of_options_are_found_in_any_case(command, make_adapter, tmp_path):
    assert command("combine", make_adapter("a"), "--method", "CAT", "-o", tmp_path / "out")[0] == 0


def test_a_page_is_written_beside_the_adapter_and_never_into_it(command, make_adapter, tmp_path):
    a = make_adapter("a")
    weights = a / "adapter_model.safetensors"
    (a / "page.html").write_text("somebody's")
    for force, said in (((), "already exists"), (("--force",), "must not replace")):
        status, _, err = command("inspect", weights, "--html", a / "page.html", *force)
        assert (status, (a / "page.html").read_text()) == (2, "somebody's")
        assert said in err
    assert command("inspect", weights, "--html", tmp_path / "page.html")[0] == 0


def controls(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_a_name_cannot_command_the_terminal_or_the_browser(command, tmp_path):
    module = adapters.AdapterModule.of(A=np.eye(1, 3), B=np.eye(2, 1), alpha=1)
    adapters.save(adapters.Adapter({HOSTILE: module}), tmp_path / "a", base=HOSTILE)
    for arguments in (
        ["inspect"],
        ["inspect", "--json"],
        ["resize", "--rank", "1", "-o", tmp_path / "out"],
    ):
        status, out, err = command(arguments[0], tmp_path / "a", *arguments[1:])
        assert (status, err) == (0, "")
        assert controls(out) == []
        assert "q" in out
    found = adapters.inspect(tmp_path / "a")
    assert json.loads(found.to_json())["rows"][0]["name"] == HOSTILE
    table = Table((HOSTILE,), [(HOSTILE,)], title=HOSTILE, notes=[HOSTILE])
    for text in (str(found), found._repr_html_(), str(table), table._repr_html_()):
        assert controls(text) == []
        assert "q\\x1b[31m" in text
    assert controls(found.to_html()) == []
    assert json.loads(table.to_json())["title"] == HOSTILE
