"""The programs behind the pictures of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bot.gpt2.questions import MAX_MAP_TOKENS
from bot.programs.source import Source, fill, imports, listed, opening, text, warping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.figures import Sink
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.questions import (
        AblationQuestion,
        AttentionQuestion,
        ComparisonQuestion,
        HeadQuestion,
        InductionQuestion,
        InsightsQuestion,
        LensQuestion,
        NextTokensQuestion,
        SurpriseQuestion,
        TokensQuestion,
    )

_START: Final = """
    $math
    import matplotlib.pyplot as plt
    import torch
    from transformers import $imports

    $opening
"""

_NETWORK: Final = """
    $plain
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = GPT2LMHeadModel.from_pretrained(model, dtype="float32"$eager)
"""

_ATTENTION: Final = (
    _START
    + """    prompt = $prompt
"""
    + _NETWORK
    + """    ids = tokenizer(prompt, return_tensors="pt")["input_ids"][:, -$most:]  # the last $most tokens at most
    with torch.no_grad():
        attentions = network(ids, output_attentions=True).attentions  # of each layer [1, heads, tokens, tokens]
"""
)

_GRID: Final = """
    maps = torch.cat(attentions)$without
    $rescaled
    layers, heads, tokens, _ = maps.shape
    mosaic = maps.transpose(1, 2).reshape(layers * tokens, heads * tokens)
    plt.imshow(mosaic.numpy(), vmin=0, vmax=1)
    plt.xticks([(head + 0.5) * tokens for head in range(heads)], range(1, heads + 1))
    plt.yticks([(layer + 0.5) * tokens for layer in range(layers)], range(1, layers + 1))
    plt.xlabel("head")
    plt.ylabel("layer")
    plt.colorbar(label="attention")
    plt.show()
"""

_HEAD: Final = """
    maps = attentions[$layer][0, $head]$without  # layer $layer_number, head $head_number
    $rescaled
    labels = [repr(tokenizer.decode(token)) for token in ids[0].tolist()]$labels
    plt.figure(figsize=(10, 9), layout="constrained")
    plt.imshow(maps.numpy(), vmin=0, vmax=1)
    plt.xticks(range(len(labels)), labels, rotation=90)
    plt.yticks(range(len(labels)), labels)
    plt.xlabel("attends to")
    plt.ylabel("token")
    plt.colorbar(label="attention")
    plt.show()
"""

_RESCALED: Final = "maps = maps / maps.sum(dim=-1, keepdim=True)  # without the first token, each row sums to 1 again"

_SPLIT: Final = """
    from transformers import $imports

    $opening
    text = $text

    tokenizer = AutoTokenizer.from_pretrained(model)
    for number, token in enumerate(tokenizer(text)["input_ids"]):
        # A token may be a part of a character, which shows as a question mark.
        print(number, token, repr(tokenizer.decode(token)))
"""

_NEXT: Final = (
    _START
    + """    prompt = $prompt
"""
    + _NETWORK
    + """    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    $written
    with torch.no_grad():
        logits = network(ids).logits[:, -1]

    before = logits.softmax(dim=-1)[0].numpy()
    $warped
    best = (-before).argsort(kind="stable")[:$count]
    plt.figure(layout="constrained")
    plt.barh(range(len(best)), before[best], height=-0.4, align="edge", label="before the settings")
    plt.barh(range(len(best)), after[best], height=0.4, align="edge", label="after")
    plt.yticks(range(len(best)), [repr(tokenizer.decode(token)) for token in best])
    plt.gca().invert_yaxis()
    plt.xlabel("probability of the next token")
    plt.legend()
    plt.show()
    print(f"All other tokens: {1 - before[best].sum():.4f} before, {1 - after[best].sum():.4f} after")
"""
)

_SURPRISE: Final = (
    _START
    + """    text = $text
