"""The program behind the animation of a sample being written."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from bot.programs.source import Source, fill, imports, opening, warping

if TYPE_CHECKING:
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.writing import WritingQuestion

_WRITING: Final = """
    import torch
    from transformers import $imports

    $opening
    prompt = $prompt

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = GPT2LMHeadModel.from_pretrained(model, dtype="float32")
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    ends = network.generation_config.eos_token_id
    $seeded
    for number in range(1, $most + 1):
        with torch.no_grad():
            logits = network(ids).logits[:, -1]
        before = logits.softmax(dim=-1)[0].numpy()
        $warped
        $draws
        chosen = draws.argmax().item()
        print(f"{number}. {tokenizer.decode(chosen)!r}, from:")
        for token in (-before).argsort(kind="stable")[:$count].tolist():
            draw = draws[token] / draws.max()
            print(f"    {before[token]:7.2%} -> {after[token]:7.2%}   draw {draw:.3f}   {tokenizer.decode(token)!r}")
        ids = torch.cat([ids, torch.tensor([[chosen]])], dim=1)
        if chosen in (ends if isinstance(ends, list) else [ends]):
            break
"""

_DRAWS: Final = """
    random = torch.empty($samples, logits.shape[1]).exponential_(1)  # of all samples, as torch.multinomial has them
    draws = after / random[$sample].numpy()  # the largest quotient wins
"""


def writing(question: WritingQuestion, model: ModelInfo) -> str:
    """Return a program that prints for each token of a sample its candidates and its draw."""
    params = question.request.params
    warpers, warped = warping(params)
    draws = fill(_DRAWS, samples=params.samples, sample=question.sample - 1)
    return fill(
        _WRITING,
        imports=imports(model, "AutoTokenizer", "GPT2LMHeadModel", *warpers),
        opening=opening(model),
        prompt=question.request.prompt,
        seeded=Source("" if params.greedy else f"torch.manual_seed({question.request.seed})"),
        most=min(question.most, params.length),
        count=question.count,
        warped=_indented(warped),
        draws=_indented("draws = after" if params.greedy else draws.rstrip()),
    )


def _indented(lines: str) -> Source:
    """Indent all lines but the first, which stands where the template has it."""
    return Source(textwrap.indent(lines, "    ").lstrip())
