"""From one program's adapter to another's, the same updates throughout."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from lora_np.adapters.adapter import Adapter
from lora_np.adapters.as_lora import to_lora
from lora_np.adapters.formats import (
    Base,
    Format,
    base_folder,
    load,
    names_of,
    new_adapter,
    without_copies,
    write,
)  # fmt: skip
from lora_np.adapters.kohya_format import flat
from lora_np.adapters.mapped import MappedModule
from lora_np.adapters.peft_format import only_lora
from lora_np.adapters.resizing import Grams
from lora_np.adapters.results import Written
from lora_np.adapters.scaling import made_portable
from lora_np.checks import choice
from lora_np.hub import float_dtype

Target = Literal["peft", "portable", "gguf", "mlx", "kohya", "lora"]


class ConvertedModule(NamedTuple):
    """A module, and how the two files say its strength.

    Parameters
    ----------
    name : str
        Its path.
    rank_before : int or None
        In the old file; None if it was no LoRA.
    scale_before : float or None
        What multiplied B A.
    rank : int
        In the new file.
    scale : float
        What multiplies B A.
    """

    name: str
    rank_before: int | None
    scale_before: float | None
    rank: int
    scale: float


def convert(
    adapter: Adapter | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: Target,
    base: Base | None = None,
    error: float | None = None,
    grams: Grams | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> Written[ConvertedModule]:
    """Write the same adapter for another program; what its format cannot say is refused, never dropped.

    Parameters
    ----------
    adapter : path or Adapter
        In any format that `load` reads.
    out : path
        The directory to make, or, for llama.cpp and kohya, the file.
    to : {"peft", "portable", "gguf", "mlx", "kohya", "lora"}
        A directory for PEFT; the same with every scale folded into B, one rank and no patterns, which all
        programs that read PEFT's directories read alike; a GGUF file for llama.cpp; a folder for mlx-lm; a
        file of kohya's sd-scripts, for programs that make images; a LoRA of what another tuner of PEFT wrote.
    base : path or mapping, optional
        The base model, or its config, where names or the order of rows depend on it: to and from GGUF, for
        experts in mlx-lm, and from kohya. By default the one that the adapter names, if it is on this disk.
    error : float, optional
        For "lora": see `to_lora`.
    grams : mapping of str to array_like of shape (k, k), optional
        For "lora": see `to_lora`.
    dtype : {"float32", "float16", "bfloat16"}, optional
        Round the numbers to this. By default they are kept as they are, but where a scale other than a power
        of two is folded into 16 bits, B becomes float32.
    force : bool
        Whether to replace an existing adapter at ``out``, though not ``adapter`` itself.

    Returns
    -------
    Written
        For each module its rank and scale in the two files.

    Raises
    ------
    HubError
        If the adapter is damaged, has what the format cannot say, or needs a base.
    TypeError
        If an option is of another kind.
    ValueError
        If an option is out of range, or the target exists.

    See Also
    --------
    check : What programs make of an adapter as it is.

    Examples
    --------
    >>> import tempfile, lora_np as lnp, numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> module = lnp.adapters.AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=8.0, rslora=True)
    >>> raw = {"peft_type": "LORA", "target_modules": ["q"], "use_rslora": True}
    >>> adapter = Adapter({"q": module}, raw=raw)
    >>> round(convert(adapter, folder / "mlx", to="mlx").rows[0].scale, 6)
    5.656854
    >>> bool(np.allclose(lnp.adapters.load(folder / "mlx").delta("q"), module.delta()))
    True
    """
    choice("to", to, get_args(Target))
    if dtype is not None:
        float_dtype(dtype)
    before = load(adapter, base=base)
    folder = base_folder(before, base)
    if to not in ("peft", "lora"):
        before = to_lora(before, base=folder) if before.start is not None else only_lora(before)
        before = without_copies(before, base)
    form: Format = "peft" if to in ("portable", "lora") else to  # type: ignore[assignment]
    with new_adapter(out, force=force, inputs=[before], to=form) as (stage, aside):
        wanted = before
        if to == "lora":
            weights = folder if base is None or isinstance(base, Mapping) else base
            wanted = to_lora(before, base=weights, error=error, grams=grams, aside=aside)
        elif to == "portable":
            wanted = made_portable(before)
            if base is not None:
                names = _shortest(wanted, names_of(base))
                wanted = replace(wanted, raw={**wanted.raw, "target_modules": names})
        write(wanted, stage, to=form, base=base, dtype=dtype)
        after = load(stage, base=base, ordered=False)
    rows = []
    for name, old in before.items():
        if new := after.get(name) or after.get(flat(name)):  # what does nothing is no LoRA
            rank, scale = (None, None) if isinstance(old, MappedModule) else (old.rank, old.scale)
            rows.append(ConvertedModule(name, rank, scale, new.rank, new.scale))
    headings = ("module", "rank before", "scale before", "rank", "scale")
    return Written(f"{adapter} for {to}", tuple(rows), (), headings, Path(out))


def _shortest(adapter: Adapter, known: Sequence[str]) -> list[str]:
    """The last names of the adapted modules if the base has no others of these names, else whole paths."""
    wanted = {name for name, module in adapter.items() if not module.parameter}
    ends = {name.rpartition(".")[2] for name in wanted}
    return sorted(ends if {name for name in known if name.rpartition(".")[2] in ends} == wanted else wanted)
