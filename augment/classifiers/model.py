"""An mmaction2 recogniser behind one plain call: standardised grey clips in, logits out."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augment.classifiers import zoo
from augment.classifiers.weights import read_weights
from ctrlgenaug.errors import UserError, in_one_line


class Classifier(nn.Module):
    """A recogniser of mmaction2 for one-channel clips.

    Its state dict is the recogniser's own (``backbone.``, ``neck.``, ``cls_head.``), so mmaction2 reads it too.

    Args:
        recogniser: built by mmaction2.
        input_size: side of the frames it is meant for, in pixels.
        num_frames: frames it is meant for.
        lr: learning rate to start with.
    """

    def __init__(
        self, recogniser: nn.Module, input_size: int, num_frames: int, lr: float = zoo.CONVOLUTIONAL
    ) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.input_size, self.num_frames, self.lr = input_size, num_frames, lr
        self._takes_frames = type(recogniser).__name__ == "Recognizer2D"
        self._head_only = False

    def _features(self, clips: Tensor) -> tuple[Any, dict[str, Any]]:
        # mmaction2 counts views of a clip in dimension 1: a 3-D recogniser gets one, a 2-D one gets the frames there
        views = clips.transpose(1, 2) if self._takes_frames else clips[:, None]
        return self.recogniser.extract_feat(views.contiguous())

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 1, F, H, W) float standardised -> logits (B, num_classes)."""
        features, rest = self._features(clips)
        return self.recogniser.cls_head(features, **rest)

    def logits_and_features(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, num_classes), and what the classifying layer sees of (B, 1, F, H, W): (B, C).

        Dropout is left out of what is seen in eval mode.
        """
        seen: list[Tensor] = []
        layers = [layer for layer in self.recogniser.cls_head.modules() if isinstance(layer, nn.Linear)]
        handle = layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self(clips)
        finally:
            handle.remove()
        return logits, seen[-1].flatten(1)

    def features(self, clips: Tensor) -> Tensor:
        """What the classifying layer sees: (B, 1, F, H, W) -> (B, C)."""
        return self.logits_and_features(clips)[1]

    def logits_for_training(self, clips: Tensor) -> list[tuple[float, Tensor]]:
        """(weight, logits) of every head that learns: the classifying one, and the pyramid's auxiliary one in TPN."""
        auxiliary = getattr(getattr(self.recogniser, "neck", None), "aux_head", None)
        if auxiliary is None:
            return [(1.0, self(clips))]
        maps = self.recogniser.backbone(clips)
        pyramid, _ = self.recogniser.neck(maps)
        return [
            (1.0, self.recogniser.cls_head(pyramid)),
            (float(auxiliary.loss_weight), auxiliary(maps[-2])),
        ]

    def learn_only_head(self, only: bool) -> None:
        """Whether all before the classifying layers stays as it is: a linear probe."""
        self._head_only = only
        for name, parameter in self.recogniser.named_parameters():
            parameter.requires_grad_(not only or name.startswith("cls_head."))

    def train(self, mode: bool = True) -> Classifier:
        """As ever; what a linear probe holds fixed keeps its batch statistics and drops nothing out."""
        super().train(mode)
        if mode and self._head_only:
            for name, part in self.recogniser.named_children():
                part.train(name == "cls_head")
        return self

    def weights(self) -> dict[str, Tensor]:
        """The state dict under the recogniser's own names."""
        return self.recogniser.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Loads `weights`, strictly; a `UserError` names what does not fit."""
        own = self.recogniser.state_dict()
        missing = [key for key in own if key not in weights]
        strange = [key for key in weights if key not in own]
        misfits = [key for key in own if key in weights and own[key].shape != weights[key].shape]
        if missing or strange or misfits:
            examples = "; ".join(
                f"{len(keys)} {what}, e.g. {keys[0]}"
                for what, keys in (("missing", missing), ("unknown", strange), ("of another shape", misfits))
                if keys
            )
            raise UserError(
                f"does not fit the classifier ({examples})", "Check --classifier and the number of classes"
            )
        self.recogniser.load_state_dict(weights)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """mmengine prints one line for each layer while it draws weights."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _registry() -> Any:
    """mmaction2's models by name; imported only where a model is really built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains about compiled operators that no recogniser needs
        import mmaction.models  # noqa: F401
        from mmaction.registry import MODELS
        from mmengine.registry import init_default_scope

    init_default_scope("mmaction")
    return MODELS


def build(
    name: str,
    num_classes: int,
    input_size: int = 256,
    pretrained: str | Path | None = None,
    *,
    num_frames: int = 8,
) -> Classifier:
    """Builds a classifier with fresh weights (drawn from torch's global generator).

    Args:
        name: one of `zoo.known()`, or the path of an mmaction2 config (.py), which is executed.
        num_classes: how many.
        input_size: side of the frames, in pixels.
        pretrained: a checkpoint to start from; its weights are used where names and shapes fit, three input channels
            are summed to one, position tables are resampled, and the rest is named on stderr.
        num_frames: frames of a clip.

    Raises:
        UserError: unknown name, a frame size that the classifier cannot take, an unreadable checkpoint.
    """
    if name.endswith(".py"):
        model, lr = _from_config(Path(name)), zoo.CONVOLUTIONAL
    else:
        recipe = zoo.recipe(name, input_size, num_frames)
        if recipe is None:
            near = difflib.get_close_matches(name, zoo.known(), n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UserError(
                f"{name!r} is not a known classifier",
                f"{hint}Known: {', '.join(zoo.known())}, or a config .py",
            )
        if input_size % recipe.multiple_of:
            raise UserError(
                f"{name} cannot take frames of {input_size} pixels",
                f"Use a multiple of {recipe.multiple_of}",
            )
        model, lr = recipe.model, recipe.lr
    model = {**model, "cls_head": {**model["cls_head"], "num_classes": num_classes}}
    neck = model.get("neck")
    if neck and neck.get("aux_head_cfg"):
        model["neck"] = {**neck, "aux_head_cfg": {**neck["aux_head_cfg"], "out_channels": num_classes}}

    registry = _registry()
    with _quiet():
        try:
            recogniser = registry.build(model)
            recogniser.init_weights()
        except (TypeError, KeyError, AssertionError) as error:
            if not name.endswith(".py"):
                raise
            raise UserError(f"is not a model that mmaction2 can build ({error})", "Mend it", name) from None
    _take_one_channel(recogniser)
    classifier = Classifier(recogniser, input_size, num_frames, lr)
    if pretrained is not None:
        _start_from(classifier, pretrained)
    return classifier


def _from_config(path: Path) -> dict[str, Any]:
    """The model of a user's mmaction2 config, changed to one channel, no downloads and no distributed norms."""
    if not path.is_file():
        raise UserError("does not exist", "Give the path of an mmaction2 config", path)
    from mmengine.config import Config

    _registry()  # a config may refer to it
    try:
        config = Config.fromfile(str(path))
        model = config.model.to_dict()
    except Exception as error:  # a config is a program: anything can go wrong in it
        line = in_one_line(error)
        raise UserError(f"is not a readable config with a model ({line})", "Mend it", path) from None
    _tidy(model)
    backbone = model["backbone"]
    _give_channel(backbone)
    for pathway in ("slow_pathway", "fast_pathway"):
        if pathway in backbone:
            backbone[pathway]["in_channels"] = 1
    return model


def _tidy(part: Any) -> None:
    if isinstance(part, dict):
        if part.get("type") == "SyncBN":
            part["type"] = "BN3d"  # the same weights; works without process groups
        if isinstance(part.get("pretrained"), str) and not Path(part["pretrained"]).is_file():
            part["pretrained"] = None
            if "clip_pretrained" in part:
                part["clip_pretrained"] = False
            if "pretrained2d" in part:
                part["pretrained2d"] = False
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        _tidy(value)


def _give_channel(backbone: dict[str, Any]) -> None:
    kind = _registry().get(backbone["type"])
    accepted: set[str] = set()
    for base in kind.__mro__ if inspect.isclass(kind) else ():
        accepted |= set(inspect.signature(vars(base).get("__init__", object.__init__)).parameters)
    if "in_channels" in accepted:
        backbone["in_channels"] = 1


def _take_one_channel(recogniser: nn.Module) -> None:
    """Where a backbone insists on three input channels, its first convolution is summed over them."""
    for module in list(recogniser.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d | nn.Conv3d) and child.in_channels == 3:
                settings = (child.kernel_size, child.stride, child.padding, child.dilation)
                single = type(child)(1, child.out_channels, *settings, bias=child.bias is not None)
                with torch.no_grad():
                    single.weight.copy_(child.weight.sum(1, keepdim=True))
                    if child.bias is not None:
                        single.bias.copy_(child.bias)
                setattr(module, child_name, single)


def _start_from(classifier: Classifier, path: str | Path) -> None:
    weights, _ = read_weights(path)
    own = classifier.weights()
    fitting = {}
    for key, wanted in own.items():
        found = weights.get(key)
        if found is None:
            continue
        if found.shape != wanted.shape and found.ndim == wanted.ndim and found.ndim >= 4:
            one = found.sum(1, keepdim=True) if found.shape[1] == 3 and wanted.shape[1] == 1 else found
            found = one
        elif found.shape != wanted.shape and "pos" in key and found.shape[-1] == wanted.shape[-1]:
            found = _resample_positions(found, wanted.shape)
        if found.shape == wanted.shape:
            fitting[key] = found
    if not fitting:
        raise UserError("has no weight that fits this classifier", "Check --classifier", path)
    fresh = [key for key in own if key not in fitting]
    classifier.recogniser.load_state_dict({**own, **fitting})
    if fresh:
        print(
            f"note: {path}: {len(fresh)} of {len(own)} weights start fresh, e.g. {fresh[0]}", file=sys.stderr
        )


def _resample_positions(table: Tensor, shape: torch.Size) -> Tensor:
    """A table of a class token and a square of places, (1 + n*n, C) with or without a leading 1, to another n."""
    old, new = table.shape[-2] - 1, shape[-2] - 1
    side, target = round(old**0.5), round(new**0.5)
    if side * side != old or target * target != new:
        return table
    flat = table.reshape(-1, table.shape[-1])
    places = flat[1:].T.reshape(1, -1, side, side)
    places = nn.functional.interpolate(places, size=(target, target), mode="bicubic", align_corners=False)
    return torch.cat([flat[:1], places.flatten(2)[0].T]).reshape(shape)
