"""More engines for the bench: CTranslate2, llama.cpp and vLLM, each measured if its package is installed.

Like Transformers, all sample with temperature 1 and top-k 50. The module is also the process that runs one engine.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from transformers import AutoTokenizer, GPT2LMHeadModel

from bot.cli import bench_baselines
from bot.gpt2.model import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot.cli.bench_baselines import Build, Compute, Setup
    from bot.gpt2.requests import ContinuationRequest

_CONTEXT_PER_SEQUENCE: Final = 256  # positions that llama.cpp keeps for each sequence; the workloads need 50
_EVERY_LAYER: Final = 999  # a number of layers that no model exceeds
_SHARE_OF_GPU_MEMORY: Final = 0.5  # vLLM takes it at once; the other engines need some, too


def ctranslate2(setup: Setup) -> Compute:
    """Build CTranslate2, with all requests in one batch and one seed for all."""
    import ctranslate2 as library  # noqa: PLC0415 # optional

    folder = files.locate(setup.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as converted:
        _in_subprocess(write_ctranslate2, folder, Path(converted))
        generator = library.Generator(
            converted,
            device="cuda" if setup.cuda else "cpu",
            compute_type=setup.baseline_precision,
            intra_threads=setup.threads,
        )

    def compute(requests: Sequence[ContinuationRequest]) -> None:
        first = requests[0]
        generator.generate_batch(
            [tokenizer.convert_ids_to_tokens(tokenizer(request.prompt)["input_ids"]) for request in requests],
            sampling_topk=first.params.top_k,
            sampling_temperature=first.params.temperature,
            num_hypotheses=first.params.samples,
            max_length=first.params.length,
            min_length=first.params.length,
            include_prompt_in_result=False,
        )

    return compute


def llama_cpp(setup: Setup) -> Compute:
    """Build llama.cpp through its C interface: each sample is a sequence, and each prompt is computed once.

    It uses a GPU only if it was built for it, and always float32.
    """
    import llama_cpp as library  # noqa: PLC0415 # optional

    folder = files.locate(setup.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    library.llama_backend_init()
    with tempfile.TemporaryDirectory() as converted:
        path = Path(converted) / "model.gguf"
        _in_subprocess(write_gguf, folder, path)
        loading = library.llama_model_default_params()
        loading.n_gpu_layers = _EVERY_LAYER if setup.cuda else 0
        network = library.llama_model_load_from_file(str(path).encode(), loading)

    def compute(requests: Sequence[ContinuationRequest]) -> None:
        owners = [number for number, request in enumerate(requests) for _ in range(request.params.samples)]
        prompts = [tokenizer(request.prompt)["input_ids"] for request in requests]
        settings = library.llama_context_default_params()
        settings.n_threads = settings.n_threads_batch = setup.threads
        settings.n_seq_max = len(owners)
        settings.n_ctx = _CONTEXT_PER_SEQUENCE * len(owners)
        settings.n_batch = settings.n_ubatch = max(512, len(owners))
        settings.kv_unified = True
        context = library.llama_init_from_model(network, settings)
        memory = library.llama_get_memory(context)
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        library.llama_sampler_chain_add(chain, library.llama_sampler_init_top_k(requests[0].params.top_k))
        library.llama_sampler_chain_add(chain, library.llama_sampler_init_temp(requests[0].params.temperature))
        library.llama_sampler_chain_add(chain, library.llama_sampler_init_dist(requests[0].seed))
        batch = library.llama_batch_init(settings.n_batch, 0, 1)
        try:
            first = 0  # of the request's sequences
            drawn = []
            for request, prompt in zip(requests, prompts, strict=True):
                _feed(library, context, batch, [(token, place, first) for place, token in enumerate(prompt)])
                for sequence in range(first, first + request.params.samples):
                    if sequence > first:
                        library.llama_memory_seq_cp(memory, first, sequence, -1, -1)
                    drawn.append(library.llama_sampler_sample(chain, context, len(prompt) - 1))
                first += request.params.samples
            for step in range(requests[0].params.length - 1):
                rows = [
                    (token, len(prompts[owner]) + step, sequence)
                    for sequence, (token, owner) in enumerate(zip(drawn, owners, strict=True))
                ]
                _feed(library, context, batch, rows)
                drawn = [library.llama_sampler_sample(chain, context, row) for row in range(len(rows))]
        finally:
            library.llama_batch_free(batch)
            library.llama_sampler_free(chain)
            library.llama_free(context)

    return compute


def vllm(setup: Setup) -> Compute:
    """Build vLLM, with all requests at once and a seed for each."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # so that this process holds the memory, and ends it
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    import vllm as library  # noqa: PLC0415 # optional

    engine = library.LLM(
        model=str(files.locate(setup.model)),
        dtype=setup.baseline_precision,
        seed=0,
        gpu_memory_utilization=_SHARE_OF_GPU_MEMORY,
        disable_log_stats=True,
    )

    def compute(requests: Sequence[ContinuationRequest]) -> None:
        engine.generate(
            [request.prompt for request in requests],
            [
                library.SamplingParams(
                    n=request.params.samples,
                    temperature=request.params.temperature,
                    top_k=request.params.top_k,
                    top_p=request.params.top_p,
                    max_tokens=request.params.length,
                    min_tokens=request.params.length,
                    ignore_eos=True,
                    seed=request.seed,
                )
                for request in requests
            ],
            use_tqdm=False,
        )

    return compute


def _feed(library: Any, context: Any, batch: Any, rows: Sequence[tuple[int, int, int]]) -> None:
    """Compute a row for each (token, position, sequence)."""
    batch.n_tokens = len(rows)
    for index, (token, position, sequence) in enumerate(rows):
        batch.token[index], batch.pos[index] = token, position
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        batch.logits[index] = True
    if library.llama_decode(context, batch) != 0:
        raise RuntimeError("llama.cpp could not compute the batch")


def _in_subprocess(convert: Callable[[Path, Path], None], folder: Path, target: Path) -> None:
    """Convert a model in a process of its own, whose memory does not count as the engine's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(convert, folder, target).result()


def write_ctranslate2(folder: Path, target: Path) -> None:
    """Write the model in CTranslate2's format, float32.

    Args:
        folder: A model in Transformers' format.
        target: The output folder.
    """
    from ctranslate2.converters import TransformersConverter  # noqa: PLC0415 # optional

    TransformersConverter(str(folder)).convert(str(target), force=True)


def write_gguf(folder: Path, path: Path) -> None:
    """Write the model in llama.cpp's format, float32, without its tokenizer.

    Args:
        folder: A model in Transformers' format.
        path: The output file.
    """
    from gguf import GGUFWriter  # noqa: PLC0415 # optional, comes with llama.cpp's package

    network = GPT2LMHeadModel.from_pretrained(folder, dtype="float32")
    config = network.config
    writer = GGUFWriter(path, "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)
    for name, tensor in network.state_dict().items():
        # Conv1D stores its weight as [in, out], llama.cpp as [out, in].
        transposed = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
        values = (tensor.t() if transposed else tensor).contiguous().numpy()
        writer.add_tensor(_gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    """Return llama.cpp's name for an entry of the state dict."""
    renamed = {
        "lm_head": "output",
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
    module, _, kind = name.rpartition(".")
    if module in renamed:
        return f"{renamed[module]}.{kind}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{renamed[part]}.{kind}"


BUILDERS: Final[dict[str, Build]] = {
    **bench_baselines.BUILDERS,
    "ctranslate2": ctranslate2,
    "llama.cpp": llama_cpp,
    "vllm": vllm,
}

if __name__ == "__main__":
    bench_baselines.serve(BUILDERS)
