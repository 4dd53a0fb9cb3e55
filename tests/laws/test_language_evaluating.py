"""Losses of 200 conversations as transformers + PEFT compute them, and the choices that the Language
Model Evaluation Harness makes.
"""

import json

import numpy as np
import pytest

from lora_np import adapters, language
from tests.language.conftest import byte_level

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("jinja2")

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama with a vocabulary of bytes and words, a chat template, and an adapter of PEFT's."""
    folder = tmp_path_factory.mktemp("model")
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("Ġ", "a"),
        ("a", "n"),
        ("an", "d"),
        ("e", "r"),
    ]
    (folder / "tokenizer.json").write_text(json.dumps(byte_level(merges=merges, special=SPECIAL)))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256 + len(merges) + len(SPECIAL), hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, eos_token_id=256 + len(merges) + 3, initializer_range=0.2,
    )  # fmt: skip
    base = transformers.LlamaForCausalLM(config)
    base.save_pretrained(folder)
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    peft.get_peft_model(base, lora).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def words():
    text = language.read_text("genesis")
    return [line for line in text.replace("\n", " ").split(". ") if 20 < len(line) < 200]


@pytest.mark.peers
def test_losses_of_200_conversations_are_those_of_transformers_and_peft(folder, words):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    adapted = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(folder), folder / "adapter"
    )
    rng = np.random.default_rng(0)
    chats = []
    for i in range(200):
        turns = rng.choice(words, 2 * rng.integers(1, 3))
        roles = ["user", "assistant"] * (len(turns) // 2)
        chat = [{"role": r, "content": str(t)} for r, t in zip(roles, turns, strict=True)]
        chats.append([{"role": "system", "content": str(rng.choice(words))}] * (i % 2) + chat)
    ours = language.load(folder)
    attached = adapters.attach(ours, adapters.load(folder / "adapter"), any_base=True)
    data = [{"messages": chat} for chat in chats]
    result = language.evaluate({"base": ours, "adapted": attached}, data, answers=0)
    expected = []
    for model in (base, adapted):
        expected.append([])
        for chat in chats:
            told = tokenizer.apply_chat_template(
                chat, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
            )
            answer = (
                torch.as_tensor(told["assistant_masks"]).bool().reshape(told["input_ids"].shape)
            )
            labels = torch.where(answer, told["input_ids"], -100)
            with torch.no_grad():
                expected[-1].append(float(model(input_ids=told["input_ids"], labels=labels).loss))
    np.testing.assert_allclose(result.measures["loss"].values, expected, atol=1e-5)
    assert np.median(np.abs(np.subtract(*expected))) > 1e-2  # the adapter changes them


@pytest.mark.foreign
@pytest.mark.filterwarnings("ignore")  # what a harness and its libraries say is theirs
def test_the_choices_of_100_questions_are_those_of_the_harness(folder, words, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM

    rng = np.random.default_rng(1)
    data = []
    for _ in range(100):
        choices = [
            " ".join(str(rng.choice(words)).split()[: rng.integers(1, 12)])
            for _ in range(rng.integers(2, 6))
        ]
        choices = list(dict.fromkeys(choices))
        data.append(
            {
                "question": str(rng.choice(words)),
                "choices": choices,
                "answer": int(rng.integers(len(choices))),
            }
        )
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, data)))
    task = {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
    }
    model = HFLM(pretrained=str(folder), device="cpu", batch_size=1, dtype="float32")
    theirs = lm_eval.simple_evaluate(
        model=model, tasks=[task], log_samples=True, bootstrap_iters=0, cache_requests=False
    )
    samples = sorted(theirs["samples"]["questions"], key=lambda sample: sample["doc_id"])
    result = language.evaluate({"base": language.load(folder)}, language.read_data(path))
    for name in ("acc", "acc_norm"):
        expected = [sample[name] for sample in samples]
        assert result.measures[name].values.tolist() == [expected]
        assert result.measures[name].means[0] == pytest.approx(
            theirs["results"]["questions"][f"{name},none"]
        )
