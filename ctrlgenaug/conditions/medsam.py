"""The MedSAM (ViT-B) image encoder: its preparation of a frame, and its weights in both formats (method, section 4)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch

from ctrlgenaug import tensor_files
from ctrlgenaug.conditions.clip import PRIOR_SHAPE
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.tensor_files import TRANSFORMERS

ENCODER_SIZE = 1024  # pixels, height and width of what the encoder looks at
REMEDY = (
    "Get medsam_vit_b.pth from the MedSAM project, or its Hugging Face conversion (a folder with config.json)"
)

# segment-anything's names -> transformers' names
RENAMED = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("blocks.", "layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
)


# --- preparation -----------------------------------------------------------------------------------------------------


@functools.cache
def _enlarging_matrix() -> torch.Tensor:
    """(1024, 256) float64: cubic spline interpolation along one axis, as scikit-image's ``resize(order=3)`` does it.

    The interpolation is linear and separable, so a resize is two products with this matrix. Anti-aliasing has no
    effect where a picture is enlarged.
    """
    zoom = (ENCODER_SIZE / IMAGE_SIZE, 1)
    identity = np.eye(IMAGE_SIZE)
    return torch.from_numpy(scipy.ndimage.zoom(identity, zoom, order=3, mode="mirror", grid_mode=True))


def prepare(frames: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """MedSAM's preparation: cubic resize to 1024 x 1024 in uint8, each frame min-max scaled, grey repeated.

    Nothing more: MedSAM does not subtract SAM's mean colour.

    Args:
        frames: (B, 256, 256) uint8.
        device: where to compute.

    Returns:
        (B, 3, 1024, 1024) float32 in [0, 1]; zeros for a frame of one grey value.
    """
    matrix = _enlarging_matrix().to(device)
    grey = torch.from_numpy(np.ascontiguousarray(frames)).to(device, torch.float64)
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    large = (matrix @ grey @ matrix.T).clamp(
        low, high
    )  # (B, 1024, 1024); a spline overshoots, the resize does not
    # Truncated to uint8's levels. The addend is far above rounding errors, which else cost flat regions a level.
    large = (large + 1e-6).floor().float()
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return ((large - low) / (high - low).clamp(min=1e-8))[:, None].expand(-1, 3, -1, -1)


# --- weights ---------------------------------------------------------------------------------------------------------


def weight_files(path: str | Path) -> list[Path]:
    """The files that hold an encoder's weights; a `UserError` if there are none."""
    path = Path(path)
    if not path.exists():
        raise UserError("does not exist", REMEDY, path)
    if not path.is_dir():
        return [path]
    files = tensor_files.weight_files(path, TRANSFORMERS)
    if not files or not (path / "config.json").is_file():
        raise UserError("is no SAM folder (config.json or weights missing)", REMEDY, path)
    return files


def load_encoder(path: str | Path) -> torch.nn.Module:
    """The MedSAM image encoder, float32, in eval mode: (B, 3, 1024, 1024) in [0, 1] to (B, 256, 64, 64).

    Args:
        path: ``medsam_vit_b.pth`` (segment-anything's names), or a Hugging Face folder (a SamModel or SamVisionModel).

    Raises:
        UserError: missing, damaged, unsafe or unfitting weights.
    """
    weight_files(path)
    path = Path(path)
    model = _from_folder(path) if path.is_dir() else _from_segment_anything(_read_state(path), path)
    config = model.config
    shape = (config.output_channels, *[config.image_size // config.patch_size] * 2)
    if config.image_size != ENCODER_SIZE or shape != PRIOR_SHAPE:
        raise UserError(
            f"maps {config.image_size} pixels to {shape}, expected {ENCODER_SIZE} to {PRIOR_SHAPE}",
            REMEDY,
            path,
        )
    damaged = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    if damaged:
        raise UserError(f"holds values that are not finite (in {damaged[0]})", REMEDY, path)
    return model.float().eval().requires_grad_(False)


def _from_folder(path: Path) -> torch.nn.Module:
    from transformers import SamVisionConfig, SamVisionModel

    config = tensor_files.read_config(path, "vision_config", REMEDY)
    weights = tensor_files.read_folder(path, TRANSFORMERS, REMEDY)
    encoder = {name: value for name, value in weights.items() if name.startswith("vision_encoder.")}
    try:
        vision_config = SamVisionConfig.from_dict(config)
        vision_config._attn_implementation = "sdpa"  # torch's own, whatever the file asks for
        model = SamVisionModel(vision_config)
        tensor_files.load_exactly(model, encoder)
    except Exception as error:  # a damaged config can raise nearly anything
        why = tensor_files.loading_reason(error)
        raise UserError(f"is no SAM image encoder ({why})", REMEDY, path) from None
    return model


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """The image encoder's weights of a segment-anything checkpoint; names without their ``image_encoder.``."""
    prefix = "image_encoder."
    found = {
        name.removeprefix(prefix): value
        for name, value in tensor_files.read_tensors(path, REMEDY).items()
        if name.startswith(prefix)
    }
    if not {"pos_embed", "patch_embed.proj.weight", "neck.0.weight"} <= found.keys():
        raise UserError("holds no SAM image encoder (image_encoder.pos_embed, ...)", REMEDY, path)
    return found


def _from_segment_anything(state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    """A transformers encoder from segment-anything's weights; its sizes are read off them."""
    from transformers import SamVisionConfig, SamVisionModel

    def renamed(key: str) -> str:
        for theirs, ours in RENAMED:
            key = key.replace(theirs, ours)
        return f"vision_encoder.{key}"

    try:
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        reach = [
            state[f"blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)
        ]  # (2 * window - 1, head width)
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
            global_attn_indexes=[i for i, window in enumerate(windows) if window > min(windows)],
        )
        with torch.device("meta"):
            model = SamVisionModel(config)
        model.load_state_dict({renamed(key): value.float() for key, value in state.items()}, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"does not fit a SAM image encoder ({reason})", REMEDY, path) from None
    return model


@torch.inference_mode()
def encode(model: torch.nn.Module, frames: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
    """Image priors (B, 256, 64, 64) float32 of frames (B, 256, 256) uint8; ``model`` is on ``device``."""
    return model(prepare(frames, device)).last_hidden_state.float().cpu().numpy()
