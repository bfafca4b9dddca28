"""The device that computes: its choice, and what becomes of a GPU's errors.

PyTorch reports the errors of CUDA as RuntimeErrors, and knows them apart by their texts alone. Recognized here:

* too little memory: `torch.OutOfMemoryError`, "CUDA error: out of memory", CUBLAS_STATUS_ALLOC_FAILED. While loading it
  is a `DeviceError`; afterwards it fails one request.
* a device that refuses: "busy or unavailable" (another process holds it exclusively), "no kernel image is available"
  (this build of PyTorch has no code for it), a driver that is too old or does not start.
* a device that is lost: errors such as "an illegal memory access was encountered", after which every call of CUDA in
  this process fails (see `LOST`). Only a new process can use it again. This one lives long enough to end in order
  (see `pinned_zeros`).
* every other RuntimeError that names CUDA or one of its libraries (see `_NAMES`). It is a loss if CUDA still fails when
  it is asked afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import warnings
import weakref
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import torch

from bot.errors import DeviceError, DeviceLostError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot.config import Device, Precision

T = TypeVar("T")

LOST: Final = (
    "illegal memory access",
    "illegal address",
    "unspecified launch failure",
    "launch failed",
    "launch timed out",
    "launch timeout",
    "device-side assert",
    "error assert",
    "hardware stack error",
    "illegal instruction",
    "misaligned address",
    "global/shared address space",
    "invalid address space",
    "invalid program counter",
    "invalid pc",
    "uncorrectable ecc error",
    "ecc uncorrectable",
    "uncorrectable nvlink error",
    "nvlink uncorrectable",
    "hardware error",
    "context is destroyed",
    "invalid device context",
    "unknown error",
    "error unknown",
    "device lost",
    "gpu is lost",
)
"""Parts of CUDA's errors that stay until the process ends, in lower case, with spaces for underscores: the messages of
cudaGetErrorString, which PyTorch shows, and the names of the driver's errors, such as CUDA_ERROR_ILLEGAL_ADDRESS."""

_NAMES: Final = (
    "cuda error",
    "cuda out of memory",
    "cuda unknown error",
    "cuda driver",
    "cuda-capable",
    "cuda gpus",
    "cublas status",
    "cudnn status",
    "cudnn error",
    "nvrtc",
    "nvidia driver",
    "triton error [cuda]",
)

_MEMORY: Final = ("out of memory", "cublas status alloc failed")

_REASONS: Final = (
    (
        _MEMORY,
        "it has too little free memory",
        "Free some (nvidia-smi lists what uses it), choose a smaller model, or set GPT2_DEVICE to cpu.",
    ),
    (
        ("busy or unavailable",),
        "another process holds it for itself alone",
        "End that process (nvidia-smi lists it), or set GPT2_DEVICE to cpu.",
    ),
    (
        ("no kernel image",),
        "this build of PyTorch has no code for it",
        "Install another build (https://pytorch.org/get-started), or set GPT2_DEVICE to cpu.",
    ),
    (
        ("driver on your system is too old", "driver version is insufficient"),
        "its driver is too old for this build of PyTorch",
        "Update the driver or install an older build of PyTorch, or set GPT2_DEVICE to cpu.",
    ),
)
_UNKNOWN: Final = ("CUDA failed", "See whether nvidia-smi works here, or set GPT2_DEVICE to cpu.")

_ABSENT: Final = ("no nvidia driver", "no cuda gpus", "not compiled with cuda")

_DETAIL_CHARACTERS: Final = 200

_pinned: Final = weakref.WeakValueDictionary[int, torch.Tensor]()

log = structlog.get_logger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU had too little memory for something, and still works."""
    return isinstance(error, torch.OutOfMemoryError) or (_is_cuda(error) and _says(error, _MEMORY))


def is_device_error(error: BaseException) -> bool:
    """Return whether an error comes from the GPU, and not from the program or the model's files."""
    return isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) or _is_cuda(error)


def is_lost(error: BaseException) -> bool:
    """Return whether this process can no longer use the GPU after an error."""
    if isinstance(error, DeviceLostError):
        return True
    if not is_device_error(error) or is_out_of_memory(error):
        return False
    return _says(error, LOST) or _still_fails()


def raise_if_lost(error: Exception) -> None:
    """Raise the error again if this process can no longer use the GPU after it."""
    if is_lost(error):
        raise error


