"""The program behind the comparison of two models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bot.programs.source import SEED, Source, fill, naming

if TYPE_CHECKING:
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.requests import ContinuationRequest

_PROGRAM: Final = """
    import math

    import matplotlib.pyplot as plt
    import torch
    from transformers import $imports

    $first
    $second
    prompt = $prompt

    figure, rows = plt.subplots(2, 2, figsize=(14, 8), layout="constrained")
    for (bars, line), name in zip(rows, (first, second)):
        $part
        generator = pipeline("text-generation", model=name, dtype="float32", device=$device)
        tokenizer, network = generator.tokenizer, generator.model
        $plain
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = network(ids.to(network.device)).logits[0].cpu()
        bits = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none") / math.log(2)
        following = logits[-1].softmax(dim=-1).numpy()
        best = (-following).argsort(kind="stable")[:6]
        bars.barh(range(len(best)), following[best])
        bars.set_yticks(range(len(best)), [repr(tokenizer.decode(token)) for token in best])
        bars.invert_yaxis()
        bars.set_title(f"next token: {name}")
        line.plot(range(1, len(ids[0])), bits.numpy(), marker="o")
        line.set_title("surprise in bits")

        set_seed($seed)
        samples = generator(
            prompt,
            max_new_tokens=$length,
            num_return_sequences=$samples,
            do_sample=True,
            temperature=$temperature,
            top_k=$top_k,
            top_p=$top_p,
        )
        print(f"===== {name}: {bits.sum():.1f} bits for the prompt =====")
        for number, sample in enumerate(samples, start=1):
            print(f"----- {number} -----")
            print(sample["generated_text"])
    plt.show()
"""

_PLAIN: Final = (
    "own = network.generation_config  # the bot uses no more of a model's own settings than these\n"
    "    network.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)"
)


def model_comparison(request: ContinuationRequest, first: ModelInfo, second: ModelInfo) -> str:
    """Return a program that draws what two models make of a prompt, and prints the samples of both."""
    part = any(model.missing for model in (first, second))
    own = any(model.unused_settings for model in (first, second))
    names = ["pipeline", SEED, *(["GenerationConfig"] if own else [])]
    return fill(
        _PROGRAM,
        imports=Source(", ".join(sorted(names))),
        first=naming(first, "first"),
        second=naming(second, "second"),
        prompt=request.prompt,
        part=Source(f"{SEED}(0)  # a file holds a part of its model: the rest is random" if part else ""),
        plain=Source(_PLAIN if own else ""),
        device=first.device,
        seed=request.seed,
        length=request.params.length,
        samples=request.params.samples,
        temperature=request.params.temperature,
        top_k=request.params.top_k,
        top_p=request.params.top_p,
    )
