"""What metrics are computed with, opened where the first metric asks: networks, latents' stores, the interpolator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from augment.quality import networks, smoothness
from augment.quality.latents import LatentSettings, LatentStore
from augment.quality.networks import Extractor
from ctrlgenaug.conditions.motion_extraction import field_options
from ctrlgenaug.conditions.provenance import noted_settings
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError

INTERPOLATORS = {
    "mean": "the mean of the neighbouring frames, not AMT-S",
    "flow": "DIS optical flow, not AMT-S",
    "amt": "AMT-S by vbench",
}


@dataclass(frozen=True)
class EvaluationSettings:
    """What to judge, with what: the flags of evaluate.py.

    Attributes:
        synthetic: folders of generated or filtered clips.
        real: the data set's folder, or the folder that holds it.
        split: of the real clips.
        metrics: names, or ``all``.
        classifier: checkpoint trained on real clips.
        classifier_name: its name or mmaction2 config, where the checkpoint does not say it.
        input_size: side of its frames in pixels, where the checkpoint does not say it; None: 256 there.
        vae_path: the VAE's folder, or a folder that has one.
        i3d_weights: TorchScript file, for the usual FVD.
        i3d_sha256: its checksum.
        inception_weights: TorchScript file, for the usual FID.
        inception_sha256: its checksum.
        radimagenet_weights: ResNet50 of RadImageNet.
        interpolator: of motion smoothness, see `INTERPOLATORS`.
        amt_weights: for the interpolator ``amt``.
        draws: halves of the real set.
        seed: of all that is drawn at random.
        memorisation_quantile: see `similarity.nearest_real`.
        candidates: conditions of one class among which a clip's own is looked for.
        latents_dir: keeps latents; None: beside the clips where there is one folder of them.
        device: ``cpu`` or ``cuda:N``.
        batch_size: clips at once.
    """

    synthetic: tuple[str, ...]
    real: str | None = None
    split: str = "train"
    metrics: tuple[str, ...] = ("all",)
    classifier: str | None = None
    classifier_name: str | None = None
    input_size: int | None = None
    vae_path: str | None = None
    i3d_weights: str | None = None
    i3d_sha256: str | None = None
    inception_weights: str | None = None
    inception_sha256: str | None = None
    radimagenet_weights: str | None = None
    interpolator: Literal["mean", "flow", "amt"] = "mean"
    amt_weights: str | None = None
    draws: int = 50
    seed: int = 3407
    memorisation_quantile: float = 0.01
    candidates: int = 20
    latents_dir: str | None = None
    device: str = "cpu"
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, least in (("draws", 0), ("seed", 0), ("batch_size", 1), ("candidates", 2)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)} is less than {least}", "Give a larger one")
        if not 0 <= self.memorisation_quantile < 1:
            raise UserError(
                f"--memorisation_quantile {self.memorisation_quantile} is not in [0, 1)", "Use e.g. 0.01"
            )

    def given(self, names: Sequence[str]) -> bool:
        """Whether one of these flags was given."""
        return any(getattr(self, name) for name in names)

    def lacking(self, needs: Sequence[Sequence[str]]) -> str:
        """The flags still needed, in words; empty if all are given."""
        missing = [" or ".join(f"--{name}" for name in names) for names in needs if not self.given(names)]
        return " and ".join(missing)


@dataclass
class Instruments:
    """Opened where first used; each says what it is in ``labels``, by metric or feature.

    Attributes:
        spec: the data set.
        settings: see `EvaluationSettings`.
        home: the real data's folder, if there is one.
        labels: what was used, for reports.
    """

    spec: DatasetSpec
    settings: EvaluationSettings
    home: Path | None = None
    labels: dict[str, str] = field(default_factory=dict)
    _stores: dict[Path | None, LatentStore] = field(default_factory=dict)

    def on(self, device: str) -> Instruments:
        """These, if they are on ``device``; else ones that are opened there."""
        if device == self.settings.device:
            return self
        return Instruments(self.spec, replace(self.settings, device=device), self.home)

    def __reduce__(self) -> tuple[Any, ...]:
        """They travel to other processes unopened."""
        return Instruments, (self.spec, self.settings, self.home)

    def folders(self, group: str) -> list[Path]:
        """What another process needs to see to compute the features of a set."""
        s = self.settings
        files = (s.classifier, s.i3d_weights, s.inception_weights, s.radimagenet_weights, s.amt_weights)
        found = [Path(file).parent for file in files if file]
        return [
            *found,
            *([self.home] if self.home else []),
            *(self._store_of(group).folders() if s.vae_path else []),
        ]

    @cached_property
    def _loaded(self) -> tuple[Any, dict[str, Any]]:
        from augment.classifiers import load

        s = self.settings
        if s.classifier is None:
            raise UserError("--classifier is missing", "Give a checkpoint of train_classifier.py")
        return load(
            s.classifier,
            s.device,
            name=s.classifier_name,
            num_classes=len(self.spec.classes),
            input_size=s.input_size,
            num_frames=self.spec.required_clip_num,
        )

    @property
    def classifier(self) -> Any:
        """The classifier trained on real clips."""
        return self._loaded[0]

    @property
    def classifier_info(self) -> dict[str, Any]:
        """What its file says about it."""
        return self._loaded[1]

    def classify(self, clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(logits, what the last layer sees) of clips, in one pass."""
        from augment.classifiers import score_and_features

        self.labels["class_control"] = f"{self.classifier_info['name']} ({self.settings.classifier})"
        return score_and_features(self.classifier, clips, self.settings.device, len(clips))

    @cached_property
    def clip_network(self) -> Extractor | None:
        """I3D, if its file was given; else the classifier's features serve."""
        s = self.settings
        network = networks.i3d(s.i3d_weights, s.i3d_sha256, s.device) if s.i3d_weights else None
        name = network.label if network else f"features of the {self.classifier_info['name']} classifier"
        self.labels["fvd"] = self.labels["prdc"] = name
        return network

    @cached_property
    def frame_network(self) -> Extractor:
        """Inception, if its file was given; else the classifier on still frames."""
        s = self.settings
        if s.inception_weights:
            network = networks.inception(s.inception_weights, s.inception_sha256, s.device)
        else:
            network = networks.classifier_stills(self.classifier, s.device, self.classifier_info["name"])
        self.labels["fid"] = network.label
        return network

    @cached_property
    def radimagenet(self) -> Extractor:
        """RadImageNet's ResNet50."""
        network = networks.radimagenet(self.settings.radimagenet_weights or "", self.settings.device)
        self.labels["fid_radimagenet"] = network.label
        return network

    @cached_property
    def radiomics(self) -> Extractor:
        """FRD's features."""
        network = networks.radiomics()
        self.labels["frd"] = network.label
        return network

    @cached_property
    def smoothness(self) -> Callable[[Path, np.ndarray], float | None]:
        """(path, frames) -> percent."""
        name = self.settings.interpolator
        self.labels["smoothness"] = INTERPOLATORS[name]
        if name == "amt":
            scorer = smoothness.amt_scorer(self.settings.amt_weights or "amt-s.pth", self.settings.device)
            return lambda path, frames: scorer(path)
        interpolate = smoothness.INTERPOLATORS[name]
        return lambda path, frames: smoothness.smoothness(frames, interpolate)

    @cached_property
    def motion_settings(self) -> dict[str, Any]:
        """How the conditions' motion fields were encoded, so that synthetic clips' are extracted alike."""
        return field_options(noted_settings(self.home / self.spec.motion_dir) if self.home else {})

    def latent_store(self, group: str) -> LatentStore:
        """The store of a set's latents, kept where `EvaluationSettings.latents_dir` says."""
        self.labels["vae_seq"] = f"the VAE in {self.settings.vae_path}, as published"
        return self._store_of(group)

    def _store_of(self, group: str) -> LatentStore:
        s = self.settings
        folder: Path | None = None
        if s.latents_dir:
            folder = Path(s.latents_dir)
        elif group != "synthetic":
            folder = self.home / self.spec.clips_dir if self.home else None
        elif len(s.synthetic) == 1:
            folder = Path(s.synthetic[0])
        if folder not in self._stores:
            self._stores[folder] = self._vae_store.for_folder(folder)
        return self._stores[folder]

    @cached_property
    def _vae_store(self) -> LatentStore:
        from augment.quality.latent_store import open_store

        s = self.settings
        return open_store(s.vae_path or "", None, LatentSettings(), device=s.device, batch_size=s.batch_size)
