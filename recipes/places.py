"""Extract the places where programs can put a LoRA, from their own source, into the package's data.

Give wheels, source distributions or directories of the programs; no program is installed or run::

    python -m recipes.places --date 2026-12-01 vllm-0.30.0.tar.gz sglang-0.5.9-py3-none-any.whl

What is written to ``lora_np/adapters/places.json`` of a program that is not given stays as it is.
For each architecture the last names of modules are listed that the program's own table, or the
layers that its model classes build, have a place for:

vllm
    The classes of ``models/registry.py`` and whatever they build from subclasses of ``LinearBase``,
    which are the modules that ``get_supported_lora_modules`` finds, with the names that
    ``packed_modules_mapping`` fuses. A class without ``SupportsLoRA`` has no place.
sglang
    The ``EntryClass`` of each file in ``srt/models``: its linear layers whose size
    ``get_hidden_dim`` tells, under the names that ``get_normalized_target_modules`` maps to them.
tensorrt-llm
    The table of names in ``lora_manager.py``, for each architecture of ``_arch_index.py``.
llama.cpp
    The classes that ``convert_hf_to_gguf.py`` registers and the names of ``gguf``'s tensor map for
    their tensors, without those that ``modify_tensors`` cuts in a way that a LoRA cannot follow.
mlx
    The files in ``mlx_lm/models``, by model type, and their linear layers and embeddings.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

TARGET = Path(__file__).parents[1] / "lora_np" / "adapters" / "places.json"
Places = Mapping[str, Iterable[str]]
Class = tuple[str, ast.ClassDef]  # with its module
EMBEDDINGS = ("lm_head", "embed_tokens")


def texts(archive: Path, wanted: re.Pattern[str]) -> dict[str, str]:
    """Read the files of a wheel, a source distribution or a directory whose paths match."""
    read: dict[str, bytes] = {}
    if archive.is_dir():
        for path in archive.rglob("*.py"):
            if wanted.search(name := path.relative_to(archive.parent).as_posix()):
                read[name] = path.read_bytes()
    elif archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            read = {name: wheel.read(name) for name in wheel.namelist() if wanted.search(name)}
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if wanted.search(member.name) and (file := tar.extractfile(member)):
                    read[member.name] = file.read()
    return {name: text.decode(errors="replace") for name, text in read.items()}


class Code:
    """The modules of a package as syntax trees, and what names in them mean."""

    def __init__(self, files: Mapping[str, str], package: str) -> None:
        self.texts: dict[str, str] = {}
        self.registry: dict[str, tuple[str, str]] = {}  # classes that are named by a text
        for path, text in files.items():
            parts = PurePosixPath(path).with_suffix("").parts
            start = len(parts) - 1 - parts[::-1].index(package) if package in parts else 0
            self.texts[".".join(parts[start:]).removesuffix(".__init__")] = text

    @cache  # noqa: B019 - one object for a run
    def body(self, module: str) -> list[ast.stmt]:
        """The statements of a module, which is parsed when it is first asked for."""
        return ast.parse(self.texts[module]).body if module in self.texts else []

    @cache  # noqa: B019
    def scope(self, module: str) -> dict[str, tuple[str, str]]:
        """Where the names at the top of a module are defined: a module and a name there."""
        names: dict[str, tuple[str, str]] = {}
        for node in self.body(module):
            if isinstance(node, ast.ImportFrom):
                home = node.module or ""
                if node.level:
                    home = ".".join([*module.split(".")[: -node.level], *filter(None, [home])])
                names |= {x.asname or x.name: (home, x.name) for x in node.names}
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                names[node.name] = module, node.name
        return names

    @cache  # noqa: B019
    def find(self, module: str, name: str) -> Class | None:
        """Find a class by a name in a module, through imports."""
        for _ in range(8):
            home, own = self.scope(module).get(name, ("", ""))
            if home == module:
                found = [x for x in self.body(module) if isinstance(x, ast.ClassDef)]
                return next(((module, x) for x in found[::-1] if x.name == own), None)
            if not home:
                return None
            module, name = home, own
        return None

    def bases(self, start: Class) -> Iterator[Class]:
        """A class and those that it inherits from, as far as they are in the package."""
        yield start
        for base in start[1].bases:
            if found := self.find(start[0], _last(base)):
                yield from self.bases(found)

    def reach(self, start: Class) -> list[Class]:
        """A class and all that it may build: every class of the package that it names."""
        todo, seen = [start], {}
        while todo:
            module, node = todo.pop()
            if (module, node.name) not in seen:
                seen[module, node.name] = node
                todo += self.named(module, node)
        return [(module, node) for (module, _), node in seen.items()]

    @cache  # noqa: B019
    def named(self, module: str, node: ast.ClassDef) -> list[Class]:
        """The classes that a class names, or tells by a text where ``architectures`` are given."""
        places = set()
        for x in ast.walk(node):
            if isinstance(x, ast.Name):
                places.add((module, x.id))
            elif isinstance(x, ast.Attribute) and isinstance(x.value, ast.Name):
                places.add((".".join(self.scope(module).get(x.value.id, ("",))), x.attr))
            elif isinstance(x, ast.keyword) and x.arg == "architectures":
                places |= {self.registry[text] for text in constants(x) if text in self.registry}
        return [found for place in sorted(places) if (found := self.find(*place))]

    def attribute(self, start: Class, name: str) -> dict[str, list[str]]:
        """The table that a class, or one that it inherits from, gives a name."""
        for module, node in self.bases(start):
            for line in node.body:
                targets = line.targets if isinstance(line, ast.Assign) else []
                targets = [line.target] if isinstance(line, ast.AnnAssign) else targets
                value = getattr(line, "value", None)
                if value is not None and name in map(_last, targets):
                    return self.table(module, value)
        return {}

    def table(self, module: str, value: ast.expr) -> dict[str, list[str]]:
        """A table of texts: a literal, another class's, or two joined."""
        if isinstance(value, ast.BinOp):
            return self.table(module, value.left) | self.table(module, value.right)
        if isinstance(value, ast.Attribute) and (other := self.find(module, _last(value.value))):
            return self.attribute(other, value.attr)
        table: dict[str, list[str]] = {}
        for key, part in (
            zip(value.keys, value.values, strict=True) if isinstance(value, ast.Dict) else ()
        ):
            table |= (
                self.table(module, part)
                if key is None
                else {text: sorted(constants(part)) for text in constants(key)}
            )
        return table

    def method(self, start: Class, name: str) -> ast.FunctionDef | None:
        """The method of a class, or of one that it inherits from."""
        for _, node in self.bases(start):
            for line in node.body:
                if isinstance(line, ast.FunctionDef) and line.name == name:
                    return line
        return None


