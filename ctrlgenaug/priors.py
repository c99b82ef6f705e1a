"""Step (c): image priors, the MedSAM (ViT-B) image encoder's view of a frame, (256, 64, 64) (method, section 4)."""

from __future__ import annotations

import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from tqdm import tqdm

from ctrlgenaug import steps
from ctrlgenaug.datasets import IMAGE_SIZE, SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import exclusive, fingerprint, load_npy, read_json, save_npy, write_json
from ctrlgenaug.preprocessing.png import read_png

PRIOR_SHAPE = (256, 64, 64)
ENCODER_SIZE = 1024  # pixels, what the encoder looks at
WEIGHTS_FILE = "weights.json"
WHERE_WEIGHTS = (
    "Get medsam_vit_b.pth from the MedSAM project, or its Hugging Face conversion (a folder with config.json)"
)


# --- the encoder --------------------------------------------------------------------------------------------------


@functools.cache
def _enlarging_matrix() -> torch.Tensor:
    """(1024, 256) float64: cubic spline interpolation along one axis, as scikit-image's ``resize(order=3)`` does it.

    The spline is linear and separable, so the resize is two products with this matrix. Anti-aliasing has no effect
    where a picture is enlarged.
    """
    enlarge = functools.partial(
        scipy.ndimage.zoom, zoom=(ENCODER_SIZE / IMAGE_SIZE, 1), order=3, mode="mirror", grid_mode=True
    )
    return torch.from_numpy(enlarge(np.eye(IMAGE_SIZE)))


