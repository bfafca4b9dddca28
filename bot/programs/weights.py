"""The programs behind the pictures of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bot.programs.source import Source, fill, imports, opening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.figures import Style
    from bot.gpt2.model_info import ModelInfo, ParameterSlice

_CLIP_FROM: Final = 1000  # values; fewer are not clipped, as in `bot.figures`
_SQUARE_CELLS_UP_TO: Final = 4  # the ratio of sides beyond which square cells would make a thin strip

_VALUES: Final = """
    import matplotlib.pyplot as plt
    $numpy
    $norm
    from transformers import $imports

    $opening

    network = GPT2LMHeadModel.from_pretrained(model, dtype="float32")
    values = network.state_dict()[$name]$slice.numpy()
"""

_HEATMAP: Final = """
    $limits
    plt.imshow(values, $look)
    $borders
    plt.title($title)
    plt.xlabel($x)
    plt.ylabel($y)
    plt.colorbar()
    plt.show()
"""

_LINES: Final = """
    for dimension in $dims:
        plt.plot(range($positions), values[:, dimension], label=f"dimension {dimension}")
    plt.title($title)
    plt.xlabel("position")
    plt.ylabel("value")
    plt.legend()
    plt.show()
"""

_SIMILARITY: Final = """
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    plt.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1$extent)
    plt.title("Cosine similarity of the positional embeddings")
    plt.xlabel("position")
    plt.ylabel("position")
    plt.colorbar()
    plt.show()
"""

_HELIX: Final = """
    # The directions in which the positions differ most are eigenvectors of their covariance, the last ones.
    variances, directions = np.linalg.eigh(np.cov(values.T, bias=True))
    points = (values - values.mean(axis=0)) @ directions[:, [-1, -2, -3]]
    points *= np.sign(points[abs(points).argmax(axis=0), [0, 1, 2]])  # the largest of each is positive
    print("shares of the variance:", variances[[-1, -2, -3]] / (variances.sum() or 1))
    figure = plt.figure(figsize=(12, 5))
    figure.add_subplot(1, 2, 1).scatter(points[:, 0], points[:, 1], c=range($positions))
    figure.add_subplot(1, 2, 2, projection="3d").scatter(*points.T, c=range($positions))
    figure.suptitle("Positional embeddings in their principal components, dark is early")
    plt.show()
"""

_HEADS: Final = """
    size = network.config.n_embd // network.config.n_head  # columns of a head
    rms = np.sqrt((values**2).reshape(len(values), -1, size).mean(axis=(0, 2)))  # of each head in Q, K and V
    limit = np.percentile(abs(values), 99)
    figure, (matrix, bars) = plt.subplots(2, 1, figsize=(12, 8), height_ratios=[3, 1])
    matrix.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for border in range(size, values.shape[1], size):
        matrix.axvline(border - 0.5, color="black", linewidth=0.5 if border % len(values) else 2)
    matrix.set(title=$title, xlabel="column (output): Q, K, V", ylabel="row (input)")
    bars.bar(range(len(rms)), rms)
    bars.set(xlabel="heads of Q, of K, of V", ylabel="root mean square")
    plt.show()
"""

_VECTOR: Final = """
    figure, (points, counts) = plt.subplots(1, 2, sharey=True, width_ratios=[4, 1])
    points.plot(range($positions), values, ".")
    points.axhline(values.mean(), linestyle="--")
    points.set(title=$title, xlabel="index", ylabel="value")
    counts.hist(values, bins=40, orientation="horizontal", log=True)
    counts.set_xlabel("how many")
    plt.show()
"""

_PLOT: Final = """
    plt.plot(range($positions), values)
    plt.title($title)
    plt.xlabel("Index")
    plt.ylabel("Value")
    plt.show()
"""

_LIST: Final = """
    from transformers import $imports

    $opening

    network = GPT2LMHeadModel.from_pretrained(model, dtype="float32")
    for name, values in network.state_dict().items():
        print(name, values.shape)
"""

_FILTERED: Final = """
    from transformers import $imports

    $opening

    network = GPT2LMHeadModel.from_pretrained(model, dtype="float32")
    for name, values in network.state_dict().items():
        if $part in name:
            print(name, values.shape)