def _last(node: ast.expr) -> str:
    """The last name of a dotted name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def layers(classes: Iterable[Class], wanted: Callable[[ast.Call], bool]) -> set[str]:
    """The attributes to which classes assign layers that are wanted."""
    return {name for _, node in classes for name in _layers(node, wanted)}


@cache
def _layers(node: ast.ClassDef, wanted: Callable[[ast.Call], bool]) -> set[str]:
    methods = {x.name: x for x in node.body if isinstance(x, ast.FunctionDef)}

    def builds(code: ast.AST, depth: int = 0) -> bool:
        calls = [x for x in ast.walk(code) if isinstance(x, ast.Call)]
        own = [methods[name] for x in calls if (name := _last(x.func)) in methods]
        return any(map(wanted, calls)) or (depth < 2 and any(builds(x, depth + 1) for x in own))

    names = set()
    for line in ast.walk(node):
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None:
            targets = line.targets if isinstance(line, ast.Assign) else [line.target]
            if any(isinstance(x, ast.Attribute) for x in targets) and builds(line.value):
                names |= {x.attr for x in targets if isinstance(x, ast.Attribute)}
    return names


def parallel_linear(call: ast.Call) -> bool:
    """Whether a call builds a linear layer of vLLM's or SGLang's, not torch's."""
    of_torch = isinstance(call.func, ast.Attribute) and _last(call.func.value) == "nn"
    return _last(call.func).endswith("Linear") and not of_torch


def constants(node: ast.AST) -> set[str]:
    """All texts in a piece of code."""
    values = (x.value for x in ast.walk(node) if isinstance(x, ast.Constant))
    return {value for value in values if isinstance(value, str)}


