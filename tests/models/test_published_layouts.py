"""Presets have the layout of the published weights: the same logits as Hugging Face's implementations."""

from __future__ import annotations

import pytest
import torch
import yaml
from conftest import ROOT
from torch import Tensor

from arlm.core import Spec
from arlm.models.transformer import TransformerLanguageModel

transformers = pytest.importorskip("transformers", reason="needs the transformers package")


def preset(name: str) -> dict:
    return yaml.safe_load((ROOT / "configs" / "model" / f"{name}.yaml").read_text())["init_args"]


def on_meta(spec: Spec, arguments: dict) -> int:
    """Parameters, without their memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in TransformerLanguageModel(spec, **arguments).parameters())


def test_sizes_are_the_published_ones() -> None:
    assert on_meta(Spec(50257, (1024,)), preset("gpt2")) == 124_439_808
    assert on_meta(Spec(32000, (2048,)), preset("llama")) == 6_738_415_616


def from_gpt2(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """GPT-2's weights under our names; theirs are transposed."""
    ours = {"embed.weight": theirs["wte.weight"], "head.weight": theirs["wte.weight"]}
    ours["position_vectors"] = theirs["wpe.weight"]
    pairs = {
        "attention_norm": "ln_1",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.hidden": "mlp.c_fc",
        "mlp.out": "mlp.c_proj",
    }
    for i in range(depth):
        for our_name, name in pairs.items():
            for part in ("weight", "bias"):
                value = theirs[f"h.{i}.{name}.{part}"]
                turned = value.T if part == "weight" and "norm" not in our_name else value
                ours[f"blocks.{i}.{our_name}.{part}"] = turned
    return ours | {f"last_norm.{part}": theirs[f"ln_f.{part}"] for part in ("weight", "bias")}


def test_gpt2_weight_for_weight() -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_positions=12, n_embd=16, n_layer=3, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    small = preset("gpt2") | {"width": 16, "depth": 3, "heads": 4, "start_token": 7}
    net = TransformerLanguageModel(Spec(50, (12,)), **small).double().eval()
    weights = from_gpt2(theirs.transformer.state_dict(), 3)
    net.load_state_dict(weights)  # strict: every name on both sides, every shape
    tokens = torch.randint(50, (2, 12))
    shifted = torch.cat([torch.full((2, 1), 7), tokens[:, :-1]], dim=1)
    with torch.no_grad():
        assert (net(tokens) - theirs(shifted).logits).abs().max() < 1e-10


def from_llama(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Llama's weights under our names; queries, keys and values are one matrix here."""
    ours = {
        "embed.weight": theirs["model.embed_tokens.weight"],
        "head.weight": theirs["lm_head.weight"],
        "last_norm.weight": theirs["model.norm.weight"],
    }
    for i in range(depth):
        layer, block = f"model.layers.{i}", f"blocks.{i}"
        joined = {
            "attention.qkv": [f"self_attn.{part}_proj" for part in "qkv"],
            "attention.out": ["self_attn.o_proj"],
            "attention_norm": ["input_layernorm"],
            "mlp_norm": ["post_attention_layernorm"],
            "mlp.hidden": ["mlp.gate_proj", "mlp.up_proj"],
            "mlp.out": ["mlp.down_proj"],
        }
        for our_name, names in joined.items():
            for part in ("weight", "bias"):
                keys = [f"{layer}.{name}.{part}" for name in names]
                if keys[0] in theirs:
                    ours[f"{block}.{our_name}.{part}"] = torch.cat([theirs[key] for key in keys])
    return ours


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_llama_weight_for_weight(kv_heads: int) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=12,
        rms_norm_eps=1e-5,
    )
    theirs = transformers.LlamaForCausalLM(config).double().eval()
    small = {"width": 16, "depth": 3, "heads": 4, "kv_heads": kv_heads, "mlp_width": 24}
    net = TransformerLanguageModel(Spec(50, (12,)), **(preset("llama") | small)).double().eval()
    net.load_state_dict(from_llama(theirs.state_dict(), 3))
    tokens = torch.randint(50, (2, 12))
    shifted = torch.cat([torch.full((2, 1), 1), tokens[:, :-1]], dim=1)
    with torch.no_grad():
        assert (net(tokens) - theirs(shifted).logits).abs().max() < 1e-5  # its norm is float32


SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 12,
    "rms_norm_eps": 1e-5,
    "attn_implementation": "eager",
}


@pytest.mark.parametrize(
    ("name", "theirs_only", "ours_only"),
    [
        ("Mistral", {"sliding_window": 4}, {"sliding_window": 4}),
        ("Qwen2", {}, {"qkv_bias": True}),
    ],
)
def test_mistral_and_qwen_weight_for_weight(name: str, theirs_only: dict, ours_only: dict) -> None:
    """A window in every block, and a bias of queries, keys and values alone."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **theirs_only)
    theirs = getattr(transformers, f"{name}ForCausalLM")(config).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    small = {"width": 16, "depth": 3, "heads": 4, "kv_heads": 2, "mlp_width": 24}
    given = preset("llama") | small | ours_only
    net = TransformerLanguageModel(Spec(50, (12,)), **given).double().eval()
    net.load_state_dict(from_llama(theirs.state_dict(), 3))
    tokens = torch.randint(50, (2, 12))
    shifted = torch.cat([torch.full((2, 1), 1), tokens[:, :-1]], dim=1)
    with torch.no_grad():
        assert (net(tokens) - theirs(shifted).logits).abs().max() < 1e-4  # its norm is float32
        _, state = net.start(2, 12)
        stepped, _ = net.advance(tokens[:, :-1], state)
        assert (stepped - net(tokens)[:, 1:]).abs().max() < 1e-10