def prepare(frames: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """MedSAM's preparation: cubic resize to 1024 x 1024 in uint8, each frame min-max scaled, grey repeated.

    Args:
        frames: (B, 256, 256) uint8.
        device: where to compute.

    Returns:
        (B, 3, 1024, 1024) float32 in [0, 1].
    """
    matrix = _enlarging_matrix().to(device)
    grey = torch.from_numpy(np.ascontiguousarray(frames)).to(device, torch.float64)
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    large = (matrix @ grey @ matrix.T).clamp(
        low, high
    )  # (B, 1024, 1024); splines overshoot, the resize does not
    large = (
        (large + 1e-6).floor().float()
    )  # to uint8 levels, without losing a level to rounding in flat regions
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return ((large - low) / (high - low).clamp(min=1e-8))[:, None].expand(-1, 3, -1, -1)


def _from_segment_anything(state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    """A transformers encoder from the original key names; its sizes are read off the weights."""
    from transformers import SamVisionConfig, SamVisionModel

    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {
        key.removeprefix("image_encoder."): value
        for key, value in state.items()
        if key.startswith(("image_encoder.", "patch_embed", "pos_embed", "blocks.", "neck."))
    }
    if "pos_embed" not in state or "patch_embed.proj.weight" not in state:
        raise UserError("holds no SAM image encoder (no patch_embed, pos_embed)", WHERE_WEIGHTS, path)
    width, patch = state["patch_embed.proj.weight"].shape[0], state["patch_embed.proj.weight"].shape[-1]
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    reach = [state[f"blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]  # (2 * window - 1, head width)
    windows = [(size + 1) // 2 for size, _ in reach]
    config = SamVisionConfig(
        hidden_size=width,
        output_channels=state["neck.0.weight"].shape[0],
        num_hidden_layers=depth,
        num_attention_heads=width // reach[0][1],
        mlp_dim=state["blocks.0.mlp.lin1.weight"].shape[0],
        patch_size=patch,
        image_size=state["pos_embed"].shape[1] * patch,
        window_size=min(windows),
        global_attn_indexes=[i for i, size in enumerate(windows) if size > min(windows)],
    )
    names = [
        ("patch_embed.proj.", "patch_embed.projection."),
        ("blocks.", "layers."),
        (".norm1.", ".layer_norm1."),
        (".norm2.", ".layer_norm2."),
        ("neck.0.", "neck.conv1."),
        ("neck.1.", "neck.layer_norm1."),
        ("neck.2.", "neck.conv2."),
        ("neck.3.", "neck.layer_norm2."),
    ]

    def renamed(key: str) -> str:
        for old, new in names:
            key = key.replace(old, new)
        return f"vision_encoder.{key}"

    with torch.device("meta"):
        model = SamVisionModel(config)
    try:
        model.load_state_dict({renamed(key): value.float() for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"does not fit a SAM image encoder ({reason})", WHERE_WEIGHTS, path) from None
    return model


def weight_files(path: str | Path) -> list[Path]:
    """The files that hold an encoder's weights, for its fingerprint."""
    path = Path(path)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".bin"))
    return [path]


def load_encoder(path: str | Path) -> torch.nn.Module:
    """The MedSAM image encoder, in eval mode: (B, 3, 1024, 1024) in [0, 1] to (B, 256, 64, 64).

    Args:
        path: ``medsam_vit_b.pth`` (segment-anything key names), or a Hugging Face folder.

    Raises:
        UserError: missing, unsafe or unfitting weights.
    """
    path = Path(path)
    if not path.exists():
        raise UserError("does not exist", WHERE_WEIGHTS, path)
    if path.is_dir():
        from transformers import SamVisionModel

        if not (path / "config.json").is_file() or not weight_files(path):
            raise UserError("is no SAM folder (config.json or weights missing)", WHERE_WEIGHTS, path)
        try:
            model = SamVisionModel.from_pretrained(path, local_files_only=True, weights_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot be loaded ({steps.describe(error)})", WHERE_WEIGHTS, path) from None
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises many kinds for a damaged or unsafe file
            raise UserError(
                f"cannot be loaded safely ({steps.describe(error)})", WHERE_WEIGHTS, path
            ) from None
        if not isinstance(state, dict):
            raise UserError("holds no weights by name", WHERE_WEIGHTS, path)
        model = _from_segment_anything(state.get("model", state), path)
    return model.float().eval().requires_grad_(False)


@torch.inference_mode()
def encode(model: torch.nn.Module, frames: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
    """Image priors (B, 256, 64, 64) float32 of frames (B, 256, 256) uint8."""
    priors = model(prepare(frames, device)).last_hidden_state
    if tuple(priors.shape[1:]) != PRIOR_SHAPE:
        raise UserError(
            f"the encoder's output is {tuple(priors.shape[1:])}, expected {PRIOR_SHAPE}", WHERE_WEIGHTS
        )
    return priors.float().cpu().numpy()


# --- the step -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How priors are made.

    Attributes:
        checkpoint: the encoder's weights.
        dtype: stored precision, ``float32`` or ``float16``.
        batch_size: frames at once.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        first_frames_only: only the clips' first frames, enough to train the sequence model and to generate.
        split: ``train``, ``test`` or ``both``.
    """

    checkpoint: str
    dtype: str = "float32"
    batch_size: int = 4
    device: str = "auto"
    first_frames_only: bool = False
    split: str = "both"


def wanted_frames(data_dir: Path, spec: DatasetSpec, settings: Settings) -> dict[str, Path]:
    """Frame files by prior name, in metadata order."""
    found: dict[str, Path] = {}
    splits = SPLITS if settings.split == "both" else (settings.split,)
    for split in splits:
        if settings.split == "both" and not spec.metadata_path(data_dir, split).is_file():
            continue
        rows = list(spec.rows(data_dir, split))
        if settings.first_frames_only:
            starts = {
                spec.first_frame(clip.name) for clip in spec.rows(data_dir.parent / spec.clips_dir, split)
            }
            rows = [row for row in rows if row.name in starts]
        found |= {row.name: data_dir / row.file_name for row in rows}
    if not found:
        raise UserError("names no frame", "Run the sampling step first", data_dir)
    return found


def _claim(folder: Path, settings: Settings) -> None:
    """Notes whose priors ``folder`` holds; a `UserError` if they are another encoder's or of another precision."""
    mark = fingerprint(weight_files(settings.checkpoint))
    ours: dict[str, Any] = {
        "encoder": Path(settings.checkpoint).name,
        "fingerprint": mark,
        "dtype": settings.dtype,
    }
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        write_json(path, ours)
        return
    theirs = read_json(path)
    for key in ("fingerprint", "dtype"):
        if theirs.get(key) != ours[key]:
            raise UserError(
                f"holds priors of another {'encoder' if key == 'fingerprint' else 'precision'} "
                f"({theirs.get('encoder')}, {theirs.get(key)}; now {ours['encoder']}, {ours[key]})",
                "Move the folder away, or use the same settings",
                folder,
            )


def _is_whole(path: Path, dtype: str) -> bool:
    size = int(np.prod(PRIOR_SHAPE)) * np.dtype(dtype).itemsize
    return path.is_file() and path.stat().st_size > size


def verify_priors(data_dir: str | Path, spec: DatasetSpec, settings: Settings) -> steps.Outcome:
    """Reads every wanted prior and checks shape and finiteness; failures are in the outcome."""
    data_dir = Path(data_dir)
    outcome = steps.Outcome()
    home = data_dir.parent
    for name in tqdm(wanted_frames(data_dir, spec, settings), desc="verifying", unit="prior"):
        try:
            prior = load_npy(
                spec.prior_path(home, name), PRIOR_SHAPE, remedy="Delete it and run this step again"
            )
            if not np.isfinite(prior).all():
                raise UserError(
                    "holds NaN or infinity", "Delete it and run this step again", spec.prior_path(home, name)
                )
            outcome.counts["whole"] += 1
        except UserError as error:
            outcome.failures[name] = str(error)
            tqdm.write(f"bad: {error}", file=sys.stderr)
    return outcome


def extract_priors(
    data_dir: str | Path, spec: DatasetSpec, settings: Settings, *, strict: bool = False
) -> tuple[steps.Outcome, Path]:
    """Encodes every sampled frame, or the clips' first ones; what is there already stays.

    Returns:
        the outcome (``counts``: made, kept) and the folder of the priors.
    """
    data_dir = Path(data_dir)
    home = data_dir.parent
    frames = wanted_frames(data_dir, spec, settings)
    outcome = steps.Outcome()
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = home / spec.priors_dir
    with exclusive(folder):
        _claim(folder, settings)
        targets = {name: spec.prior_path(home, name) for name in frames}
        todo = [name for name, target in targets.items() if not _is_whole(target, settings.dtype)]
        outcome.counts["kept"] = len(frames) - len(todo)
        if not todo:
            return outcome, folder
        model = load_encoder(settings.checkpoint).to(device)
        with (
            ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as writers,
            tqdm(total=len(todo), desc="image priors", unit="frame") as bar,
        ):
            pending = []
            for start in range(0, len(todo), settings.batch_size):
                names, batch = [], []
                for name in todo[start : start + settings.batch_size]:
                    try:
                        batch.append(read_png(frames[name]))
                        names.append(name)
                    except UserError as error:
                        if strict:
                            raise
                        outcome.failures[name] = str(error)
                        tqdm.write(f"skipped {name}: {error}", file=sys.stderr)
                if names:
                    priors = encode(model, np.stack(batch), device).astype(settings.dtype)
                    for (
                        done
                    ) in pending:  # at most one batch waits in memory, and a full disk is heard of at once
                        done.result()
                    pending = [
                        writers.submit(save_npy, targets[name], prior)
                        for name, prior in zip(names, priors, strict=True)
                    ]
                    outcome.counts["made"] += len(names)
                bar.update(len(todo[start : start + settings.batch_size]))
            for done in pending:
                done.result()
    return outcome, folder