def function(code: Code, module: str, name: str) -> ast.FunctionDef:
    """A function at the top of a module."""
    found = [x for x in code.body(module) if isinstance(x, ast.FunctionDef)]
    return next(x for x in found if x.name == name)


REPORTED = ("Qwen3_5",)  # to answer as the base does, in an open report: vllm#49354


def vllm(files: Mapping[str, str]) -> Places:
    """Read vLLM's places."""
    code, home = Code(files, "vllm"), "vllm.model_executor.models"
    for node in code.body(f"{home}.registry"):
        for line in ast.walk(node):
            for key, value in (
                zip(line.keys, line.values, strict=True) if isinstance(line, ast.Dict) else ()
            ):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple):
                    module, name = (str(getattr(x, "value", "")) for x in value.elts[:2])
                    code.registry[str(key.value)] = f"{home}.{module}", name
    places: dict[str, set[str]] = {}
    for architecture, place in code.registry.items():
        start = code.find(*place)
        if architecture.startswith(REPORTED):
            continue
        if start is None or place[0].endswith(".transformers"):
            continue  # of what transformers builds, nothing is seen here
        parents, built = [*code.bases(start)], code.reach(start)
        bases = {_last(base) for _, node in parents for base in node.bases}
        if "SupportsLoRA" not in bases:
            places[architecture] = set()
            continue
        if "SupportsMultiModal" in bases and not _assigned(parents, "hf_to_vllm_mapper"):
            continue  # where its names go is not seen
        if any(_by_config(node) for _, node in built):
            continue  # its language model may be any
        names = layers(built, parallel_linear)
        for fused, parts in code.attribute(start, "packed_modules_mapping").items():
            if fused in names:
                names = (names - {fused}) | {*parts}
        places[architecture] = names | {*code.attribute(start, "embedding_modules")}
    return places


@cache
def _by_config(node: ast.ClassDef) -> bool:
    """Whether a class builds a part that only the model's config names."""
    calls = [x for x in ast.walk(node) if isinstance(x, ast.Call)]
    return any(
        _last(x.func) == "init_vllm_registered_model"
        and "architectures" not in {word.arg for word in x.keywords}
        for x in calls
    )


def _assigned(classes: Iterable[Class], name: str) -> bool:
    return any(
        name in map(_last, line.targets)
        for _, node in classes
        for line in node.body
        if isinstance(line, ast.Assign)
    )


def sglang(files: Mapping[str, str]) -> Places:
    """Read SGLang's places."""
    code, utils = Code(files, "sglang"), "sglang.srt.lora.utils"
    sizes = _compared(function(code, utils, "get_default_hidden_dim"))
    mapped: dict[str, str] = {}
    for node in ast.walk(function(code, utils, "get_normalized_target_modules")):
        if isinstance(node, ast.Dict):
            mapped |= ast.literal_eval(node)
    places: dict[str, set[str]] = {}
    for module in [name for name in code.texts if name.startswith("sglang.srt.models.")]:
        for line in code.body(module):
            if not (isinstance(line, ast.Assign) and "EntryClass" in map(_last, line.targets)):
                continue
            entries = line.value.elts if isinstance(line.value, ast.List) else [line.value]
            for start in filter(None, (code.find(module, _last(entry)) for entry in entries)):
                built = code.reach(start)
                seen = {name.lower() for _, node in built for name in [node.name]}
                tower = any("vision" in name or "audio" in name for name in seen)
                if tower and code.method(start, "should_apply_lora") is None:
                    continue  # its towers would be adapted too
                own = code.method(start, "get_hidden_dim")
                known = _compared(own) if own else sizes
                if own and "get_default_hidden_dim" in map(_last, _names(own)):
                    known |= sizes
                have = (layers(built, parallel_linear) | {*EMBEDDINGS}) & known
                named = mapped.items()
                names = {x for x, to in named if to in have and to not in EMBEDDINGS}
                places[start[1].name] = names | have
    return places


def _compared(node: ast.AST) -> set[str]:
    """The texts with which a function compares the name of a module."""
    return {text for x in ast.walk(node) if isinstance(x, ast.Compare) for text in constants(x)}


def _names(node: ast.AST) -> list[ast.expr]:
    return [x for x in ast.walk(node) if isinstance(x, ast.Name | ast.Attribute)]


