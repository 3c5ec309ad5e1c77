"""Adapters as PEFT writes them, on one small base, and what PEFT computes with them.

usage: python make.py OUT
needs: torch, transformers, peft, safetensors (versions used are in meta.json)

OUT/base holds the base in bf16. Every other folder holds adapter_config.json and adapter_model.safetensors, and
  expected.safetensors    prompt.I.ids i64 [tokens]; prompt.I.logits f32 [tokens, vocab], by the adapted (not merged) model in float64 on the
                          stored weights, rounded once; prompt.I.greedy i64 [24]
  training.safetensors    (of some) ids, labels i64 [2, 24]; grad.NAME f32 of the mean cross entropy of the labels that are not -100 (the logits at t
                          predict the label at t + 1), in float64; losses, grad_norms f64 [1]
"""
import copy, json, os, sys
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB, SEED = 48, 20260
ADAPTERS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]),
    "rslora": dict(r=4, lora_alpha=2, use_rslora=True, target_modules=r".*\.layers\.[01]\.(self_attn\.[qk]_proj|mlp\.(?!down).*_proj)",
                   rank_pattern={"k_proj": 2, r"layers.1.mlp.up_proj": 3}, alpha_pattern={"^model.layers.0.self_attn.q_proj": 5}),
    "dora": dict(r=3, lora_alpha=6, use_dora=True, target_modules="all-linear"),
    "layers": dict(r=2, lora_alpha=3, target_modules=["o_proj", "gate_proj", "lm_head"], layers_to_transform=[1], exclude_modules=["lm_head"]),
    "head": dict(r=2, lora_alpha=3, use_dora=True, target_modules=["lm_head", "k_proj"]),
}


def base():
    conf = LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False,
                       attention_bias=True, bos_token_id=1, eos_token_id=2, rope_parameters={"rope_theta": 10000.0, "rope_type": "default"})
    conf._attn_implementation = "eager"
    model = LlamaForCausalLM(conf)
    g = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(1 + 0.3 * noise if "norm" in name else 0.2 * noise if p.dim() == 1 else noise if "embed" in name else 1.2 * noise / p.shape[-1] ** 0.5)
            p.data = p.data.to(torch.bfloat16)
    return model


@torch.no_grad()
def expect(model):
    out, g = {}, torch.Generator().manual_seed(SEED + 1)
    for i, n in enumerate((5, 33)):
        ids = torch.randint(0, VOCAB, (n,), generator=g)
        out[f"prompt.{i}.ids"] = ids
        out[f"prompt.{i}.logits"] = model(input_ids=ids[None], use_cache=False).logits[0].float().contiguous()
        seq = ids.clone()
        for _ in range(24):
            seq = torch.cat([seq, model(input_ids=seq[None], use_cache=False).logits[0, -1:].argmax(-1)])
        out[f"prompt.{i}.greedy"] = seq[n:].contiguous()
    return out


def training(model):
    g = torch.Generator().manual_seed(SEED + 2)
    ids = torch.randint(0, VOCAB, (2, 24), generator=g)
    labels = ids.clone()
    labels[0, :7] = -100
    logits = model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, VOCAB), labels[:, 1:].reshape(-1), ignore_index=-100)
    loss.backward()
    clean = lambda name: name.replace("base_model.model.", "").replace(".default", "")
    grads = {"grad." + clean(n): p.grad.float().contiguous() for n, p in model.named_parameters() if "lora_" in n}
    norm = torch.nn.utils.get_total_norm([p.grad for n, p in model.named_parameters() if "lora_" in n])
    return {"ids": ids, "labels": labels, "losses": loss.detach().reshape(1), "grad_norms": norm.reshape(1), **grads}


def main(out):
    model = base()
    model.save_pretrained(f"{out}/base")
    for seed, (name, config) in enumerate(ADAPTERS.items()):
        torch.manual_seed(SEED)
        adapted = get_peft_model(copy.deepcopy(model).float(), LoraConfig(task_type="CAUSAL_LM", **config))
        g = torch.Generator().manual_seed(SEED + 10 + seed)
        with torch.no_grad():
            for n, p in adapted.named_parameters():
                if "magnitude" in n:
                    p.mul_(1 + 0.2 * torch.randn(p.shape, generator=g))
                elif "lora_" in n:
                    p.copy_(0.2 * torch.randn(p.shape, generator=g))
        adapted.save_pretrained(f"{out}/{name}")
        # Through the files again: what a loader sees is what is computed.
        again = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(f"{out}/base", attn_implementation="eager", dtype=torch.float32), f"{out}/{name}", is_trainable=True)
        again = again.double()
        save_file(expect(again.eval()), f"{out}/{name}/expected.safetensors")
        if name in ("plain", "rslora", "dora"):
            save_file(training(again.train()), f"{out}/{name}/training.safetensors")
        os.remove(f"{out}/{name}/README.md")
        print(name, len(load_file(f"{out}/{name}/adapter_model.safetensors")))
    json.dump(dict(seed=SEED, torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__), open(f"{out}/meta.json", "w"), indent=1)


main(sys.argv[1])
