"""The program behind the samples of /continue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bot.programs.source import SEED, Source, fill, imports, opening

if TYPE_CHECKING:
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.requests import ContinuationRequest

_SAMPLED: Final = """
    from transformers import $imports

    $opening
    prompt = $prompt

    $precision
    generator = pipeline("text-generation", model=model, dtype=$dtype, device=$device)
    $plain
    set_seed($seed)
    samples = generator(
        prompt,
        max_new_tokens=$length,
        num_return_sequences=$samples,
        do_sample=True,
        temperature=$temperature,
        top_k=$top_k,
        top_p=$top_p,
        $prefix
    )
    for number, sample in enumerate(samples, start=1):
        print(f"----- {number} -----")
        print(sample["generated_text"])
"""

_GREEDY: Final = """
    from transformers import $imports

    $opening
    prompt = $prompt

    $precision
    generator = pipeline("text-generation", model=model, dtype=$dtype, device=$device)
    $plain
    samples = generator(prompt, max_new_tokens=$length, do_sample=False$without_prefix)
    print("----- 1 -----")
    print(samples[0]["generated_text"])
"""

_PLAIN: Final = """
# The bot leaves out the model's own settings: $names.
own = generator.model.generation_config
generator.model.generation_config = GenerationConfig(
    eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
)
"""

_HALF: Final = "# The bot computes in $precision, so after a while its words differ from these."


def continuation(request: ContinuationRequest, model: ModelInfo) -> str:
    """Return a program that prints the bot's samples, each with its number and the prompt.

    It states every setting, because the defaults of Transformers differ: since version 5 its pipeline samples at
    temperature 0.7 and loads float16 files as they are. Where the model has settings that the bot does not use, the
    program resets them.

    In half precision the words are not the bot's. On a GPU the program computes in that precision, too, as far as
    Transformers does; on the CPU float32 is nearest, because the bot rounds only the weights there.
    """
    exact = model.precision == "float32"
    names = ["pipeline"] if request.params.greedy else ["pipeline", SEED]
    plain = ""
    if model.unused_settings:
        names.append("GenerationConfig")
        plain = fill(_PLAIN, names=Source(", ".join(model.unused_settings))).strip()
    has_prefix = "prefix" in model.unused_settings
    return fill(
        _GREEDY if request.params.greedy else _SAMPLED,
        imports=imports(model, *names),
        opening=opening(model),
        prompt=request.prompt,
        plain=Source(plain),
        prefix=Source('prefix="",' if has_prefix else ""),
        without_prefix=Source(', prefix=""' if has_prefix else ""),
        precision=Source("" if exact else fill(_HALF, precision=Source(model.precision)).strip()),
        dtype="float32" if exact or model.device == "cpu" else model.precision,
        device=model.device,
        seed=request.seed,
        samples=request.params.samples,
        length=request.params.length,
        temperature=float(request.params.temperature),
        top_k=request.params.top_k,
        top_p=float(request.params.top_p),
    )
