"""The text encoder: CLIP's, from a Stable Diffusion-like folder. Nothing is ever asked of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ctrlgenaug.errors import UserError
from ctrlgenaug.tensor_files import TRANSFORMERS, load_exactly, loading_reason, read_config, read_folder

TOKENIZER_FILES = ("vocab.json", "merges.txt")
REMEDY = "Copy {}/ from Stable Diffusion v1-4, or give a folder that this project exported"

# Names in the weights of a whole CLIP, or of older releases, that the text encoder does without.
_OTHER_PARTS = (
    "vision_model.",
    "visual_projection.",
    "text_projection.",
    "logit_scale",
    "embeddings.position_ids",
)


def load_text(folder: str | Path, width: int | None = None) -> tuple[Any, nn.Module]:
    """Tokenizer and text encoder from ``tokenizer/`` and ``text_encoder/`` in ``folder``.

    Args:
        folder: a model folder.
        width: numbers a token that the UNet reads, its ``cross_attention_dim``; None: any.

    Raises:
        UserError: one of them is missing, incomplete or damaged, or they or the UNet do not belong together.
    """
    tokenizer = load_tokenizer(Path(folder) / "tokenizer")
    encoder = load_text_encoder(Path(folder) / "text_encoder")
    known, needed = encoder.config.vocab_size, len(tokenizer)
    if known != needed:
        raise UserError(
            f"knows {needed} tokens, text_encoder/ beside it {known}",
            "Copy tokenizer/ and text_encoder/ from the same model",
            Path(folder) / "tokenizer",
        )
    if width not in (None, encoder.config.hidden_size):
        raise UserError(
            f"makes {encoder.config.hidden_size} numbers a token, the UNet reads {width}",
            "Copy text_encoder/ and tokenizer/ from the folder that the UNet came from",
            Path(folder) / "text_encoder",
        )
    return tokenizer, encoder


def load_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer; see `load_text`."""
    from transformers import CLIPTokenizer

    remedy = REMEDY.format("tokenizer")
    missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"lacks {' and '.join(missing)}", remedy, folder)
    try:
        # an absolute path cannot be taken for a model's name on a hub
        return CLIPTokenizer.from_pretrained(folder.resolve(), local_files_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"is no CLIP tokenizer ({loading_reason(error)})", remedy, folder) from None


def load_text_encoder(folder: Path) -> nn.Module:
    """CLIP's text encoder in eval mode, every weight from the folder; see `load_text`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    remedy = REMEDY.format("text_encoder")
    config = read_config(folder, "text_config", remedy)
    weights = _text_names(read_folder(folder, TRANSFORMERS, remedy))
    try:
        text_config = CLIPTextConfig.from_dict(config)
        text_config._attn_implementation = "sdpa"  # torch's own, whatever the file asks for
        model = CLIPTextModel(text_config)
        load_exactly(model, weights)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"is no CLIP text encoder ({loading_reason(error)})", remedy, folder) from None
    return model.eval()


def _text_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights, without the ``text_model.`` that older releases put in front."""
    weights = {name.removeprefix("text_model."): value for name, value in weights.items()}
    return {name: value for name, value in weights.items() if not name.startswith(_OTHER_PARTS)}
