"""Convert adapters between the file formats of programs, and any tuner's to a LoRA."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from lora_np.adapters import formats
from lora_np.adapters.adapter import (
    FILES,
    Adapter,
    AdapterModule,
    Format,
    Source,
    TunedUpdate,
    check_init,
    in_memory,
)
from lora_np.adapters.base_weights import Reader, on_base, relative_to_base
from lora_np.adapters.layouts import laid_out
from lora_np.adapters.peft_format import only_lora, targeting
from lora_np.adapters.scaling import made_portable
from lora_np.adapters.spectra import Grams, Spectrum, back, finite, put_aside, root_of
from lora_np.adapters.values import check_finite
from lora_np.checks import Array, StrPath, choice, number, refuse
from lora_np.files import FileError
from lora_np.linalg import truncated_svd
from lora_np.lora import TUNERS, selecting, tuner_of
from lora_np.models import Base, Dialects, OpenModel, flat, open_base, peft

Target = Literal["peft", "portable", "vllm", "gguf", "mlx", "kohya", "lora"]
# True: the target needs a module for each expert. None: it accepts either separate modules or one
# parameter for all experts. Targets not listed need the single parameter.
_APART = {"vllm": True, "portable": None}


class ConvertedModule(NamedTuple):
    """A converted module, with its rank and scale in both files.

    Parameters
    ----------
    name : str
        The path of the module.
    rank_before : int or None
        The rank in the old file; None if the module was not a LoRA.
    scale_before : float or None
        The factor on B A in the old file.
    rank : int
        The rank in the new file.
    scale : float
        The factor on B A in the new file.
    """

    name: str
    rank_before: int | None
    scale_before: float | None
    rank: int
    scale: float


def convert(
    adapter: Source,
    out: StrPath,
    *,
    to: Target,
    base: Base | None = None,
    tolerance: float | None = None,
    grams: Grams | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> formats.Written[ConvertedModule]:
    """Convert an adapter to the format of a program; raise an error if anything would be lost.

    Parameters
    ----------
    adapter : path or Adapter
        An adapter in any format that `load` reads.
    out : path
        The directory to make, or, for llama.cpp and kohya, the file.
    to : {"peft", "portable", "vllm", "gguf", "mlx", "kohya", "lora"}
        The format to write:

        - "peft": a directory for PEFT;
        - "portable": the same with every scale folded into B, one rank and no patterns, which all
          programs that read PEFT's directories interpret identically;
        - "vllm": the portable form with experts as vLLM and SGLang store them: one by one, if the
          base's checkpoint does;
        - "gguf": a file for llama.cpp;
        - "mlx": a directory for mlx-lm;
        - "kohya": a file as kohya's sd-scripts writes it, for programs that generate images;
        - "lora": a LoRA with the same updates as the adapter of another tuner of PEFT.
    base : path or mapping, optional
        The base model, or its config, on which names or the order of rows may depend: to and from
        GGUF, for experts in mlx-lm and vLLM, and from kohya. Separate updates of q, k and v are
        joined if the base fuses these projections, and split if it does not. By default, the base
        that the adapter names is used if it is on this disk, but nothing is joined or split.
    tolerance : float, optional
        For "lora": see `to_lora`.
    grams : mapping of str to array_like of shape (k, k), optional
        For "lora": see `to_lora`.
    dtype : {"float32", "float16", "bfloat16"}, optional
        Round the parameters to this dtype. By default they are not rounded, but where a scale other
        than a power of two is folded into 16 bits, B becomes float32.
    force : bool
        Whether to replace an existing adapter at ``out``, but never ``adapter`` itself.

    Returns
    -------
    Written
        The rank and scale of each module in both files.

    Raises
    ------
    FileError
        If the adapter is damaged, contains something that the format cannot express, or needs a
        base.
    TypeError
        If an option has the wrong type.
    ValueError
        If an option is out of range, or the target exists.

    See Also
    --------
    check : Predict how programs will run an adapter as it is.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> module = lnp.adapters.AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=8.0,
    ...     rslora=True)
    >>> raw = {"peft_type": "LORA", "target_modules": ["q"], "use_rslora": True}
    >>> adapter = Adapter({"q": module}, raw=raw)
    >>> round(convert(adapter, folder / "mlx", to="mlx").rows[0].scale, 6)
    5.656854
    >>> bool(np.allclose(lnp.adapters.load(folder / "mlx").delta("q"), module.delta()))
    True
    """
    choice("to", to, get_args(Target))
    if to != "lora" and (tolerance, grams) != (None, None):
        refuse(f"tolerance and grams (--data) are only for to='lora', got to={to!r}")
    if tolerance is not None:
        number("tolerance", tolerance, maximum=1, open_maximum=True)
    given = None if base is None else open_base(base)
    before = formats.load(adapter, base=given)
    own = formats.base_of(before, given)
    check_finite(before)
    before, notes = _on_base(before, to, given or (own if to == "vllm" else None))
    if to not in ("peft", "lora") and not (to == "kohya" and before.pipeline):
        before = to_lora(before, base=own) if before.init else only_lora(before)
        before = formats.without_copies(before, own)
    plain = to in ("portable", "vllm")
    form: Format = "peft" if plain or to == "lora" else to  # type: ignore[assignment]
    if to == "lora":
        form = FILES.get(Path(out).suffix, "peft")
    with formats.new_adapter(out, force=force, inputs=[before], to=form) as (stage, aside):
        wanted = before
        if to == "lora":
            weights = given if given and given.on_disk else own
            wanted = to_lora(before, base=weights, tolerance=tolerance, grams=grams, aside=aside)
        elif plain:
            wanted = made_portable(before)
            if given is not None:
                spec = given.spec.per_expert() if to == "vllm" else given.spec
                names = _shortest(wanted, [module.name for module in spec.modules])
                wanted = replace(wanted, raw={**wanted.raw, "target_modules": names})
        named = own if form in ("gguf", "mlx") and own and own.config else None
        after, remarks = formats.write(
            wanted, stage, to=form, base=given or named, dtype=dtype, portable=plain
        )
        notes += remarks
        notes += [] if formats.has_effect(wanted) else [formats.NOTHING]
        after = formats.rebased(after, given) if given else after
    records = _compared(before, after)
    headings = ("module", "rank before", "scale before", "rank", "scale")
    return formats.Written(f"{adapter} for {to}", tuple(records), tuple(notes), headings, Path(out))


def _on_base(before: Adapter, to: Target, base: OpenModel | None) -> tuple[Adapter, list[str]]:
    """Split or fuse the adapter's modules as the target's base has them; also return notes."""
    if to == "lora" or before.pipeline:
        return before, []
    if base is None:
        experts = [name for name, module in before.items() if module.parameter]
        if to == "vllm" and experts:
            raise FileError(
                f"{before}: vLLM's names for {experts[0]!r} depend on the base: pass --base MODEL"
            )
        return before, []
    after, moved = laid_out(before, base, apart=_APART.get(to, False))
    note = f"{len(before)} modules of the adapter became {len(after)} of {base.spec.name}"
    return after, [note] if moved else []


def _compared(before: Adapter, after: Adapter) -> Iterator[ConvertedModule]:
    """Yield the old and new rank and scale of each module that the converted adapter has."""
    for name, old in before.items():
        mlx = Dialects({}).names_in("mlx", name)[0]
        if new := after.get(name) or after.get(flat(name)) or after.get(mlx):
            rank, scale = (None, None) if old.tuned else (old.rank, old.scale)
            yield ConvertedModule(name, rank, scale, new.rank, new.scale)


def _shortest(adapter: Adapter, known: Sequence[str]) -> list[str] | str:
    """Return ``target_modules``: last names if they match no other module, otherwise full paths.

    If the paths select other modules too, return a regular expression.
    """
    wanted = {name for name, module in adapter.items() if not module.parameter}
    ends = {name.rpartition(".")[2] for name in wanted}
    # also check containers, such as model.layers.0, because PEFT matches their paths as well
    paths = {path for name in known for path in accumulate(name.split("."), "{}.{}".format)}
    for names in (wanted,) if any(map(str.isdecimal, ends)) else (ends, wanted):
        endings = tuple(f".{name}" for name in names)
        if {path for path in paths if f".{path}".endswith(endings)} == wanted:
            return sorted(names)
    return "|".join(map(re.escape, sorted(wanted)))


def to_lora(
    adapter: Source,
    *,
    base: StrPath | OpenModel | None = None,
    tolerance: float | None = None,
    grams: Grams | None = None,
    any_base: bool = False,
    aside: Path | None = None,
) -> Adapter:
    """Turn an adapter of any tuner into a LoRA for the same base.

    The LoRA is exact if the update has factors in closed form with fewer parameters than the update
    itself (see `lora_np.lora.TUNERS`). For PiSSA and OLoRA it is also exact, at twice the rank.
    Otherwise each module gets the smallest rank with an error within ``tolerance``.

    Parameters
    ----------
    adapter : path or Adapter
        An adapter of any tuner in `lora_np.lora.TUNERS`.
    base : path, optional
        The base model, which some tuners need.
    tolerance : float, optional
        The largest relative error of a module's update, in the Frobenius norm, if it is not exact.
    grams : mapping of str to array_like of shape (k, k), optional
        ``X.T @ X`` of the inputs X of each module. The error is then the error of the outputs
        ``dW x``.
    any_base : bool
        Whether to continue if the adapter is for another kind of base.
    aside : path, optional
        A directory for the factors of finished modules; by default they stay in memory.

    Returns
    -------
    Adapter
        A LoRA, in float32 or better, or for PiSSA and OLoRA in the dtypes of their file. A plain
        LoRA is returned unchanged; conversion from another tuner leaves out modules whose update is
        zero.

    Raises
    ------
    FileError
        If the adapter is damaged or not finite, needs a base or does not fit it, or is not exact as
        a LoRA and no ``tolerance`` is given.
    ValueError
        If ``tolerance`` is out of range.

    See Also
    --------
    resize : Reduce the rank of a LoRA.

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936; with
    inputs, A. J. Izenman, "Reduced-rank regression for the multivariate linear model", 1975.

    Examples
    --------
    >>> import json, tempfile, numpy as np
    >>> from lora_np.hub import safetensors
    >>> folder = Path(tempfile.mkdtemp())
    >>> config = {"peft_type": "LOHA", "r": 1, "alpha": 1, "target_modules": ["q"]}
    >>> _ = (folder / "adapter_config.json").write_text(json.dumps(config))
    >>> parts = {"w1_a": (4, 1), "w1_b": (1, 5), "w2_a": (4, 1), "w2_b": (1, 5)}
    >>> tensors = {f"base_model.model.q.hada_{name}": np.ones(shape) for name,
    ...     shape in parts.items()}
    >>> safetensors.save(tensors, folder / "adapter_model.safetensors")
    >>> to_lora(folder)["q"].rank, float(to_lora(folder).delta("q")[0, 0])
    (1, 1.0)
    """
    if tolerance is not None:
        tolerance = number("tolerance", tolerance, maximum=1, open_maximum=True)
    loaded = formats.load(adapter)
    loaded = loaded if tuner_of(loaded.raw) else only_lora(loaded)
    known = on_base(loaded, base, any_base=any_base)
    before = known.adapter
    check_init(before, with_base=base is not None)
    modules: dict[str, AdapterModule] = {}
    if init := before.init:
        modules = {
            name: relative_to_base(before[name], known.weights[name](), init) for name in before
        }
        raw = {**before.raw, "init_lora_weights": True}
        return replace(before, modules=modules, raw=targeting(raw, modules))
    if not (tuner_of(before.raw) or before.has_magnitudes):
        return before
    for i, (name, module) in enumerate(before.items()):
        place = f"{adapter}: {name!r}"
        if not module.tuned and "magnitude" not in module.parts:
            modules[name] = module  # a plain LoRA needs no conversion
            continue
        if not module.tuned and "bias" in module.parts:
            raise FileError(f"{place} is a DoRA with a bias of B, which cannot be converted")
        update = module.tuned or _dora(name, module, known.weights.get(name))
        B, A = finite(place, _factors, place, update, tolerance, grams)
        stored = {
            part: put_aside(x, aside / f"{i}.{part}", x.dtype.name) if aside else in_memory(x)
            for part, x in (("B", B), ("A", A))
        }
        alpha = float(len(A))
        modules[name] = replace(module, parts=stored, alpha=alpha, rslora=False, tuned=None)
    modules = {name: module for name, module in modules.items() if module.rank}  # drop zero updates
    if not modules:
        raise FileError(f"{adapter}: every module is zero, so there is nothing to keep")
    full = {**before.full, **{name: in_memory(read()[0]) for name, read in known.biases.items()}}
    kept = (*peft.FRESH, "trainable_token_indices")
    raw = {key: before.raw.get(key) for key in kept} | selecting(before.raw)
    if known.biases:
        raw["bias"] = "lora_only"
    return Adapter(modules, full, targeting(raw, modules), rows=before.rows)


def _dora(name: str, module: AdapterModule, weight: Reader | None) -> TunedUpdate:
    """Return a DoRA as a `TunedUpdate`, since its update depends on the base weight."""
    tensors = {"A": "A", "B": "B", "magnitude_vector": "magnitude"}
    parts = {tensor: module.parts[part] for tensor, part in tensors.items()}
    settings = {"lora_alpha": module.scale * module.rank}
    return TunedUpdate(name, TUNERS["LORA use_dora"], settings, parts, module.shape, weight)


def _factors(
    place: str, update: TunedUpdate, tolerance: float | None, grams: Grams | None
) -> tuple[Array, Array]:
    """Compute B and A of an update: exactly if that saves parameters, else within ``tolerance``."""
    if update.exact and update.directions * sum(update.shape) < prod(update.shape):
        return update.factors()
    if tolerance is None:
        raise FileError(
            f"{place}: {update.tuner.name} has no exact LoRA with fewer parameters than its update;"
            " pass a relative error, tolerance= (--tolerance)"
        )
    dW = update.delta()
    root = root_of(update.name, grams, dW.shape[1])
    U, s, Vh = truncated_svd(dW if root is None else dW @ root.T, rank=min(dW.shape))
    rank = Spectrum.of(s, 1.0).needed(1 - tolerance**2)
    return U[:, :rank] * s[:rank], (Vh if root is None else back(U.T @ dW, s))[:rank]
