"""Backbones by name: ImageNet's weights are downloaded, checked, kept, and say what they expect of an image."""

import hashlib
import io

import numpy as np
import pytest

from keras_rcnn import backbones
from keras_rcnn.backbones import imagenet
from keras_rcnn.data import Preprocessor
from keras_rcnn.download import DownloadError
from tests.convert import states
from tests.downloads import server  # noqa: F401  a fixture

BUILT = {
    "resnet18": lambda: states.resnet(18),
    "resnext50_32x4d": lambda: states.resnet(50, groups=32, width_per_group=4),
    "convnext_tiny": states.convnext,
    "mobilenet_v3_large": states.mobilenet,
}


@pytest.fixture
def published(monkeypatch, tmp_path, server):  # noqa: F811
    """Publishes a state dict under a backbone's name on this machine."""
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))

    def publish(name, state):
        buffer = io.BytesIO()
        np.savez(buffer, **state)
        server.content = buffer.getvalue()
        file = f"weights-{hashlib.sha256(server.content).hexdigest()[:8]}.npz"
        entry = imagenet.PUBLISHED[name]._replace(file=file, mib=len(server.content) / 2**20)
        monkeypatch.setitem(imagenet.PUBLISHED, name, entry)
        monkeypatch.setattr(imagenet, "ADDRESS", server.url.removesuffix("weights.pth"))
        return tmp_path / "home" / "downloads" / file

    return publish


@pytest.mark.parametrize("name", BUILT)
def test_weights_are_downloaded_once(name, published, server):  # noqa: F811
    state = BUILT[name]()
    kept = published(name, state)
    first = backbones.backbone_by_name(name, freeze_at=2)
    kernel = first.get_layer("stem_conv").get_weights()[0]
    theirs = next(value for key, value in state.items() if key in ("conv1.weight", "features.0.0.weight"))
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), theirs)
    assert (server.requests, first.freeze_at, first.name) == (1, 2, name)
    assert kept.is_file()
    backbones.backbone_by_name(name)
    assert server.requests == 1


def test_a_kept_file_is_checked(published):
    kept = published("resnet18", states.resnet(18))
    backbones.backbone_by_name("resnet18")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(DownloadError, match=r"is not the file that it should be.*Delete it"):
        backbones.backbone_by_name("resnet18")


def test_without_a_network_it_says_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "ADDRESS", "http://127.0.0.1:9/")
    with pytest.raises(DownloadError, match=r"(?s)resnet50: .*put it at\n  .*downloads/resnet50-0676ba61.pth"):
        backbones.ResNet(50, weights="imagenet")
    assert not list(tmp_path.rglob("*.pth"))


def test_what_has_no_published_weights():
    with pytest.raises(ValueError, match="no published ImageNet weights for resnext50_8x8d; there are for"):
        backbones.ResNet(50, weights="imagenet", groups=8, width_per_group=8)
    with pytest.raises(ValueError, match=r"There is no backbone 'resnet51'; there are efficientnet_lite0, "):
        backbones.backbone_by_name("resnet51")


def test_every_name_says_its_hash_and_normalisation():
    for name, entry in imagenet.PUBLISHED.items():
        assert (entry.file is None) == (name == "efficientnet_lite0")
        if entry.file:
            stem, _, sha256_prefix = entry.file.removesuffix(".pth").rpartition("-")
            assert stem == name
            assert len(sha256_prefix) == 8
        assert len(entry.build.mean) == len(entry.build.std) == 3


def test_a_detector_normalises_as_its_backbone_expects():
    lite = backbones.EfficientNetLite0
    assert Preprocessor.for_backbone(lite).mean == (127 / 255,) * 3
    assert Preprocessor.for_backbone(backbones.VGG16, min_size=600).std == (1 / 255,) * 3
    assert Preprocessor.for_backbone(object()).mean == Preprocessor().mean
