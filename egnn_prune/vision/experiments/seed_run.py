"""What every experiment does with one seed: data, a dense network, fits, pruning, rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from egnn_prune.adapters import TracedNetwork
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.pruning import (
    Context,
    apply_masks,
    apply_weight_masks,
    choose,
    choose_weights,
    compact,
    reinitialise,
    remove_masks,
    rewind,
    score_channels,
    score_weights,
    shuffle_masks,
    snapshot,
)
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.system.device import choose_device
from egnn_prune.system.files import atomic
from egnn_prune.uncertainty import SinglePass
from egnn_prune.vision.data import Batches, ImageData, ImageSet, load_images
from egnn_prune.vision.evaluation import (
    image_scores,
    latencies_ms,
    macs,
    predict_images,
    weight_counts,
)
from egnn_prune.vision.networks import build_network
from egnn_prune.vision.settings import (
    ImageDataSettings,
    ImageFitSettings,
    ImageNetworkSettings,
    VisionSettings,
)
from egnn_prune.vision.training import Fitted, fit_classifier, image_losses

#: Images in a batch that is only looked at, and in the pass whose latency is measured.
EVAL_BATCH = 1000
LATENCY_BATCH = 64

#: Added to the seed of a network whose weights are drawn again.
FRESH = 1000

Masks = dict[str, Tensor]


def network_from(settings: ImageNetworkSettings, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of the settings; those that were left at ``None`` or empty are its own."""
    options = {k: v for k, v in asdict(settings).items() if k not in ("name", "dropout")}
    given = {k: v for k, v in options.items() if v not in (None, [], False)}
    return build_network(settings.name, shape, classes, dropout=settings.dropout, **given)


def images_from(settings: ImageDataSettings, seed: int) -> ImageData:
    """The images of the settings."""
    s = settings
    return load_images(
        s.name,
        path=s.path,
        ood=s.ood,
        ood_path=s.ood_path,
        seed=seed,
        validation=s.validation,
        limit=s.limit,
        size=s.size,
    )