def translate_loss(error: BaseException) -> BaseException:
    """Return the error for the operator if this process can no longer use the GPU after an error, else that error."""
    if isinstance(error, DeviceLostError) or not is_lost(error):
        return error
    fault = DeviceLostError(
        f"The GPU failed while it computed ({_detail(error)}), and this process can no longer use it: it has to be "
        "restarted, and then answers what it had accepted. If this happens again, look for Xid in the kernel's log."
    )
    fault.__cause__ = error
    for memory in list(_pinned.values()):  # a reference that nobody gives back
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    _pinned.clear()
    return fault


def describe(error: BaseException) -> str:
    """Return an error's type and the beginning of its message, for the log: PyTorch's can be half a page."""
    return f"{type(error).__name__}: {_detail(error)}"


def pinned_zeros(size: int, device: torch.device) -> torch.Tensor:
    """Return int64 memory of the host, from which a GPU can copy while Python goes on.

    To free it, PyTorch asks the GPU for an event. If the GPU is lost, that ends the whole process at once with SIGABRT,
    so from then on this memory is never freed.
    """
    memory = torch.zeros(size, dtype=torch.int64, pin_memory=device.type == "cuda")
    _pinned[id(memory)] = memory
    return memory


@contextlib.contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turn a GPU's errors into DeviceError; other errors, and those of the CPU, pass.

    Raises:
        DeviceError: The GPU cannot be used.
    """
    try:
        yield
    except RuntimeError as error:
        if device.type == "cpu" or not is_device_error(error):
            raise
        raise _unusable(error) from error


def on_device(wanted: Device, precision: Precision, load: Callable[[torch.device], T]) -> T:
    """Return what `load` returns for the wanted device; "auto" is the GPU, or the CPU if the GPU cannot be used.

    Raises:
        DeviceError: The GPU cannot be used and is wanted, or the CPU cannot compute in this precision.
        SettingsError: There is no GPU and it is wanted, or the device cannot compute in this precision.
    """
    device = _choose(wanted)
    if device.type == "cpu":
        _check_cpu(precision)
        return load(device)
    try:
        with device_errors(device):
            return load(device)
    except DeviceError as error:
        if wanted == "cuda" or precision == "bfloat16":
            raise
        _warn(error)
    # Here the error is gone, and with its traceback what was loaded so far.
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
    return load(torch.device("cpu"))


def _choose(wanted: Device) -> torch.device:
    if wanted == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters is logged or raised here
        available = torch.cuda.is_available()
    if available:
        return torch.device("cuda")
    fault = _start_fault()
    if wanted == "cuda":
        if fault and _reason(fault) == _UNKNOWN:
            raise _unusable(fault) from fault
        why = f": {_reason(fault)[0]}" if fault else ""
        raise SettingsError([f"GPT2_DEVICE is cuda, but PyTorch sees no CUDA device here{why}. Use auto or cpu."])
    if fault:
        _warn(_unusable(fault))
    return torch.device("cpu")


def _start_fault() -> RuntimeError | None:
    """Return why CUDA does not start although this machine seems to have a GPU; None if it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:
        return error if isinstance(error, RuntimeError) and not _says(error, _ABSENT) else None
    return None


def _check_cpu(precision: Precision) -> None:
    if precision == "bfloat16":
        fault = "GPT2_PRECISION is bfloat16, which is for a GPU, and the model computes on the CPU here."
        raise SettingsError([f"{fault} Use float16 or float32."])


def _unusable(error: BaseException) -> DeviceError:
    reason, cure = _reason(error)
    return DeviceError(f"The GPU cannot be used, because {reason} ({_detail(error)}). {cure}")


def _warn(error: DeviceError) -> None:
    log.warning("computing on the CPU instead of the GPU", reason=str(error))


def _reason(error: BaseException) -> tuple[str, str]:
    """Return why a GPU refuses, and the cure."""
    if is_out_of_memory(error):
        return _REASONS[0][1:]
    return next(((reason, cure) for parts, reason, cure in _REASONS if _says(error, parts)), _UNKNOWN)


def _detail(error: BaseException) -> str:
    """Return the beginning of PyTorch's message, which goes on with advice for debugging."""
    line = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return line if len(line) <= _DETAIL_CHARACTERS else f"{line[:_DETAIL_CHARACTERS]}…"


def _is_cuda(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and _says(error, _NAMES)


def _says(error: BaseException, parts: tuple[str, ...]) -> bool:
    message = str(error).lower().replace("_", " ")
    return any(part in message for part in parts)


def _still_fails() -> bool:
    """Return whether CUDA fails when it is asked for something harmless."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
