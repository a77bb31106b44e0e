"""Networks that cannot be built: one sentence that says what to do."""

from __future__ import annotations

import sys
import urllib.error

import pytest
import torch

from egnn_prune.errors import ConfigError
from egnn_prune.vision.networks import build_network

COLOUR, MOONS = (3, 32, 32), (2,)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "options", "words"),
    [
        ("resnet21", COLOUR, 10, {}, "network.name must be one of mlp, lenet.*not 'resnet21'"),
        ("mlp", MOONS, 2, {"width": 3}, "mlp has no option 'width'; it has widths"),
        ("lenet", COLOUR, 10, {"widths": (6,)}, "lenet has no option 'widths'; it has none"),
        ("resnet20", COLOUR, 10, {"stem": "cifar"}, "no option 'stem'; it has shortcut"),
        ("resnet20", COLOUR, 10, {"shortcut": "C"}, "network.shortcut must be one of A, B"),
        ("resnet18", COLOUR, 10, {"stem": "mnist"}, "network.stem must be one of imagenet, cifar"),
        (
            "resnet18",
            COLOUR,
            10,
            {"shortcut": "A"},
            "no option 'shortcut'; it has pretrained, stem",
        ),
        ("mlp", MOONS, 2, {"widths": ()}, r"network.widths must be one or more.*not \(\)"),
        ("mlp", MOONS, 2, {"widths": (30, 0)}, "network.widths must be .*at least 1"),
        ("mlp", MOONS, 2, {"widths": (2.5,)}, "network.widths must be .*whole numbers"),
        ("small_cnn", COLOUR, 10, {"widths": "ab"}, "network.widths must be .*not 'ab'"),
        ("mlp", MOONS, 1, {}, "at least 2 classes"),
        ("mlp", MOONS, 0, {}, "number of classes must be"),
        ("mlp", MOONS, 2, {"dropout": 1.0}, "network.dropout must be at least 0 and below 1"),
        ("mlp", MOONS, 2, {"dropout": -0.1}, "network.dropout must be at least 0 and below 1"),
        ("mlp", MOONS, 2, {"dropout": float("nan")}, "below 1, not nan"),
        ("mlp", (), 2, {}, "shape of an input must be"),
        ("lenet", (0, 32, 32), 10, {}, "shape of an input must be"),
        (
            "lenet",
            (3, 15, 32),
            10,
            {},
            "lenet needs images of at least 16 x 16 pixels, not 15 x 32",
        ),
        ("cnn", (3, 8, 3), 10, {}, "at least 4 x 4 pixels, not 8 x 3"),
        ("small_cnn", (1, 8, 8), 10, {"widths": (4,) * 4}, "at least 16 x 16 pixels, not 8 x 8"),
        ("resnet32", (3, 3, 3), 10, {}, "resnet32 needs images of at least 4 x 4"),
        ("resnet18", (3, 8, 8), 10, {}, "resnet18 needs images of at least 16 x 16"),
        ("resnet18", (1, 32, 32), 10, {"pretrained": True}, "colour images.*pretrained=false"),
        *((n, MOONS, 2, {}, f"{n} takes images") for n in ("lenet", "cnn", "resnet20", "resnet50")),
    ],
)
def test_one_clear_sentence(name, shape, classes, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build_network(name, shape, classes, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("lenet", {}, 16),
        ("cnn", {}, 4),
        ("small_cnn", {"widths": (2, 2, 2)}, 8),
        ("resnet20", {}, 4),
    ],
)
def test_the_smallest_image_is_enough(name, options, least):
    network = build_network(name, (1, least, least), 3, **options)
    assert network(torch.randn(2, 1, least, least)).isfinite().all()


def test_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ConfigError, match=r"resnet18.*need the package torchvision"):
        build_network("resnet18", COLOUR, 10)


class TestPretrained:
    @pytest.fixture
    def weights(self, monkeypatch, tmp_path):
        """A cache of torch's own, and no network."""
        models = pytest.importorskip("torchvision", reason="needs the extra [vision]").models

        def offline(*_args, **_keywords):
            raise urllib.error.URLError("no route to host")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.download_url_to_file", offline)
        name = models.ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[1]
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        return folder / name

    def test_offline(self, weights):
        with pytest.raises(ConfigError, match=r"no route to host.*network.pretrained=false"):
            build_network("resnet18", COLOUR, 10, pretrained=True)

    def test_a_broken_download(self, weights):
        weights.write_bytes(b"no weights")
        with pytest.raises(ConfigError, match=r"could not be.*network.pretrained=false") as caught:
            build_network("resnet18", COLOUR, 10, pretrained=True)
        assert "\n" not in str(caught.value)

    def test_all_but_the_ends_is_taken_over(self, weights):
        from torchvision.models import resnet18

        source = resnet18().state_dict()
        torch.save(source, weights)
        for stem, new in (("imagenet", set()), ("cifar", {"conv1.weight"})):
            network = build_network("resnet18", COLOUR, 10, pretrained=True, stem=stem)
            state = network.state_dict()
            changed = {k for k, v in source.items() if not torch.equal(v, state[k])}
            assert changed == {"fc.weight", "fc.bias"} | new
            assert network.eval()(torch.randn(2, *COLOUR)).shape == (2, 10)
