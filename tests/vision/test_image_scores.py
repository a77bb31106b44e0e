"""Scores of a classifier whose logits are its pixels, against counting by hand."""

import pytest
import torch
from torch import nn

from egnn_prune.uncertainty import ModuleDropout, SinglePass
from egnn_prune.vision.data import Batches, ImageSet
from egnn_prune.vision.evaluation import image_scores, predict_images, reliability_bins
from egnn_prune.vision.settings import ImageUncertaintySettings

CPU = torch.device("cpu")
KNOWN, UNKNOWN = ("a", "b", "c"), ("u", "v")


def batches(pixels, labels, classes=KNOWN):
    images = torch.tensor(pixels, dtype=torch.uint8)[:, :, None, None]
    kind = ImageSet(images, torch.tensor(labels), classes)
    return Batches(kind, torch.zeros(3), torch.full((3,), 10.0), 2)


@pytest.fixture
def test():
    # logits 3, 0, 0 and so on: sure of a, a, b, c, and of c where it is b
    return batches([[30, 0, 0], [30, 0, 0], [0, 30, 0], [0, 0, 30], [0, 0, 30]], [0, 0, 1, 2, 1])


@pytest.fixture
def val():  # three of four are right; a temperature needs ten images or more
    return batches(4 * [[30, 0, 0], [0, 30, 0], [0, 0, 30], [0, 0, 30]], 4 * [0, 1, 2, 0])


@pytest.fixture
def ood():
    return batches([[10, 9, 0], [0, 10, 9], [0, 9, 10], [5, 0, 0]], [0, 0, 1, 1], UNKNOWN)


def scored(test, val, ood=None, network=None):
    network = network or nn.Flatten()
    return image_scores(network, val, test, ood, ImageUncertaintySettings(), CPU)


def test_scores_by_hand(test, val):
    found = scored(test, val)
    sure = torch.tensor([3.0, 0, 0]).softmax(0)
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["ece"] == pytest.approx(abs(float(sure[0]) - 0.8), abs=1e-6)
    nll = -(4 * sure[0].log() + sure[1].log()) / 5
    assert found["nll"] == pytest.approx(float(nll), rel=1e-5)
    # all in one bin, the 14th of 15
    assert found["reliability"]["count"] == [0.0] * 13 + [5.0, 0.0]
    assert found["reliability"]["accuracy"][13] == pytest.approx(0.8)
    assert found["reliability"]["confidence"][13] == pytest.approx(float(sure[0]), rel=1e-5)
    assert found["reliability"]["accuracy"][0] is None
    assert "auroc" not in found and "dropout_ece" not in found


def test_the_temperature_is_fitted_on_validation(test, val):
    """Three of four are right there: the probability that belongs to 3/T is 0.75, not 0.8."""
    found = scored(test, val)
    temperature = found["temperature"]
    sure = float((torch.tensor([3.0, 0, 0]) / temperature).softmax(0)[0])
    assert sure == pytest.approx(0.75, abs=1e-3)
    assert found["ece_scaled"] == pytest.approx(0.05, abs=1e-3)


def test_without_an_error_on_validation_there_is_no_temperature(test):
    easy = batches(6 * [[30, 0, 0], [0, 30, 0]], 6 * [0, 1])
    found = scored(test, easy)
    assert found["temperature"] is None and found["ece_scaled"] is None
    assert found["accuracy"] == pytest.approx(0.8)


def test_unknown_images_are_counted_by_their_class_and_by_what_they_are_taken_for(test, val, ood):
    found = scored(test, val, ood)
    assert found["ood_labels"] == [[1, 1, 0], [1, 0, 1]]
    assert found["auroc"] == 1.0  # every unknown image has a lower largest probability
    # and the other way round: images that are surer than the known ones
    surer = batches([[90, 0, 0]], [1], UNKNOWN)
    turned = scored(test, val, surer)
    assert turned["auroc"] == 0.0
    assert turned["ood_labels"] == [[0, 0, 0], [1, 0, 0]]


def test_dropout_is_measured_where_there_is_some(test, val, ood):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    found = scored(test, val, ood, network)
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["dropout_nll"] != found["nll"]
    assert {"dropout_ece", "dropout_uce", "dropout_auroc", "dropout_auroc_max"} <= set(found)
    prediction, _ = predict_images(ModuleDropout(network, 20), test, CPU)
    assert found["dropout_accuracy"] == pytest.approx(
        float((prediction.label == test.labels).double().mean())
    )
    assert network.training  # as it was


def test_bins_hold_every_image(test):
    prediction, labels = predict_images(SinglePass(nn.Flatten()), test, CPU)
    for bins in (1, 2, 15):
        found = reliability_bins(prediction, labels, bins)
        assert sum(found["count"]) == 5
        assert len(found["accuracy"]) == len(found["confidence"]) == bins