def tensorrt_llm(files: Mapping[str, str]) -> Places:
    """Read TensorRT-LLM's places."""
    code = Code(files, "tensorrt_llm")
    wanted = "get_default_trtllm_modules_to_hf_modules"
    # heads and embeddings are skipped, as a rule of the package says
    names, architectures = {*EMBEDDINGS}, set()
    for module in code.texts:
        for line in code.body(module):
            tables = [x for x in ast.walk(line) if isinstance(x, ast.Dict)]
            if isinstance(line, ast.FunctionDef) and line.name == wanted:
                names |= {name for table in tables for name in ast.literal_eval(table).values()}
            elif isinstance(line, ast.Assign) and "MODEL_ARCH_TO_MODULE" in map(
                _last, line.targets
            ):
                architectures |= {name for table in tables for name in ast.literal_eval(table)}
    return dict.fromkeys(architectures, names)


def llama_cpp(files: Mapping[str, str]) -> Places:
    """Read llama.cpp's places."""
    constants_py = next(text for path, text in files.items() if path.endswith("gguf/constants.py"))
    mapping_py = next(text for path, text in files.items() if path.endswith("tensor_mapping.py"))
    tensors = _tensors(ast.parse(constants_py))
    names = _mapped(ast.parse(mapping_py))
    code = Code({path: text for path, text in files.items() if "gguf-py" not in path}, "conversion")
    places: dict[str, set[str]] = {}
    for module in code.texts:
        for node in code.body(module):
            if not isinstance(node, ast.ClassDef):
                continue
            own = code.find(module, node.name) or (module, node)
            if "MmprojModel" in {_last(base) for _, x in code.bases(own) for base in x.bases}:
                continue  # of images and sounds, in a file of its own
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and _last(mark.func) == "register":
                    arch = next(filter(None, (_arch(each) for _, each in code.bases(own))), "")
                    cut = _cut(code, own)
                    found = {
                        name
                        for x in tensors.get(arch, ())
                        for name in names.get((arch, x), names.get(("", x), ()))
                    }
                    for given in mark.args:
                        places[str(getattr(given, "value", ""))] = found - cut
    return places


def _arch(node: ast.ClassDef) -> str:
    """The architecture that a converter's class gives its model."""
    for line in node.body:
        if isinstance(line, ast.Assign) and "model_arch" in map(_last, line.targets):
            return _last(line.value)
    return ""


def _tensors(tree: ast.Module) -> dict[str, set[str]]:
    """The kinds of tensors of each architecture."""
    for line in tree.body:
        targets = [line.target] if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [])
        if "MODEL_TENSORS" in map(_last, targets) and isinstance(line.value, ast.Dict):  # type: ignore[attr-defined]
            return {
                _last(key): {_last(x) for x in value.elts}
                for key, value in zip(line.value.keys, line.value.values, strict=True)  # type: ignore[attr-defined]
                if key is not None and isinstance(value, ast.List)
            }
    return {}


# how names of language models begin in transformers
LAYER = re.compile(
    r"(model\.|transformer\.|gpt_neox\.|backbone\.)(decoder\.)?(layers|h|embed_\w+|wte|embeddings)\b"
    r"|transformer\.word_embeddings|lm_head|embed_out"
)


def _mapped(tree: ast.Module) -> dict[tuple[str, str], set[str]]:
    """The last names in checkpoints of a kind of tensor, for all or for one architecture."""
    names: dict[tuple[str, str], set[str]] = {}

    def add(arch: str, table: ast.Dict) -> None:
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(value, ast.Dict):
                add(_last(key) if key else "", value)
            elif key:
                texts = [text for text in constants(value) if LAYER.match(text)]
                ends = {text.rpartition(".")[2] for text in texts if "norm" not in text}
                names.setdefault((arch, _last(key)), set()).update(ends)

    for node in ast.walk(tree):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else []
        if {"mappings_cfg", "block_mappings_cfg", "arch_block_mappings_cfg"} & {
            *map(_last, targets)
        }:
            assert isinstance(node, ast.AnnAssign)
            if isinstance(node.value, ast.Dict):
                add("", node.value)
    return names