"""
    + _NETWORK
    + """    $ids
    with torch.no_grad():
        logits = network(ids).logits[0]
    bits = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none") / math.log(2)
    $measured

    figure = plt.figure(figsize=(12, 6))
    column = line = 0
    for token, bit in zip(tokens, expected + bits.tolist()):
        shown = repr(tokenizer.decode(token))[1:-1]  # what cannot be seen is written as Python does: \\n
        if column + len(shown) > 90:
            column, line = 0, line - 1
        plt.barh(line, len(shown), left=column, color=plt.cm.Oranges(min(bit / 16, 1) * 0.6), edgecolor="white")
        plt.text(column + len(shown) / 2, line, shown, family="monospace", ha="center", va="center")
        column += len(shown)
    figure.set_figheight(0.3 * (3 - line))
    plt.axis((0, 90, line - 1, 1))
    plt.axis("off")
    plt.show()
    print(f"{bits.mean():.2f} bits per token, perplexity {2 ** bits.mean():.2f}")
"""
)

_ALONE: Final = (
    'ids = tokenizer(text, return_tensors="pt")["input_ids"]',
    "tokens, expected = ids[0].tolist(), [0]  # nothing comes before the first token to expect it from",
)
_GIVEN: Final = (
    'given = tokenizer($given)["input_ids"]\nids = torch.tensor([given + tokenizer(text)["input_ids"]])',
    "bits, tokens, expected = bits[len(given) - 1 :], ids[0, len(given) :].tolist(), []",
)

_LENS: Final = (
    _START
    + """    prompt = $prompt
