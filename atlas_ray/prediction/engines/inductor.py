"""PyTorch's compiler, which makes machine code of an encoder once on each machine.

Machine code can do anything, so that none is ever taken from an artifact. It is made here, and kept in a folder that
nobody else may write to: `ATLAS_RAY_CACHE`, or `atlas-ray` in the user's cache.
"""

import fcntl
import hashlib
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError

CACHE = "ATLAS_RAY_CACHE"
"""The environment variable that names the folder."""
MAX_BATCH = 8192


def compiled(encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:
    """Compile the encoder, unless this machine has done so before; processes that start together wait for the first.

    Raises:
        ConfigError: if the encoder cannot be compiled, or others may write to the folder.
    """
    package = cache_folder() / f"{_key(encoder, image_size_px)}.pt2"
    with package.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not package.exists():
            _compile(encoder, image_size_px, package)
    device = next(encoder.parameters()).device
    index = -1 if device.type == "cpu" else device.index or 0
    # What `torch._inductor.aoti_load_package` calls; to import that takes seconds and 150 MiB.
    loader: Any = torch._C._aoti.AOTIModelPackageLoader(str(package), "model", False, 1, index)

    def run(pictures: Tensor) -> Tensor:
        features: Tensor = loader.run([pictures.contiguous()])[0]
        return features

    return run


def cache_folder() -> Path:
    """Make the folder of compiled encoders, and return it.

    Raises:
        ConfigError: if others may write to it, or it cannot be made.
    """
    named = os.environ.get(CACHE)
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atlas-ray"
    folder = (Path(named) if named else default) / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot hold compiled encoders: {error.strerror}; name another in {CACHE}"
        ) from None
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"{folder}: others may write to it, and machine code from it is run; name another folder in {CACHE}"
        )
    return folder


def _compile(encoder: nn.Module, image_size_px: int, package: Path) -> None:
    weight = next(encoder.parameters())
    pictures = torch.zeros((2, 3, image_size_px, image_size_px), dtype=torch.uint8, device=weight.device)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with tempfile.TemporaryDirectory(dir=package.parent) as scratch:
        part = Path(scratch) / "encoder.pt2"
        # Its usual folder is one in /tmp.
        with mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": scratch}):
            try:
                exported = torch.export.export(encoder, (pictures,), dynamic_shapes=({0: batch},))
                torch._inductor.aoti_compile_and_package(exported, package_path=str(part))
            except Exception as error:  # what the compiler raises is nowhere listed
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise ConfigError(f"engine 'compiled' cannot compile this encoder: {reason}") from error
        part.replace(package)


def _key(encoder: nn.Module, image_size_px: int) -> str:
    """Return what the machine code depends on, as a hash: the network, its weights, PyTorch and the device."""
    device = next(encoder.parameters()).device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else str(torch.cpu.get_capabilities())
    found = hashlib.sha256(repr((torch.__version__, kind, image_size_px, str(encoder))).encode())
    for source in sorted(inspect.getsource(part) for part in {type(module) for module in encoder.modules()}):
        found.update(source.encode())
    for name, tensor in (*encoder.named_parameters(), *encoder.named_buffers()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]