"""

_NUMPY: Final = Source("import numpy as np")


def positional_heatmap(part: ParameterSlice, style: Style, model: ModelInfo) -> str:
    """Return a program that draws the positional embeddings as a heatmap."""
    if style == "article":
        return _gray(part, model, "Positional Embedding Matrix", "Embedding Dimension", "Position")
    return _program(
        _HEATMAP,
        part,
        model,
        numpy=_NUMPY,
        norm=Source("from matplotlib.colors import AsinhNorm, Normalize"),
        limits=Source(
            "# If a few dimensions are much larger than the rest: linear for nine tenths of all, compressed beyond.\n"
            f"linear, limit = np.percentile(abs(values), [90, {99 if part.size >= _CLIP_FROM else 100}])\n"
            "norm = Normalize(-limit, limit) if linear >= limit / 3 else AsinhNorm("
            "max(linear, limit / 20), -limit, limit)"
        ),
        look=Source(f'cmap="RdBu_r", norm=norm, aspect="auto"{_extent(part)}'),
        title="Positional embeddings",
        x="embedding dimension",
        y="position",
    )


def positional_lines(part: ParameterSlice, dims: Sequence[int], model: ModelInfo) -> str:
    """Return a program that draws dimensions of the positional embeddings as lines over the positions."""
    return _program(
        _LINES, part, model, dims=tuple(dims), positions=_arguments(part.rows), title="Positional embeddings"
    )


def positional_similarity(part: ParameterSlice, model: ModelInfo) -> str:
    """Return a program that draws the cosine similarity of each pair of positions."""
    start, stop = part.rows.start - 0.5, part.rows.stop - 0.5
    extent = f", extent=({start}, {stop}, {stop}, {start})" if part.rows.start else ""
    return _program(_SIMILARITY, part, model, numpy=_NUMPY, extent=Source(extent))


def positional_helix(part: ParameterSlice, model: ModelInfo) -> str:
    """Return a program that draws the positional embeddings in their principal components."""
    return _program(_HELIX, part, model, numpy=_NUMPY, positions=_arguments(part.rows))


def attention_heads(part: ParameterSlice, layer: int, model: ModelInfo) -> str:
    """Return a program that draws all of a layer's `c_attn` and the RMS of each head; layers count from 1."""
    return _program(_HEADS, part, model, numpy=_NUMPY, title=f"Layer {layer}: the heads in Q, K and V")


def attention_slice(part: ParameterSlice, layer: int, style: Style, model: ModelInfo) -> str:
    """Return a program that draws a slice of a layer's `c_attn`; layers count from 1."""
    if style == "article":
        return _gray(part, model, f"Attention Matrix (Layer {layer})", "Column", "Row")
    title = f"Layer {layer}: queries, keys and values"
    return _diverging(part, model, title, "column (output)", "row (input dimension)", _borders(part.columns, model))


def matrix(part: ParameterSlice, style: Style, model: ModelInfo) -> str:
    """Return a program that draws any parameter: a heatmap, or for a vector a plot and its distribution."""
    title = part.info.name
    if part.flat:
        template = _PLOT if style == "article" else _VECTOR
        return _program(template, part, model, positions=_arguments(part.rows), title=title)
    return _gray(part, model, title, "Column", "Row") if style == "article" else _diverging(part, model, title)


def parameters(part: str, model: ModelInfo) -> str:
    """Return a program that prints name and shape of the parameters whose names contain `part`."""
    part = part.strip().lower()
    return fill(_FILTERED if part else _LIST, imports=_imports(model), opening=opening(model), part=part)


def _diverging(
    part: ParameterSlice, model: ModelInfo, title: str, x: str = "column", y: str = "row", borders: str = ""
) -> str:
    clips = part.size >= _CLIP_FROM
    return _program(
        _HEATMAP,
        part,
        model,
        numpy=_NUMPY if clips else Source(""),
        limits=Source("limit = np.percentile(abs(values), 99)" if clips else "limit = abs(values).max()"),
        look=Source(f'cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"{_extent(part)}'),
        borders=Source(borders),
        title=title,
        x=x,
        y=y,
    )


def _gray(part: ParameterSlice, model: ModelInfo, title: str, x: str, y: str) -> str:
    square = 1 / _SQUARE_CELLS_UP_TO <= len(part.rows) / len(part.columns) <= _SQUARE_CELLS_UP_TO
    look = 'cmap="gray"' + ("" if square else ', aspect="auto"') + _extent(part)
    return _program(_HEATMAP, part, model, look=Source(look), title=title, x=x, y=y)


def _program(template: str, part: ParameterSlice, model: ModelInfo, **values: object) -> str:
    nothing = dict.fromkeys(("numpy", "norm", "limits", "borders"), Source(""))
    return fill(
        _VALUES + template,
        **nothing
        | {"imports": _imports(model), "opening": opening(model), "name": part.info.name, "slice": Source(_slice(part))}
        | values,
    )


def _imports(model: ModelInfo) -> Source:
    return imports(model, "GPT2LMHeadModel")


def _slice(part: ParameterSlice) -> str:
    """Return the slice as the code writes it, as short as possible."""
    axes = (part.rows, part.columns)[: len(part.info.shape)]
    whole = [len(axis) == length for axis, length in zip(axes, part.info.shape, strict=True)]
    if all(whole):
        return ""
    if whole[-1]:
        axes = axes[:1]
    return "[" + ", ".join(f"{axis.start}:{axis.stop}" for axis in axes) + "]"


def _arguments(indices: range) -> Source:
    """Return the arguments of `range`."""
    return Source(f"{indices.start}, {indices.stop}" if indices.start else f"{indices.stop}")


def _extent(part: ParameterSlice) -> str:
    """Return the extent that gives the axes the code's indices; nothing where they begin at 0."""
    rows, columns = part.rows, part.columns
    if not rows.start and not columns.start:
        return ""
    return f", extent=({columns.start - 0.5}, {columns.stop - 0.5}, {rows.stop - 0.5}, {rows.start - 0.5})"


def _borders(columns: range, model: ModelInfo) -> str:
    """Return code that draws lines between the heads, stronger ones between Q, K and V."""
    head = model.width // model.heads
    first = (columns.start // head + 1) * head
    if first >= columns.stop:
        return ""
    return (
        f"for border in range({first}, {columns.stop}, {head}):  # {model.heads} heads each of Q, K and V\n"
        f'    plt.axvline(border - 0.5, color="black", linewidth=0.5 if border % {model.width} else 2)'
    )