# transposed, a weight is another one: a LoRA is of outputs by inputs, however the base stores it
CUTS = {"view", "reshape", "cat", "chunk", "split", "stack", "squeeze", "transpose"}


def _cut(code: Code, start: Class) -> set[str]:
    """The names that a converter reshapes other than by the permutation of Llama's rows."""
    names: set[str] = set()
    for place in code.bases(start):
        method = code.method((place[0], place[1]), "modify_tensors")
        for part in ast.walk(method) if method else ():
            if isinstance(part, ast.If) and "permute" not in map(_last, _names(part)):
                calls = {_last(x.func) for x in ast.walk(part) if isinstance(x, ast.Call)}
                if calls & CUTS:
                    words = (re.findall(r"\w+", text) for text in constants(part.test))
                    names |= {word for found in words for word in found}
    return names


def mlx(files: Mapping[str, str]) -> Places:
    """Read mlx-lm's places."""
    code, home = Code(files, "mlx_lm"), "mlx_lm.models"

    def wanted(call: ast.Call) -> bool:
        return _last(call.func) in ("Linear", "Embedding", "SwitchLinear")

    places: dict[str, set[str]] = {}
    for module in code.texts:
        start = code.find(module, "Model") if module.startswith(f"{home}.") else None
        if start and start[0] == module:
            places[module.rpartition(".")[2]] = layers(code.reach(start), wanted)
    remapped: dict[str, str] = {}
    for line in code.body("mlx_lm.utils"):
        if isinstance(line, ast.Assign) and "MODEL_REMAPPING" in map(_last, line.targets):
            remapped = ast.literal_eval(line.value)
    return places | {name: places[to] for name, to in remapped.items() if to in places}


class Program(NamedTuple):
    """How the list of a program is read: from which files, and what it is called."""

    name: str
    table: str
    files: str  # an expression for their paths
    read: Callable[[Mapping[str, str]], Places]


# by the name of the distribution
PROGRAMS = {
    "vllm": Program(
        "vllm",
        "model_executor/models/registry.py and packed_modules_mapping",
        r"(^|/)vllm/model_executor/(models|layers)/.*\.py$",
        vllm,
    ),
    "sglang": Program(
        "sglang",
        "srt/lora/utils.py and srt/models",
        r"sglang/srt/(models|layers|lora)/.*\.py$",
        sglang,
    ),
    "tensorrt_llm": Program(
        "tensorrt-llm",
        "get_default_trtllm_modules_to_hf_modules and MODEL_ARCH_TO_MODULE",
        r"tensorrt_llm/(_torch/models/_arch_index|lora_\w+)\.py$",
        tensorrt_llm,
    ),
    "llama_cpp_python": Program(
        "llama.cpp",
        "convert_hf_to_gguf.py and gguf-py/gguf/tensor_mapping.py",
        r"llama\.cpp/(conversion/.*|convert_hf_to_gguf|gguf-py/gguf/(constants|tensor_mapping))\.py$",
        llama_cpp,
    ),
    "mlx_lm": Program("mlx", "mlx_lm/models", r"mlx_lm/(models/.*|utils)\.py$", mlx),
}
ARCHIVE = re.compile(r"([a-z_-]+?)-(\d[\w.]*?)(-.*\.whl|\.tar\.gz|)$")


def main() -> None:
    """Read the archives that are given, and write the data."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument(
        "--date", required=True, help="the day on which they were published or read"
    )
    asked = parser.parse_args()
    data = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    for archive in asked.archives:
        match = ARCHIVE.fullmatch(archive.name)
        if match is None or (name := match[1].replace("-", "_")) not in PROGRAMS:
            parser.error(f"{archive.name} must be of one of {', '.join(PROGRAMS)}")
        program = PROGRAMS[name]
        found = program.read(texts(archive, re.compile(program.files)))
        grouped: dict[str, list[str]] = {}
        for architecture in sorted(found):
            grouped.setdefault(" ".join(sorted(found[architecture])), []).append(architecture)
        data[program.name] = {
            "version": match[2], "date": asked.date, "table": program.table,
            "places": {names: " ".join(owners) for names, owners in sorted(grouped.items())},
        }  # fmt: skip
    text = json.dumps(dict(sorted(data.items())), indent=1, ensure_ascii=False)
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
