"""Files that no program wrote, by a word for what is wrong with them: each is refused in one line,
or opened as it is.
"""

import json
import struct

import numpy as np

PREFIX = "base_model.model."
WEIGHTS, CONFIG, MLX, GGUF = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "adapters.safetensors",
    "adapter.gguf",
)
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
HTML = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
CODES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
Q = f"{PREFIX}layers.0.q"


def header(entries, content=b"", *, length=None):
    """A safetensors file with this header, as text or as what becomes of it, and these bytes."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def factors(
    name="layers.0.q",
    *,
    r=2,
    d=4,
    k=3,
    dtype="F32",
    A=None,
    B=None,
    ends=("lora_A.weight", "lora_B.weight"),
):
    """The tensors of a module, by key: dtype and numbers."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(r, k)) if A is None else np.asarray(A)
    B = rng.normal(size=(d, r)) if B is None else np.asarray(B)
    return {f"{PREFIX}{name}.{ends[0]}": (dtype, A), f"{PREFIX}{name}.{ends[1]}": (dtype, B)}


def tensors(arrays, **changes):
    """A safetensors file of arrays; ``changes`` are made to the entry of the first tensor."""
    entries, content = {}, b""
    for key, (dtype, array) in arrays.items():
        raw = array.astype(CODES[dtype]).tobytes()
        place = [len(content), len(content) + len(raw)]
        entries[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": place}
        content += raw
    entries[next(iter(entries))] |= changes
    return header(entries, content)


def adapter(weights=None, config=None, **settings):
    config = json.dumps(SETTINGS | settings).encode() if config is None else config
    return {WEIGHTS: tensors(factors()) if weights is None else weights, CONFIG: config}


def with_text(change):
    """The header of an ordinary file as text, changed."""
    whole = tensors(factors())
    length = struct.unpack("<Q", whole[:8])[0]
    return header(change(whole[8 : 8 + length]), whole[8 + length :])


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


STRING, UINT, FLOAT, BOOL, ARRAY = 8, 4, 6, 7, 9
SAID = {
    "general.type": (STRING, text("adapter")),
    "adapter.type": (STRING, text("lora")),
    "general.architecture": (STRING, text("llama")),
    "adapter.lora.alpha": (FLOAT, struct.pack("<f", 4)),
}
V = "blk.0.attn_v.weight"
# names, sizes from the fastest on, kinds
PAIR = ((f"{V}.lora_a", (3, 2), 0), (f"{V}.lora_b", (2, 4), 0))
SIZES = {0: 4, 1: 2, 30: 2, 8: 34 / 32, 2: 18 / 32}


def gguf(
    said=(),
    infos=PAIR,
    *,
    metadata=None,
    counts=None,
    version=3,
    cut=0,
    offsets=None,
    magic=b"GGUF",
    alignment=32,
):
    """A GGUF file: what it says of itself, its tensors, and where it lies."""
    said = SAID | dict(said) if metadata is None else metadata
    entries = list(said.items()) if isinstance(said, dict) else list(said)
    many, few = counts or (len(infos), len(entries))
    found = magic + struct.pack("<IQQ", version, many, few)
    for key, (kind, raw) in entries:
        found += text(key) + struct.pack("<I", kind) + raw
    place, places = 0, []
    for i, (name, sizes, kind) in enumerate(infos):
        offset = place if offsets is None else offsets[i]
        found += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)
        size = int(np.prod([min(n, 64) for n in sizes]) * SIZES.get(kind, 4))
        places.append((place, size))
        place += -(-size // alignment) * alignment
    found += b"\0" * (-len(found) % alignment)
    rng = np.random.default_rng(0)
    content = bytearray(rng.normal(size=-(-place // 4)).astype("<f4").tobytes())
    return {GGUF: (found + bytes(content))[: -cut or None]}


def mlx(weights=None, config=None, **changes):
    said = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 20.0}, **changes}
    rng = np.random.default_rng(0)
    pair = {
        "layers.0.q.lora_a": ("F32", rng.normal(size=(3, 2))),
        "layers.0.q.lora_b": ("F32", rng.normal(size=(2, 4))),
    }
    config = json.dumps(said).encode() if config is None else config
    return {MLX: tensors(pair) if weights is None else weights, CONFIG: config}


def one(dtype="F32", **changes):
    return adapter(tensors(factors(dtype=dtype), **changes))


DEEP = b"[" * 5_000 + b"]" * 5_000
ENTRY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
WHOLE = tensors(factors())
EVIL = "(a|a|aa)+" * 12 + "$"


def kohya(
    arrays=(), *, module="lora_unet_down_blocks_0_attn_q", name="style.safetensors", **changes
):
    """One file for image models: a pair of factors, and other tensors of the module by ending."""
    found = {
        f"{module}.lora_down.weight": ("F32", np.ones((2, 3))),
        f"{module}.lora_up.weight": ("F32", np.ones((4, 2))),
        f"{module}.alpha": ("F32", np.array(2.0)),
    }
    for ending, array in dict(arrays).items():
        found.pop(f"{module}.{ending}", None)
        if array is not None:
            found[f"{module}.{ending}"] = ("F32", np.asarray(array))
    return {name: tensors(found, **changes)}


def tuner(kind, settings):
    return json.dumps({"peft_type": kind, "target_modules": ["q"], **settings}).encode()


DOWN, UP = "lora_down.weight", "lora_up.weight"
EXPERTS = f"{PREFIX}layers.0.experts"
FURTHER = {
    # one file for image models
    "kohya": kohya(),
    "kohya, alpha NaN": kohya({"alpha": np.nan}),
    "kohya, alpha infinite": kohya({"alpha": np.inf}),
    "kohya, alpha negative": kohya({"alpha": -4.0}),
    "kohya, alpha zero": kohya({"alpha": 0.0}),
    "kohya, two alphas": kohya({"alpha": [1.0, 2.0]}),
    "kohya, alpha alone": kohya({DOWN: None, UP: None}),
    "kohya, no up": kohya({UP: None}),
    "kohya, no down": kohya({DOWN: None}),
    "kohya, factors that do not fit": kohya({UP: np.ones((4, 3))}),
    "kohya, rank zero": kohya({DOWN: np.ones((0, 3)), UP: np.ones((4, 0))}),
    "kohya, three axes": kohya({DOWN: np.ones((2, 3, 1))}),
    "kohya, a convolution": kohya({DOWN: np.ones((2, 3, 3, 3)), UP: np.ones((4, 2, 1, 1))}),
    "kohya, half a convolution": kohya({DOWN: np.ones((2, 3, 3, 3))}),
    "kohya, a kernel in up": kohya({DOWN: np.ones((2, 3, 1, 1)), UP: np.ones((4, 2, 3, 3))}),
    "kohya, a middle that does not fit": kohya({"lora_mid.weight": np.ones((5, 5, 3, 3))}),
    "kohya, lengths of another size": kohya({"dora_scale": np.ones((7, 1))}),
    "kohya, lengths of NaN": kohya({"dora_scale": np.full((4, 1), np.nan)}),
    "kohya, an ending that is unknown": kohya({"lora_left.weight": np.ones((2, 3))}),
    "kohya, a name of html": kohya(module=f"lora_unet_{HTML}"),
    "kohya, a name __proto__": kohya(module="lora_unet___proto__"),
    "kohya, a name with a line break": kohya(module="lora_unet_a\nRefused: b"),
    "kohya, a name that reads backwards": kohya(module="lora_unet_\u202eq"),
    "kohya, an empty tensor": kohya({DOWN: np.ones(0)}),
    "kohya, cut short": {"style.safetensors": kohya()["style.safetensors"][:-3]},
    "kohya, half of a Hadamard product": kohya(
        {DOWN: None, UP: None, "hada_w1_a": np.ones((4, 2)), "hada_w1_b": np.ones((2, 3))}
    ),
    "kohya, half of a Kronecker product": kohya({DOWN: None, UP: None, "lokr_w1": np.ones((2, 2))}),
    "diffusers, tensors of PEFT": kohya(
        module="unet.down.0.q", name="pytorch_lora_weights.safetensors"
    ),
    "PEFT's tensors alone": {"my.safetensors": WHOLE},
    "a picture alone": {"picture.png": b"\x89PNG\r\n\x1a\n" + bytes(100)},
    "a readme alone": {"README.md": b"# An adapter"},
    # PEFT's experts, other tuners, and large ranks
    "rank 600": adapter(tensors(factors(r=600, d=2, k=2)), r=600),
    "experts of no number that is known": adapter(
        tensors(
            {
                f"{EXPERTS}.lora_A.weight": ("F32", np.ones((2, 3))),
                f"{EXPERTS}.lora_B.weight": ("F32", np.ones((4, 2))),
            }
        ),
        target_parameters=["experts.gate_up_proj"],
        target_modules=[],
    ),
    "target_parameters that are text": adapter(target_parameters="experts"),
    "LoHa without half of its tensors": adapter(
        tensors({f"{Q}.hada_w1_a": ("F32", np.ones((4, 2)))}),
        config=tuner("LOHA", {"r": 2, "alpha": 4}),
    ),
    "LoKr of numbers that do not fit": adapter(
        tensors({f"{Q}.lokr_w1": ("F32", np.ones((2, 2))), f"{Q}.lokr_w2": ("F32", np.ones(3))}),
        config=tuner("LOKR", {"r": 2, "alpha": 4}),
    ),
    "IA3 of two axes": adapter(
        tensors({f"{Q}.ia3_l": ("F32", np.ones((2, 2)))}),
        config=tuner("IA3", {"feedforward_modules": []}),
    ),
    "VeRA without its projections": adapter(
        tensors({f"{Q}.vera_lambda_b": ("F32", np.ones(4))}), config=tuner("VERA", {"r": 2})
    ),
}

CASES = {
    # safetensors
    "empty weights": adapter(b""),
    "four bytes": adapter(WHOLE[:4]),
    "a length and nothing else": adapter(WHOLE[:8]),
    "a header cut short": adapter(WHOLE[:60]),
    "a byte too few": adapter(WHOLE[:-1]),
    "a byte too many": adapter(WHOLE + b"\0"),
    "only 255": adapter(b"\xff" * len(WHOLE)),
    "only zeros": adapter(bytes(len(WHOLE))),
    "a header of 2^63 bytes": adapter(header({}, length=2**63)),
    "a header of 2^53 bytes": adapter(header({}, length=2**53)),
    "a header that is not UTF-8": adapter(header(b'{"\xff\xfe": 1}')),
    "a header of null": adapter(header(b"null")),
    "a header that is a list": adapter(header(b"[]")),
    "a header without tensors": adapter(header({})),
    "a deep header": adapter(header(b'{"a":' + DEEP + b"}")),
    "a header with a BOM": adapter(with_text(lambda t: b"\xef\xbb\xbf" + t)),
    "a header with a comma too many": adapter(with_text(lambda t: t[:-1] + b",}")),
    "more after the header": adapter(with_text(lambda t: t + b"{}")),
    "an entry of null": adapter(header({f"{Q}.lora_A.weight": None})),
    "an entry of 7": adapter(header({f"{Q}.lora_A.weight": 7})),
    "an entry that is a list": adapter(header({f"{Q}.lora_A.weight": []})),
    "dtype I32": one(dtype="F32") | {WEIGHTS: tensors(factors(), dtype="I32")},
    "dtype constructor": adapter(tensors(factors(), dtype="constructor")),
    "dtype __proto__": adapter(tensors(factors(), dtype="__proto__")),
    "dtype null": adapter(tensors(factors(), dtype=None)),
    "dtype a list": adapter(tensors(factors(), dtype=["F32"])),
    "a negative shape": adapter(tensors(factors(), shape=[-2, -3])),
    "a shape of 2^53": adapter(tensors(factors(), shape=[2**53, 3])),
    "a shape of 2^64": adapter(tensors(factors(), shape=[2**64, 3])),
    "a shape and offsets of 2^53": adapter(
        tensors(factors(), shape=[2**51, 1], data_offsets=[0, 2**53])
    ),
    "a shape of fractions": adapter(tensors(factors(), shape=[2.0, 3.0])),
    "a shape of 1e400": adapter(with_text(lambda t: t.replace(b"[2, 3]", b"[1e400, 3]"))),
    "a shape of text": adapter(tensors(factors(), shape=["2", "3"])),
    "a shape that is text": adapter(tensors(factors(), shape="23")),
    "no shape": adapter(tensors(factors(), shape=None)),
    "a shape of 65 axes": adapter(tensors(factors(), shape=[1] * 64 + [6])),
    "an empty shape": adapter(tensors(factors(), shape=[])),
    "no offsets": adapter(tensors(factors(), data_offsets=None)),
    "three offsets": adapter(tensors(factors(), data_offsets=[0, 24, 56])),
    "a negative offset": adapter(tensors(factors(), data_offsets=[-24, 0])),
    "offsets that overlap": adapter(with_text(lambda t: t.replace(b"[24, 56]", b"[20, 52]"))),
    "offsets with a gap": adapter(with_text(lambda t: t.replace(b"[24, 56]", b"[28, 60]"))),
    "offsets with a gap, and room": adapter(
        with_text(lambda t: t.replace(b"[24, 56]", b"[28, 60]"))[:-4] + bytes(8)
    ),
    "offsets that go back": adapter(tensors(factors(), data_offsets=[24, 0])),
    "offsets beyond the file": adapter(tensors(factors(), data_offsets=[4096, 4120])),
    "a tensor twice": adapter(with_text(lambda t: t.replace(b"lora_B", b"lora_A"))),
    "a field twice": adapter(
        with_text(lambda t: t.replace(b'"dtype"', b'"shape": [1], "dtype"', 1))
    ),
    "a tensor __proto__": adapter(header({"__proto__": json.loads(ENTRY)})),
    "a tensor constructor": adapter(header({"constructor": json.loads(ENTRY)})),
    "a key without the prefix": adapter(with_text(lambda t: t.replace(b"base_model.model.", b""))),
    "a key of html": adapter(header({HTML: json.loads(ENTRY)})),
    "a key of 100,000 characters": adapter(header({"a" * 100_000: json.loads(ENTRY)})),
    "metadata that are a list": adapter(
        with_text(lambda t: t.replace(b"{", b'{"__metadata__": [1], ', 1))
    ),
    "metadata of numbers": adapter(
        with_text(lambda t: t.replace(b"{", b'{"__metadata__": {"a": 1}, ', 1))
    ),
    "20,001 tensors": adapter(
        header(b"{" + b",".join(b'"%d":%s' % (i, ENTRY) for i in range(20_001)) + b"}")
    ),
    "BF16 with a byte too few": adapter(tensors(factors(dtype="BF16"))[:-1]),
    "F16 of an odd size": one("F16", data_offsets=[0, 11]),
    # modules
    "a module of html": adapter(tensors(factors(f"{HTML}.q"))),
    "a module __proto__": adapter(tensors(factors("__proto__.q"))),
    "a module constructor": adapter(
        tensors(factors("constructor")), target_modules=["constructor"]
    ),
    "a module toString": adapter(
        tensors(factors("toString") | factors("hasOwnProperty")), target_modules="all-linear"
    ),
    "a module without a name": adapter(tensors(factors(""))),
    "NaN": adapter(tensors(factors(A=[[np.nan, 1, 1], [1, 1, 1]]))),
    "infinity": adapter(tensors(factors(B=np.full((4, 2), np.inf)))),
    "NaN in F16": adapter(tensors(factors(A=[[np.nan, 1, 1], [1, 1, 1]], dtype="F16"))),
    "zeros": adapter(tensors(factors(B=np.zeros((4, 2))))),
    "A of zeros": adapter(tensors(factors(A=np.zeros((2, 3))))),
    "a product that overflows": adapter(
        tensors(factors(A=np.full((2, 3), 1e30), B=np.full((4, 2), 1e30)))
    ),
    "squares that overflow": adapter(tensors(factors(A=np.full((2, 3), 1e25)))),
    "a product in F64 that overflows": adapter(
        tensors(factors(A=np.full((2, 3), 1e200), B=np.full((4, 2), 1e200), dtype="F64"))
    ),
    "squares that vanish": adapter(tensors(factors(A=np.full((2, 3), 1e-200), dtype="F64"))),
    "the smallest numbers": adapter(tensors(factors(A=np.full((2, 3), 1e-45)))),
    "A and B that do not fit": adapter(tensors(factors(B=np.ones((4, 3))))),
    "no B": adapter(tensors(dict(list(factors().items())[:1]))),
    "no A": adapter(tensors(dict(list(factors().items())[1:]))),
    "A of three axes": adapter(tensors(factors(A=np.ones((2, 3, 1))))),
    "A of one axis": adapter(tensors(factors(A=np.ones(6)))),
    "rank zero": adapter(tensors(factors(r=0)), r=1),
    "no inputs": adapter(tensors(factors(k=0))),
    "rank 513": adapter(tensors(factors(r=513, d=1, k=1)), r=513),
    "factors of two kinds": adapter(
        tensors(factors() | factors(ends=("lora_embedding_A", "lora_embedding_B")))
    ),
    "a magnitude without DoRA": adapter(
        tensors(factors() | {f"{Q}.lora_magnitude_vector": ("F32", np.ones(4))})
    ),
    "a magnitude of another size": adapter(
        tensors(factors() | {f"{Q}.lora_magnitude_vector": ("F32", np.ones(5))}), use_dora=True
    ),
    "DoRA without magnitudes": adapter(use_dora=True),
    "a tensor of no module": adapter(
        tensors(factors() | {f"{PREFIX}stray.weight": ("F32", np.ones(3))})
    ),
    "a part of LoRA that is unknown": adapter(
        tensors(factors() | {f"{Q}.lora_C.weight": ("F32", np.ones(3))})
    ),
    "a parameter by its name": adapter(tensors(factors("layers.0.q.base_layer"))),
    "rows of no token": adapter(
        tensors(
            factors()
            | {f"{PREFIX}e.token_adapter.trainable_tokens_delta": ("F32", np.ones((2, 3)))}
        )
    ),
    # configs
    "an empty config": adapter(config=b""),
    "half a config": adapter(config=b"{"),
    "a config of null": adapter(config=b"null"),
    "a config that is a list": adapter(config=b"[]"),
    "a config that is text": adapter(config=b'"LORA"'),
    "a config of a list of deep lists": adapter(
        config=b'{"peft_type": "LORA", "a": ' + DEEP + b"}"
    ),
    "a config in UTF-16": adapter(config=json.dumps(SETTINGS).encode("utf-16")),
    "a config with a BOM": adapter(config=b"\xef\xbb\xbf" + json.dumps(SETTINGS).encode()),
    "a config that is not UTF-8": adapter(config=b'{"peft_type": "\xff"}'),
    "half a character": adapter(config=b'{"peft_type": "LORA", "a\\ud800": 1}'),
    "NaN in a config": adapter(config=b'{"peft_type": "LORA", "lora_alpha": NaN}'),
    "minus zero": adapter(config=b'{"peft_type": "LORA", "r": 2, "lora_alpha": -0}'),
    "a setting twice": adapter(config=b'{"peft_type": "LORA", "r": 99, "r": 2}'),
    "no type": adapter(config=b'{"r": 2}'),
    "another tuner": adapter(peft_type="IA3"),
    "a type that is a list": adapter(peft_type=["LORA"]),
    **{f"r = {r!r}": adapter(r=r) for r in (0, -1, 2.0, "2", None, True, 99, 2**53, [2])},
    "r = 1e400": adapter(config=b'{"peft_type": "LORA", "r": 1e400}'),
    **{
        f"lora_alpha = {a!r}": adapter(lora_alpha=a)
        for a in ("4", None, True, 2**63, -(2**63), 0, -4, 1e-320, {})
    },
    "lora_alpha = 1e400": adapter(config=b'{"peft_type": "LORA", "r": 2, "lora_alpha": 1e400}'),
    **{
        f"rank_pattern {i}": adapter(rank_pattern=p)
        for i, p in enumerate([[2], {"q": -1}, {"q": "2"}, {"q": 3}, {"(": 2}, {"__proto__": 2}])
    },
    "an evil pattern": adapter(tensors(factors("a" * 200 + ".q")), rank_pattern={EVIL: 3}),
    "an evil target": adapter(tensors(factors("a" * 200)), target_modules=EVIL),
    "a pattern of 5,000 characters": adapter(rank_pattern={"a" * 5_000: 3}),
    "a pattern of 200 parentheses": adapter(rank_pattern={"(" * 200 + ")" * 200: 3}),
    "a repeat of 99,999": adapter(target_modules="(((a{0,99999}){0,99999}){0,99999})?.*q"),
    **{
        f"target_modules {i}": adapter(target_modules=t)
        for i, t in enumerate(
            [5, [], [5], ["other"], "(", "[z-a]", "", {"q": 1}, ["__proto__"], "*q"]
        )
    },
    "a module that is excluded": adapter(exclude_modules=["q"]),
    "another layer": adapter(layers_to_transform=[1]),
    "layers in words": adapter(layers_to_transform="first"),
    "modules_to_save of numbers": adapter(modules_to_save=[1]),
    "modules_to_save that is no expression": adapter(modules_to_save=["((("]),
    "tokens twice": adapter(trainable_token_indices=[1, 1]),
    "tokens without rows": adapter(trainable_token_indices=[1, 2]),
    "use_dora = yes": adapter(use_dora="yes"),
    "a setting that is not known": adapter(surprise=1),
    "a setting __proto__": adapter(config=json.dumps(SETTINGS | {"__proto__": {"r": 99}}).encode()),
    "aLoRA": adapter(alora_invocation_tokens=[1, 2]),
    "blocks": adapter(use_bdlora={"nblocks": 2}),
    "a base of html": adapter(base_model_name_or_path=HTML),
    "a base that is a number": adapter(base_model_name_or_path=7),
    "9 MB of config": adapter(config=b'{"peft_type": "LORA", "a": "' + b"a" * 9 * 2**20 + b'"}'),
    # mlx-lm
    "mlx without a scale": mlx(lora_parameters={"rank": 2}),
    "mlx without parameters": mlx(lora_parameters=None),
    **{
        f"mlx, scale = {s!r}": mlx(lora_parameters={"scale": s})
        for s in ("20", True, None, [1], 1e308, 0, -1)
    },
    "mlx, scale = 1e400": mlx(config=b'{"lora_parameters": {"scale": 1e400}}'),
    "mlx, all weights": mlx(fine_tune_type="full"),
    "mlx, a type that is a list": mlx(fine_tune_type=["lora"]),
    "mlx, another key": mlx(tensors({"layers.0.q.weight": ("F32", np.ones((2, 3)))})),
    "mlx, only A": mlx(tensors({"layers.0.q.lora_a": ("F32", np.ones((3, 2)))})),
    "mlx, factors that do not fit": mlx(
        tensors({"q.lora_a": ("F32", np.ones((3, 2))), "q.lora_b": ("F32", np.ones((3, 4)))})
    ),
    "mlx, rank zero": mlx(
        tensors({"q.lora_a": ("F32", np.ones((3, 0))), "q.lora_b": ("F32", np.ones((0, 4)))})
    ),
    "mlx, a vector": mlx(
        tensors({"q.lora_a": ("F32", np.ones(3)), "q.lora_b": ("F32", np.ones((1, 4)))})
    ),
    "mlx, a module __proto__": mlx(
        tensors(
            {
                "__proto__.lora_a": ("F32", np.ones((3, 2))),
                "__proto__.lora_b": ("F32", np.ones((2, 4))),
            }
        )
    ),
    "mlx, DoRA without m": mlx(fine_tune_type="dora"),
    "mlx, m without DoRA": mlx(
        tensors(
            {
                "q.lora_a": ("F32", np.ones((3, 2))),
                "q.lora_b": ("F32", np.ones((2, 4))),
                "q.m": ("F32", np.ones(4)),
            }
        )
    ),
    "mlx, a router": mlx(
        tensors(
            {
                "a.mlp.gate.lora_a": ("F32", np.ones((3, 2))),
                "a.mlp.gate.lora_b": ("F32", np.ones((2, 4))),
            }
        )
    ),
    "mlx, cut short": mlx(mlx()[MLX][:-3]),
    "mlx, empty": mlx(b""),
    # GGUF
    "GGUF, empty": {GGUF: b""},
    "GGUF, two bytes": {GGUF: b"GG"},
    "GGUF, the magic number": {GGUF: b"GGUF"},
    "GGUF, no magic number": gguf(magic=b"GGML"),
    **{f"GGUF, version {v}": gguf(version=v) for v in (0, 1, 4, 0x03000000)},
    **{
        f"GGUF, {n} tensors": gguf(counts=(n, 4)) for n in (0, 1, 3, 2**32, 2**53, 2**63, 2**64 - 1)
    },
    **{f"GGUF, {n} metadata": gguf(counts=(2, n)) for n in (0, 3, 5, 2**32, 2**53, 2**64 - 1)},
    **{f"GGUF, {cut} bytes too few": gguf(cut=cut) for cut in (1, 40, 80, 120, 200, 260)},
    "GGUF, a text of 2^63 bytes": gguf({"x": (STRING, struct.pack("<Q", 2**63))}),
    "GGUF, a key of 2^64 - 1 bytes": {
        GGUF: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**64 - 1) + bytes(64)
    },
    "GGUF, a list of 2^62": gguf({"x": (ARRAY, struct.pack("<IQ", UINT, 2**62))}),
    "GGUF, a list of 2^60 texts": gguf({"x": (ARRAY, struct.pack("<IQ", STRING, 2**60))}),
    "GGUF, a list of lists": gguf({"x": (ARRAY, struct.pack("<IQ", ARRAY, 1))}),
    "GGUF, a list of type 99": gguf({"x": (ARRAY, struct.pack("<IQ", 99, 1))}),
    "GGUF, a type 99": gguf({"x": (99, b"")}),
    "GGUF, a boolean of 2": gguf({"x": (BOOL, b"\2")}),
    "GGUF, booleans of 2": gguf({"x": (ARRAY, struct.pack("<IQ", BOOL, 2) + b"\1\2")}),
    "GGUF, text that is not UTF-8": gguf({"x": (STRING, text(b"\xff"))}),
    "GGUF, a key that is not UTF-8": gguf(metadata=[*SAID.items(), (b"\xff", (UINT, bytes(4)))]),
    "GGUF, a key twice": gguf(metadata=[*SAID.items(), *list(SAID.items())[:1]]),
    "GGUF, a key __proto__": gguf({"__proto__": (STRING, text("x"))}),
    **{
        f"GGUF, alignment {a}": gguf({"general.alignment": (UINT, struct.pack("<I", a))})
        for a in (0, 3, 33, 2**31)
    },
    "GGUF, alignment of text": gguf({"general.alignment": (STRING, text("32"))}),
    "GGUF, alignment as a fraction": gguf({"general.alignment": (FLOAT, struct.pack("<f", 32))}),
    "GGUF, alignment 8": gguf({"general.alignment": (UINT, struct.pack("<I", 8))}, alignment=8),
    "GGUF, no axes": gguf(infos=((f"{V}.lora_a", (), 0), PAIR[1])),
    "GGUF, five axes": gguf(infos=((f"{V}.lora_a", (1, 1, 1, 1, 1), 0), PAIR[1])),
    "GGUF, three axes": gguf(infos=((f"{V}.lora_a", (3, 2, 1), 0), PAIR[1])),
    "GGUF, one axis": gguf(infos=((f"{V}.lora_a", (6,), 0), PAIR[1])),
    "GGUF, a size of zero": gguf(infos=((f"{V}.lora_a", (3, 0), 0), PAIR[1])),
    "GGUF, sizes of 2^53": gguf(infos=((f"{V}.lora_a", (2**53, 2), 0), PAIR[1])),
    "GGUF, sizes of 2^40 squared": gguf(infos=((f"{V}.lora_a", (2**40, 2**40), 0), PAIR[1])),
    "GGUF, sizes of 2^64 - 1": gguf(infos=((f"{V}.lora_a", (2**64 - 1, 1), 0), PAIR[1])),
    "GGUF, kind 999": gguf(infos=((f"{V}.lora_a", (3, 2), 999), PAIR[1])),
    "GGUF, kind 4, which was taken away": gguf(infos=((f"{V}.lora_a", (3, 2), 4), PAIR[1])),
    "GGUF, whole numbers": gguf(infos=((f"{V}.lora_a", (3, 2), 26), PAIR[1])),
    "GGUF, half a block": gguf(infos=((f"{V}.lora_a", (48, 2), 8), PAIR[1])),
    "GGUF, Q8_0": gguf(infos=((f"{V}.lora_a", (64, 2), 8), PAIR[1])),
    "GGUF, Q8_0 cut short": gguf(infos=(PAIR[1], (f"{V}.lora_a", (64, 2), 8)), cut=30),
    "GGUF, Q4_0": gguf(infos=((f"{V}.lora_a", (64, 2), 2), PAIR[1])),
    "GGUF, F16 cut short": gguf(
        infos=((f"{V}.lora_a", (64, 2), 1), (f"{V}.lora_b", (2, 64), 1)), cut=20
    ),
    "GGUF, BF16 cut short": gguf(
        infos=((f"{V}.lora_a", (64, 2), 30), (f"{V}.lora_b", (2, 64), 30)), cut=20
    ),
    "GGUF, offsets that overlap": gguf(offsets=(0, 0)),
    "GGUF, offsets with a gap": gguf(offsets=(0, 64)),
    "GGUF, offsets with a gap, and room": {GGUF: gguf(offsets=(0, 64))[GGUF] + bytes(64)},
    "GGUF, an offset of -32": gguf(offsets=(0, 2**64 - 32)),
    "GGUF, an offset of 2^53": gguf(offsets=(0, 2**53)),
    "GGUF, a tensor twice": gguf(infos=(*PAIR, PAIR[0])),
    "GGUF, only A": gguf(infos=PAIR[:1]),
    "GGUF, factors that do not fit": gguf(infos=(PAIR[0], (f"{V}.lora_b", (3, 4), 0))),
    "GGUF, another tensor": gguf(infos=(*PAIR, ("blk.0.attn_v.weight", (3, 4), 0))),
    "GGUF, a name that is not known": gguf(
        infos=tuple((name.replace("attn_v", "__proto__"), *rest) for name, *rest in PAIR)
    ),
    "GGUF, a name of html": gguf(
        infos=tuple((name.replace("attn_v", HTML), *rest) for name, *rest in PAIR)
    ),
    "GGUF, a name that is not UTF-8": gguf(infos=((b"\xff.lora_a", (3, 2), 0), PAIR[1])),
    "GGUF, experts": gguf(
        infos=tuple(
            (name.replace("attn_v", "ffn_gate_exps"), (*sizes, 2), kind)
            for name, sizes, kind in PAIR
        )
    ),
    "GGUF, a model": gguf({"general.type": (STRING, text("model"))}),
    "GGUF, no type": gguf(metadata={"general.architecture": SAID["general.architecture"]}),
    "GGUF, a control vector": gguf({"adapter.type": (STRING, text("cvector"))}),
    "GGUF, aLoRA": gguf(
        {"adapter.alora.invocation_tokens": (ARRAY, struct.pack("<IQI", UINT, 1, 5))}
    ),
    **{
        f"GGUF, architecture {a}": gguf({"general.architecture": (STRING, text(a))})
        for a in ("__proto__", "constructor", "bert", "")
    },
    "GGUF, architecture 5": gguf({"general.architecture": (UINT, struct.pack("<I", 5))}),
    **{
        f"GGUF, alpha {a}": gguf({"adapter.lora.alpha": (FLOAT, struct.pack("<f", a))})
        for a in (float("nan"), float("inf"), -8, 0, 1e30)
    },
    "GGUF, alpha of text": gguf({"adapter.lora.alpha": (STRING, text("16"))}),
    "GGUF, alpha true": gguf({"adapter.lora.alpha": (BOOL, b"\1")}),
    "GGUF, alpha a list": gguf({"adapter.lora.alpha": (ARRAY, struct.pack("<IQI", UINT, 1, 5))}),
    **{
        f"GGUF, {n} heads": gguf(
            {"llama.attention.head_count": (UINT, struct.pack("<I", n))},
            tuple((name.replace("attn_v", "attn_q"), *rest) for name, *rest in PAIR),
        )
        for n in (0, 1, 2, 3, 2**31)
    },
    "GGUF, more after the tensors": {GGUF: gguf()[GGUF] + b"more"},
    # which files
    "no files": {},
    "only weights": {WEIGHTS: WHOLE},
    "only a config": {CONFIG: adapter()[CONFIG]},
    "two configs": adapter() | {"config.json": adapter()[CONFIG]},
    "two files of weights": adapter() | {"other.safetensors": WHOLE},
    "GGUF and weights": adapter() | gguf(),
    "two of GGUF": gguf() | {"other.gguf": gguf()[GGUF]},
    "30 files": {f"{i}.json": b"{}" for i in range(30)},
    "a pickle": {"adapter_model.bin": b"PK\3\4" + bytes(100), CONFIG: adapter()[CONFIG]},
    "a picture": {
        "adapter_model.safetensors": b"\x89PNG\r\n\x1a\n" + bytes(100),
        CONFIG: adapter()[CONFIG],
    },
    "a config of mlx with weights of PEFT": {WEIGHTS: WHOLE, CONFIG: mlx()[CONFIG]},
    "a config of PEFT with weights of mlx": {MLX: mlx()[MLX], CONFIG: adapter()[CONFIG]},
    "a file of kohya": {
        "style.safetensors": tensors(
            {
                "lora_unet_q.lora_down.weight": ("F32", np.ones((2, 3))),
                "lora_unet_q.lora_up.weight": ("F32", np.ones((4, 2))),
            }
        ),
        CONFIG: adapter()[CONFIG],
    },
    **FURTHER,
}