class SeedRun:
    """Everything that the arms of one seed share.

    Args:
        settings: of the experiment; ``out`` is the folder of the run.
        seed: of the split, the first weights and the order of the images.
    """

    def __init__(self, settings: VisionSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.device = choose_device(settings.device)
        assert settings.out is not None, "run_experiment names the folder"
        self.folder = Path(settings.out) / "seeds"
        content = asdict(settings)
        for name in ("out", "name", "title", "seeds", "workers", "jobs", "threads", "device"):
            content.pop(name)
        self.saved = Rows(self.folder / f"{seed}.json", content, seed=seed)
        self.data: ImageData = images_from(settings.data, seed)

    # ------------------------------------------------------------------ data

    def batches(self, images: ImageSet, size: int = EVAL_BATCH, **options: Any) -> Batches:
        """Standardised batches on the device."""
        return Batches(images, self.data.mean, self.data.std, size, device=self.device, **options)

    def training(self, fit: ImageFitSettings, weights: Tensor | None = None) -> Batches:
        """Training images in a random order, augmented."""
        train = self.data.train
        return self.batches(
            train,
            min(fit.batch_size, len(train)),
            shuffle=True,
            augmentation=self.settings.data.augmentation,
            weights=weights,
            drop_last=True,
            seed=self.seed,
        )

    def looked_at(self) -> list[tuple[Tensor, Tensor]]:
        """A few batches of training images, for criteria that need data."""
        found = []
        for batch in self.batches(self.data.train, 100, shuffle=True, seed=self.seed):
            found.append(batch)
            if len(found) == self.settings.pruning.batches:
                break
        return found

    # ------------------------------------------------------------------ networks

    def plain(self, seed: int | None = None) -> nn.Module:
        """The network with its first weights, the same ones at every call, or with other ones."""
        torch.manual_seed(self.seed if seed is None else seed)
        return network_from(self.settings.network, self.data.shape, len(self.data.classes))

    def fresh(self, seed: int | None = None) -> TracedNetwork:
        """The same, in the wrapper that lets the engine see its channels."""
        example = torch.zeros(2, *self.data.shape)
        return TracedNetwork(self.plain(seed).eval(), example, self.settings.pruning.ignored)

    def restart(self, model: TracedNetwork, seed: int) -> None:
        """Give a masked network the first weights that a seed draws, and no statistics yet."""
        reinitialise(model, seed)  # also of normalisations, which are no weights to rewind
        rewind(model, snapshot(self.fresh(seed)))

    def dense(self) -> TracedNetwork:
        """The trained dense network: made, with its row, at the first call, read later."""
        path = self.folder / f"{self.seed}_dense.safetensors"
        row = self.saved.find(arm="dense")
        model = self.fresh()
        if row is not None and path.exists():
            load_network(model.network, path)
            return model
        fitted = self.fit(model, self.settings.training, "dense")
        save_network(model.network, path)
        if row is None:
            found = self.described(model.network, fitted)
            self.saved.add({"arm": "dense", **found})
        return model

    def fit(
        self,
        model: nn.Module,
        fit: ImageFitSettings,
        label: str,
        *,
        optimizer: Optimizer | None = None,
        train: Batches | None = None,
    ) -> Fitted:
        """Train in place; the same seed draws the same images whatever was done before."""
        L.seed_everything(self.seed, verbose=False)
        return fit_classifier(
            model,
            train or self.training(fit),
            self.batches(self.data.val),
            fit,
            device=self.device,
            label=f"seed {self.seed}, {label}",
            optimizer=optimizer,
        )

    def described(self, network: nn.Module, fitted: Fitted) -> Row:
        """Weights, MACs, what the fit did, and every score on the test images."""
        ood = self.data.ood
        return {
            **weight_counts(network),
            "macs": macs(network, self.data.shape),
            **fitted.outputs(),
            "history": fitted.history,
            **image_scores(
                network,
                self.batches(self.data.val),
                self.batches(self.data.test),
                None if ood is None else self.batches(ood),
                self.settings.uncertainty,
                self.device,
            ),
        }

    def accuracy(self, network: nn.Module) -> float:
        """Share of the test images whose label is right."""
        test = self.batches(self.data.test)
        prediction, labels = predict_images(SinglePass(network), test, self.device)
        assert isinstance(prediction, ClassPrediction)
        return float((prediction.label == labels).double().mean())

    def latency(self, network: nn.Module) -> Row:
        """Median time of a pass of :data:`LATENCY_BATCH` images, and that of the dense network."""
        pair = [network, self.plain()]
        own, dense = latencies_ms(pair, self.data.shape, LATENCY_BATCH, self.device)
        return {"latency_ms": own, "latency_ratio": own / dense}

    # ------------------------------------------------------------------ what the engine removes

    def context(self, model: TracedNetwork) -> Context:
        """What a criterion may look at, on the device where the model lies."""
        batches = self.looked_at()
        return Context(model, model.channel_groups(), batches, image_losses, self.rng())

    def rng(self) -> torch.Generator:
        """A generator that is seeded alike at every call."""
        return torch.Generator().manual_seed(self.seed)

    def mask_neurons(
        self,
        model: TracedNetwork,
        sparsity: float,
        keep: Masks | None = None,
        shuffled: bool = False,
    ) -> Masks:
        """Mask the neurons and feature maps that matter least, or as many others of each group."""
        p = self.settings.pruning
        model.to(self.device)
        context = self.context(model)
        scores = score_channels(p.criterion, context)
        kept = choose(scores, sparsity, p.scope, keep, groups=context.groups)
        if shuffled:
            kept = shuffle_masks(kept, self.rng())
        apply_masks(model, kept, context.groups)
        model.to("cpu")
        return kept

    def mask_weights(
        self,
        model: TracedNetwork,
        sparsity: float,
        keep: Masks | None = None,
        criterion: str | None = None,
        names: list[str] | None = None,
        shuffled: bool = False,
    ) -> Masks:
        """Mask the single weights that matter least, or as many others of each tensor."""
        p = self.settings.pruning
        model.to(self.device)
        names = names or self.weight_names(model)
        scores = score_weights(criterion or p.weight_criterion, self.context(model), names)
        kept = choose_weights(scores, sparsity, p.weight_scope, keep)
        if shuffled:
            flat = shuffle_masks({k: v.flatten() for k, v in kept.items()}, self.rng())
            kept = {name: mask.view_as(kept[name]) for name, mask in flat.items()}
        apply_weight_masks(model, kept)
        model.to("cpu")
        return kept

    def weight_names(self, model: TracedNetwork, last: bool = False) -> list[str]:
        """Weights of convolutions and linear layers but for the ignored ones.

        Args:
            model: the network.
            last: also those of the last layer, whose neurons are the classes.
        """
        layers = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        ignored = {f"network.{name}" for name in self.settings.pruning.ignored}
        names = [f"{name}.weight" for name in layers[: None if last else -1] if name not in ignored]
        if not names:
            raise ConfigError("pruning.ignored leaves no layer whose weights could be pruned")
        return names


def smaller(model: TracedNetwork) -> TracedNetwork:
    """A copy without what is masked: masked neurons are cut out, single weights become zeros."""
    small = compact(model)
    assert isinstance(small, TracedNetwork)
    return small


def made_permanent(model: TracedNetwork) -> nn.Module:
    """The plain network without masks: smaller where neurons are gone, zeros for single weights."""
    small = smaller(model)
    remove_masks(small)
    return small.network


def save_network(network: nn.Module, path: Path) -> None:
    """Write the weights, atomically."""
    with atomic(path) as temporary:
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        save_file(state, temporary)


def load_network(network: nn.Module, path: Path) -> None:
    """Read weights into a network of the same shape.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch have errors of their own
        raise InputError(f"{path} cannot be read ({error}); delete it to train anew") from None
