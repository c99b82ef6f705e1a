"""The text encoder: CLIP's, from a Stable Diffusion-like folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ctrlgenaug.errors import UserError


def load_text(folder: str | Path) -> tuple[Any, nn.Module]:
    """Tokenizer and text encoder from ``tokenizer/`` and ``text_encoder/`` in ``folder``.

    Raises:
        UserError: one of them is missing or damaged.
    """
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return (
            CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer"),
            CLIPTextModel.from_pretrained(Path(folder) / "text_encoder"),
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"holds no usable tokenizer/ and text_encoder/ ({reason})",
            "Give Stable Diffusion v1-4's folder, or a folder that this project exported",
            folder,
        ) from None