"""
    + _NETWORK
    + """    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = torch.cat(network(ids, output_hidden_states=True).hidden_states)[:, $positions]
        hidden[:-1] = network.transformer.ln_f(hidden[:-1])  # the last has been through the final norm already
        probabilities, tops = network.lm_head(hidden).softmax(dim=-1).max(dim=-1)  # [layers + 1, tokens]

    plt.figure(figsize=(14, 7))
    plt.imshow(probabilities.numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row in range(len(tops)):
        for column, token in enumerate(tops[row].tolist()):
            settled = (tops[row:, column] == tops[-1, column]).all()  # from here on all layers say the same
            weight = "bold" if settled else "normal"
            ink = "white" if probabilities[row, column] > 0.7 else "black"
            shown = repr(tokenizer.decode(token))
            plt.text(column, row, shown, ha="center", va="center", weight=weight, color=ink)
    plt.xticks(range(tops.shape[1]), [repr(tokenizer.decode(token)) for token in ids[0, $positions].tolist()])
    plt.yticks(range(len(tops)), ["embedding", *range(1, len(tops))])
    plt.ylabel("layer")
    plt.show()
"""
)

_INDUCTION: Final = (
    _START
    + """
    network = GPT2LMHeadModel.from_pretrained(model, dtype="float32"$eager)
    torch.manual_seed($seed)
    once = torch.randperm(network.config.vocab_size)[:$length]  # random tokens, all different
    ids = torch.cat([once, once])[None]
    with torch.no_grad():
        maps = torch.cat(network(ids, output_attentions=True).attentions)  # [layers, heads, tokens, tokens]

    # How much a token of the second half attends to the one after its first occurrence.
    scores = maps.diagonal(1 - $length, -2, -1)[..., 1:].mean(dim=-1)
    layer, head = divmod(scores.argmax().item(), scores.shape[1])
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    left.imshow(scores.numpy(), vmin=0, vmax=1)
    left.set(title="induction score", xlabel="head, from 0", ylabel="layer, from 0")
    right.imshow(maps[layer, head].numpy(), vmin=0, vmax=1)
    right.set(title=f"layer {layer + 1}, head {head + 1}", xlabel="attends to", ylabel="token")
    plt.show()
"""
)

_COMPARE: Final = (
    _START
    + """    prompts = $prompts
"""
    + _NETWORK
    + """    following, maps = [], []
    figure, (bars, lines, mosaic) = plt.subplots(1, 3, figsize=(15, 5))
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = network(ids, output_attentions=True)
        logits = output.logits[0]
        bits = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none") / math.log(2)
        lines.plot(range(1, len(ids[0])), bits.numpy(), marker="o")
        following.append(logits[-1].softmax(dim=-1))
        maps.append(torch.cat(output.attentions))  # [layers, heads, tokens, tokens]
    lines.set_title("surprise in bits")

    probabilities = torch.stack(following).numpy()  # [2, vocabulary]
    best = (-probabilities.max(axis=0)).argsort(kind="stable")[:$count]
    for name, shares, height in zip("AB", probabilities, (-0.4, 0.4)):
        bars.barh(range(len(best)), shares[best], height, align="edge", label=name)
    bars.set_yticks(range(len(best)), [repr(tokenizer.decode(token)) for token in best])
    bars.invert_yaxis()
    bars.legend()
    bars.set_title("next token")

    if maps[0].shape == maps[1].shape:
        layers, heads, tokens, _ = maps[0].shape
        difference = (maps[1] - maps[0]).transpose(1, 2).reshape(layers * tokens, heads * tokens)
        limit = difference.abs().max().item() or 1
        mosaic.imshow(difference.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        mosaic.set_title(f"attention of B - A, ±{limit:.1%}")
    else:
        mosaic.axis("off")
    plt.show()
"""
)

_ABLATION: Final = (
    _START
    + """    prompt = $prompt
    heads = $heads  # layer and head, both from 0
"""
    + _NETWORK
    + """    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    size = network.config.n_embd // network.config.n_head


    def silence(layer, head):
        def zero(module, inputs):  # the outputs of all heads side by side: [1, tokens, heads * size]
            inputs[0][..., head * size : (head + 1) * size] = 0

        network.transformer.h[layer].attn.c_proj.register_forward_pre_hook(zero)


    def read():
        with torch.no_grad():
            logits = network(ids).logits[0]
        bits = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none") / math.log(2)
        return logits[-1].softmax(dim=-1), bits


    whole, whole_bits = read()
    for layer, head in heads:
        silence(layer, head)
    rest, rest_bits = read()

    figure, (bars, lines) = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    probabilities = torch.stack([whole, rest]).numpy()  # [2, vocabulary]
    best = (-probabilities.max(axis=0)).argsort(kind="stable")[:$count]
    for name, shares, bits, height in zip(("with", "without"), probabilities, (whole_bits, rest_bits), (-0.4, 0.4)):
        bars.barh(range(len(best)), shares[best], height, align="edge", label=name)
        lines.plot(range(1, len(ids[0])), bits.numpy(), marker="o", label=f"{name}: {bits.mean():.2f} bits per token")
    bars.set_yticks(range(len(best)), [repr(tokenizer.decode(token)) for token in best])
    bars.invert_yaxis()
    bars.set_title("next token")
    lines.set_xticks(range(len(ids[0])), [repr(tokenizer.decode(token)) for token in ids[0].tolist()], rotation=90)
    lines.set_title("surprise in bits")
    bars.legend()
    lines.legend()
    plt.show()
"""
)

_INSIGHTS: Final = (
    _START
    + """    prompt = $prompt
    $samples
"""
    + _NETWORK
    + """    $encoded
    given = tokenizer(prompt)["input_ids"]
    figure, (lines, matrix) = plt.subplots(1, 2, figsize=(12, 5))
    for sample in samples:
        ids = torch.tensor([given + sample])
        with torch.no_grad():
            logits = network(ids).logits[0, len(given) - 1 : -1]
        bits = torch.nn.functional.cross_entropy(logits, ids[0, len(given) :], reduction="none") / math.log(2)
        lines.plot(bits.numpy(), label=f"{bits.mean():.2f} bits per token")
    lines.set(xlabel="token", ylabel="surprise in bits")
    lines.legend()

    # Of the different tokens that two samples have, the share that both have.
    sets = [set(sample) for sample in samples]
    similarity = [[len(one & other) / max(len(one | other), 1) for other in sets] for one in sets]
    matrix.imshow(similarity, vmin=0, vmax=1)
    matrix.set_title("similarity of the samples")
    plt.show()
"""
)


def attention_grid(question: AttentionQuestion, sink: Sink, model: ModelInfo) -> str:
    """Return a program that draws the attention of all heads."""
    return _attention(_GRID, question.prompt, sink, model)


def attention_head(question: HeadQuestion, sink: Sink, model: ModelInfo) -> str:
    """Return a program that draws the attention of one head."""
    return _attention(
        _HEAD,
        question.prompt,
        sink,
        model,
        layer=question.layer - 1,
        head=question.head - 1,
        layer_number=question.layer,
        head_number=question.head,
        labels=Source("[1:]" if sink == "removed" else ""),
    )


def token_split(question: TokensQuestion, model: ModelInfo) -> str:
    """Return a program that prints the tokens of a text."""
    return fill(_SPLIT, imports=imports(model, "AutoTokenizer"), opening=opening(model), text=question.text)


def next_tokens(question: NextTokensQuestion, model: ModelInfo, written: Sequence[int] = ()) -> str:
    """Return a program that draws next-token probabilities, before and after the sampling settings.

    Args:
        question: The prompt and the settings.
        model: The model.
        written: The ids of the tokens after the prompt.
    """
    warpers, warped = warping(question.params)
    return _program(
        _NEXT,
        model,
        *warpers,
        prompt=question.prompt,
        written=Source(_WRITTEN.format([*written]) if written else ""),
        warped=warped,
        count=question.count,
    )


def surprise(question: SurpriseQuestion, model: ModelInfo) -> str:
    """Return a program that shows a text coloured by the surprise of each token."""
    ids, measured = _GIVEN if question.given else _ALONE
    ids = fill(ids, given=question.given)
    return _program(
        _SURPRISE, model, math=_MATH, text=question.text, ids=Source(ids.strip()), measured=Source(measured)
    )


def lens(question: LensQuestion, model: ModelInfo) -> str:
    """Return a program that draws the logit lens."""
    until = question.until
    positions = f"-{question.last}:" if until is None else f"{max(until - question.last, 0)}:{until}"
    return _program(_LENS, model, prompt=question.prompt, positions=Source(positions))


def induction(question: InductionQuestion, model: ModelInfo) -> str:
    """Return a program that finds induction heads."""
    return fill(
        _INDUCTION,
        math=Source(""),
        imports=imports(model, "GPT2LMHeadModel"),
        opening=opening(model),
        eager=_EAGER,
        seed=question.seed,
        length=question.length,
    )


def compare(question: ComparisonQuestion, model: ModelInfo) -> str:
    """Return a program that compares two prompts."""
    prompts = listed([text(question.first), text(question.second)])
    return _program(_COMPARE, model, math=_MATH, eager=_EAGER, prompts=prompts, count=question.count)


def ablation(question: AblationQuestion, model: ModelInfo) -> str:
    """Return a program that silences some heads."""
    heads = Source([(layer - 1, head - 1) for layer, head in question.heads])
    return _program(_ABLATION, model, math=_MATH, prompt=question.prompt, heads=heads, count=question.count)


def insights(question: InsightsQuestion, model: ModelInfo) -> str:
    """Return a program that measures several continuations of one prompt."""
    samples = [text(each) if isinstance(each, str) else repr(list(each)) for each in question.samples]
    written = any(isinstance(each, str) for each in question.samples)
    encoded = 'samples = [tokenizer(each)["input_ids"] if isinstance(each, str) else each for each in samples]'
    return _program(
        _INSIGHTS,
        model,
        math=_MATH,
        prompt=question.prompt,
        samples=Source(f"samples = {listed(samples)}"),
        encoded=Source(encoded if written else ""),
    )


_WRITTEN: Final = "ids = torch.cat([ids, torch.tensor([{}])], dim=1)  # the tokens that were written after the prompt"
_EAGER: Final = Source(', attn_implementation="eager"')
_MATH: Final = Source("import math\n")
_PLAIN: Final = Source('plt.rcParams["text.parse_math"] = False  # a $ in a token is a dollar sign')


def _attention(template: str, prompt: str, sink: Sink, model: ModelInfo, **values: object) -> str:
    removed = sink == "removed"
    return _program(
        _ATTENTION + template,
        model,
        prompt=prompt,
        eager=_EAGER,
        most=min(MAX_MAP_TOKENS, model.context),
        without=Source("[..., 1:, 1:]" if removed else ""),
        rescaled=Source(_RESCALED if removed else ""),
        **values,
    )


def _program(template: str, model: ModelInfo, *names: str, **values: object) -> str:
    labelled = template is not _INSIGHTS and not template.endswith(_GRID)
    nothing = {"math": Source(""), "eager": Source(""), "plain": _PLAIN if labelled else Source("")}
    names = ("AutoTokenizer", "GPT2LMHeadModel", *names)
    return fill(template, **nothing | {"imports": imports(model, *names), "opening": opening(model)} | values)
