"""Attention of the multimodal UNet: image tokens (B*F, N, C) attend to themselves, to text and to the image prior."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from cond2img.models.conditioning import Conditioning, KeysValues
from ctrlgenaug.conditions.origins import sample


class Attention(nn.Module):
    """Multi-head attention with the official parameter names (``to_q``, ``to_k``, ``to_v``, ``to_out.0``).

    Args:
        dim: C, channels of the queries and of the result.
        heads: number of heads; each has C / heads channels.
        context_dim: channels of what is attended to; None: C.
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads), a view."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Keys and values of ``context`` (B, M, D), each (B, heads, M, C / heads)."""
        return self.split(self.to_k(context)), self.split(self.to_v(context))

    def attend(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        """``x`` (B, N, C) attends to ``keys_values``; the result (B, N, C) is projected."""
        y = F.scaled_dot_product_attention(self.split(self.to_q(x)), *keys_values)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class SelfAttention(Attention):
    """Every place of a frame attends to every place of the same frame."""

    def forward(self, x: Tensor, size: tuple[int, int], conditions: Conditioning) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        return self.attend(x, self.keys_values(x))


class MultiModalAttention(nn.Module):
    """x + text attention(norm2(x)) + image attention(norm_condImage(x)), both from the same x (method, section 5).

    Text and prior belong to a sample, not to a frame: all F frames are queries of one attention, so that keys and
    values are never repeated frame by frame.
    """

    def __init__(self, dim: int, heads: int, context_dim: int, with_image: bool) -> None:
        super().__init__()
        self.slot = 0  # its place in Conditioning.cache; the UNet numbers its attentions
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim)
        if with_image:
            self.norm_condImage = nn.LayerNorm(dim)
            self.attn_condImage = Attention(dim, heads, context_dim)
        self.with_image = with_image

    def keys_values(self, conditions: Conditioning) -> tuple[KeysValues, KeysValues | None]:
        """Keys and values of text and, where there is a prior and a branch for it, image."""
        if conditions.cache is not None:
            return conditions.cache[self.slot]
        image = None
        if self.with_image and conditions.image is not None:
            image = self.attn_condImage.keys_values(conditions.image)
        return self.attn2.keys_values(conditions.text), image

    def forward(self, x: Tensor, size: tuple[int, int], conditions: Conditioning) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""
        shape = x.shape
        x = x.reshape(conditions.batch, -1, shape[-1])  # (B, F*N, C)
        text, image = self.keys_values(conditions)
        y = x + self.attn2.attend(self.norm2(x), text)
        if image is not None:
            seen = self.attn_condImage.attend(self.norm_condImage(x), image).reshape(shape)
            return y.reshape(shape) + _moved(seen, size, conditions)
        return y.reshape(shape)


def _moved(seen: Tensor, size: tuple[int, int], conditions: Conditioning) -> Tensor:
    """What was ``seen`` (B*F, N, C) of the image prior, at the places to which the motion field has taken it."""
    if conditions.origins is None:
        return seen
    maps = seen.unflatten(1, size).permute(0, 3, 1, 2)  # (B*F, C, H, W)
    return sample(maps, conditions.origins).permute(0, 2, 3, 1).flatten(1, 2)


class TransformerBlock(nn.Module):
    """Self-attention, multimodal attention, feed-forward; each with its norm in front and a residual around."""

    self_attention = SelfAttention

    def __init__(self, dim: int, heads: int, context_dim: int, with_image: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = self.self_attention(dim, heads)
        self.multi_modal_attn = MultiModalAttention(dim, heads, context_dim, with_image)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, activation_fn="geglu")

    def forward(self, x: Tensor, size: tuple[int, int], conditions: Conditioning) -> Tensor:
        """(B*F, H*W, C) -> (B*F, H*W, C); ``size`` is (H, W)."""
        x = x + self.attn1(self.norm1(x), size, conditions)
        x = self.multi_modal_attn(x, size, conditions)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Turns a feature map into tokens, runs a transformer block and adds the result to the map."""

    def __init__(self, block: TransformerBlock, dim: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)  # per frame, also in sequences
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, conditions: Conditioning) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H, W)."""
        height, width = x.shape[2:]
        tokens = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)  # (B*F, H*W, C)
        for block in self.transformer_blocks:
            tokens = block(tokens, (height, width), conditions)
        y = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return x + self.proj_out(y)
