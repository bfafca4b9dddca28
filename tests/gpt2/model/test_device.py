"""A GPU that cannot be used is replaced by the CPU or named in a sentence, and a lost one is known from a full one."""

from __future__ import annotations

import gc
import textwrap
import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from structlog.testing import capture_logs

from bot.errors import DeviceError, DeviceLostError, ExitCode, ModelInvalidError, SettingsError
from bot.gpt2.local import calibration
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import loading
from bot.gpt2.model.device import LOST, is_lost, is_out_of_memory, on_device, pinned_zeros, translate_loss
from bot.gpt2.model.loading import load
from bot.gpt2.model.transformer import Transformer
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from tests.command_line import run_python

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 148.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 12 MiB is free. "
    "See documentation for Memory Management."
)
BUSY = torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors …")
NO_CODE = RuntimeError("CUDA error: no kernel image is available for execution on the device")
UNKNOWN = RuntimeError("CUDA error: unknown error")
OLD = RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver")
ABSENT = RuntimeError("Found no NVIDIA driver on your system.")
ILLEGAL = RuntimeError("CUDA error: an illegal memory access was encountered")

REFUSALS = pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FULL, "it has too little free memory (CUDA out of memory. Tried to allocate 148.00 MiB."),
        (BUSY, "another process holds it for itself alone (CUDA error: CUDA-capable device(s) is/are busy or unavaila"),
        (NO_CODE, "this build of PyTorch has no code for it (CUDA error: no kernel image"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "too little free memory"),
        (UNKNOWN, "CUDA failed (CUDA error: unknown error). See whether nvidia-smi works"),
    ],
    ids=str,
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that seems to have a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have the GPU refuse the weights."""

    def build(config: Any, read: Any, device: torch.device, precision: Any, **rest: Any) -> Transformer:
        if device.type == "cuda":
            raise error
        return Transformer(config, read, device, precision, **rest)

    monkeypatch.setattr(loading, "Transformer", build)


@pytest.mark.usefixtures("gpu")
class TestRefusal:
    @REFUSALS
    def test_auto_falls_back_to_the_cpu(
        self, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, error: Exception, sentence: str
    ) -> None:
        refuse(monkeypatch, error)
        with capture_logs() as logs:
            assert load(str(tiny_model)).info.device == "cpu"
        (warning,) = [line for line in logs if line["log_level"] == "warning"]
        assert warning["event"] == "computing on the CPU instead of the GPU"
        assert warning["reason"].startswith("The GPU cannot be used, because ")
        assert sentence in warning["reason"]
        assert "\n" not in warning["reason"]

    @REFUSALS
    def test_cuda_ends_with_a_sentence(
        self, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, error: Exception, sentence: str
    ) -> None:
        refuse(monkeypatch, error)
        with pytest.raises(DeviceError) as caught:
            load(str(tiny_model), device="cuda")
        assert sentence in str(caught.value)
        assert "set GPT2_DEVICE to cpu" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == ExitCode.UNREACHABLE

    def test_bfloat16_does_not_fall_back(self, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
        refuse(monkeypatch, FULL)
        with pytest.raises(DeviceError, match="too little free memory"):
            load(str(tiny_model), precision="bfloat16")

    def test_other_errors_are_the_models(self, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
        refuse(monkeypatch, RuntimeError("Expected all tensors on one device, but found cuda:0 and cpu!"))
        with pytest.raises(ModelInvalidError, match="cuda:0"):
            load(str(tiny_model))

    async def test_memory_that_ends_after_loading_falls_back_too(
        self, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
    ) -> None:
        def build(config: Any, read: Any, device: torch.device, precision: Any, **rest: Any) -> Transformer:
            built.append(device.type)
            return Transformer(config, read, torch.device("cpu"), precision, **rest)

        def measure(*arguments: Any, **keywords: Any) -> Any:
            if built == ["cuda"]:
                raise FULL
            return whole(*arguments, **keywords)

        whole, built = calibration.measure, list[str]()
        monkeypatch.setattr(loading, "Transformer", build)
        monkeypatch.setattr(calibration, "measure", measure)
        engine = LocalEngine(str(tiny_model))
        with capture_logs() as logs:
            await engine.start()
        assert built == ["cuda", "cpu"]
        assert (await engine.model()).device == "cpu"
        assert len([line for line in logs if "instead of the GPU" in line["event"]]) == 1
        await engine.close()

    async def test_who_waits_for_the_model_hears_of_the_gpu(
        self, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
    ) -> None:
        refuse(monkeypatch, BUSY)
        engine = LocalEngine(str(tiny_model), device="cuda")
        ticket = await engine.submit(ContinuationRequest("Hello", SamplingParams(1)))
        with pytest.raises(DeviceError, match="another process holds it"):
            await engine.start()
        for call in (ticket.result(), engine.model()):
            with pytest.raises(DeviceError, match="another process holds it"):
                await call
        await engine.close()


class TestStart:
    def start(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def init() -> None:
            raise error

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "init", init)

    def test_an_old_driver_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start(monkeypatch, OLD)
        with capture_logs() as logs:
            assert on_device("auto", "float32", lambda device: device.type) == "cpu"
        assert "its driver is too old for this build of PyTorch" in logs[0]["reason"]
        with pytest.raises(SettingsError, match="sees no CUDA device here: its driver is too old"):
            on_device("cuda", "float32", lambda device: device.type)

    @pytest.mark.parametrize("error", [ABSENT, AssertionError("Torch not compiled with CUDA enabled")], ids=str)
    def test_a_machine_without_a_gpu_is_silent(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.start(monkeypatch, error)
        with capture_logs() as logs:
            assert on_device("auto", "float32", lambda device: device.type) == "cpu"
        assert not logs
        with pytest.raises(SettingsError, match=r"sees no CUDA device here\. Use auto or cpu"):
            on_device("cuda", "float32", lambda device: device.type)

    def test_a_driver_in_trouble_may_be_well_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start(
            monkeypatch, RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment")
        )
        with pytest.raises(DeviceError, match="CUDA failed"):
            on_device("cuda", "float32", lambda device: device.type)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_bfloat16_is_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tiny_model: Path, device: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"bfloat16, which is for a GPU.* Use float16 or float32\."):
        load(str(tiny_model), device=device, precision="bfloat16")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_every_precision_is_for_a_gpu(precision: Any) -> None:
    assert on_device("auto", precision, lambda device: device.type) == "cuda"


@pytest.mark.parametrize("part", LOST)
def test_errors_that_stay_are_losses(part: str) -> None:
    assert is_lost(RuntimeError(f"CUDA error: {part} was encountered"))
    assert is_lost(torch.AcceleratorError(part.upper()))
    assert not is_lost(RuntimeError(part)), "it does not come from the GPU"


@pytest.mark.parametrize("name", ["ILLEGAL_ADDRESS", "LAUNCH_FAILED", "ECC_UNCORRECTABLE", "UNKNOWN", "ASSERT"])
def test_the_drivers_names_are_known(name: str) -> None:
    assert is_lost(RuntimeError(f"CUDA error: cuLaunchKernel: CUDA_ERROR_{name}"))
    assert not is_lost(RuntimeError("CUDA error: cuLaunchKernel: CUDA_ERROR_OUT_OF_MEMORY"))


def test_a_full_gpu_is_no_loss() -> None:
    for error in (FULL, RuntimeError("CUDA error: out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")):
        assert is_out_of_memory(error)
        assert not is_lost(error)
    assert not is_out_of_memory(RuntimeError("DefaultCPUAllocator: out of memory"))
    assert is_lost(DeviceLostError("gone"))


@pytest.mark.parametrize("fails", [False, True])
def test_other_errors_are_losses_if_cuda_still_fails(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    def synchronize() -> None:
        if fails:
            raise RuntimeError("CUDA error: something new")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert is_lost(RuntimeError("CUDA error: something new")) is fails
    assert not is_lost(RuntimeError("shapes do not fit"))


def test_memory_that_a_lost_gpu_reads_is_never_freed() -> None:
    before = pinned_zeros(8, torch.device("cpu"))
    loss = translate_loss(ILLEGAL)
    assert isinstance(loss, DeviceLostError)
    after = pinned_zeros(8, torch.device("cpu"))
    kept, freed = weakref.ref(before), weakref.ref(after)
    del before, after
    gc.collect()
    assert kept() is not None
    assert freed() is None


REAL_LOSS = """
    import asyncio, sys, torch
    from bot.errors import DeviceLostError
    from bot.gpt2.local.engine import LocalEngine
    from bot.gpt2.model.device import is_lost
    from bot.gpt2.requests import ContinuationRequest, SamplingParams

    def fails(call):
        try:
            call()
        except Exception as error:
            return error

    async def main():
        engine = LocalEngine(sys.argv[1], device="cuda")
        await engine.start()
        request = ContinuationRequest("Hello", SamplingParams(1, samples=2, length=40))
        await engine.continuation(request)
        full = fails(lambda: torch.empty(2**50, device="cuda"))
        print(type(full).__name__, is_lost(full))
        await engine.continuation(request)
        def corrupt():
            torch.zeros(3, device="cuda")[torch.tensor([2**20], device="cuda")]
            torch.cuda.synchronize()
        print(is_lost(fails(corrupt)))
        results = await asyncio.gather(*(engine.continuation(request) for _ in range(3)), return_exceptions=True)
        print({type(result).__name__ for result in results})
        try:
            await engine.watch()
        except DeviceLostError as error:
            print(error)
        await engine.close()

    asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_is_lost_as_described(tiny_model: Path, tmp_path: Path) -> None:
    process = run_python("-c", textwrap.dedent(REAL_LOSS), str(tiny_model), folder=tmp_path)
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if not line.startswith("20")]  # no line of the log
    assert lines[:3] == ["OutOfMemoryError False", "True", "{'DeviceLostError'}"], process.stdout
    assert lines[3].startswith("The GPU failed while it computed (CUDA error: device-side assert triggered")
