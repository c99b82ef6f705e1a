"""Attention that knows of frames: the sequential augmentation module and sequential attention.

The paper's sequential augmentation module (SAM) is key-frame attention followed by motion field attention; both replace
the self-attention of the image model's transformer blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from cond2img.models.attention import Attention, SelfAttention, TransformerBlock
from cond2img.models.conditioning import Conditioning, Trajectories


def key_frame_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Frame i attends to frame 0 and to frame max(i - 1, 0), concatenated (method, section 5).

    softmax(Q_i [K_0, K_{i-1}]^T / sqrt(D)) [V_0, V_{i-1}], per head.

    For frames 0 and 1 both are frame 0. Attending to something twice is attending to it once, so these two frames
    share one attention with half the keys; the result is the same.

    Args:
        q, k, v: (B, F, N, heads, D).

    Returns:
        (B, F, N, heads, D).
    """
    batch, frames, places, heads, _ = q.shape

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B', M, heads, D), each -> (B', M, heads, D)."""
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return out.transpose(1, 2)

    first = attend(q[:, :2].flatten(1, 2), k[:, 0], v[:, 0]).unflatten(1, (-1, places))
    if frames <= 2:
        return first

    def key_frames(x: Tensor) -> Tensor:
        """(B, F, N, heads, D) -> (B * (F - 2), 2N, heads, D)."""
        key = x[:, :1].expand(-1, frames - 2, -1, -1, -1)
        return torch.cat([key, x[:, 1:-1]], dim=2).flatten(0, 1)

    rest = attend(q[:, 2:].flatten(0, 1), key_frames(k), key_frames(v))
    return torch.cat([first, rest.unflatten(0, (batch, -1))], dim=1)


GATHERED_AT_ONCE = 1 << 25  # numbers, 128 MB in float32: what 32 frames gather would take gigabytes


def trajectory_attention(y: Tensor, trajectories: Trajectories) -> Tensor:
    """Motion field attention: each point attends to itself and to the other points of its trajectory.

    softmax(y_p Y^T / sqrt(D)) Y, per head, with Y the rows of y at the points of p's trajectory (method, section 5).

    ``y`` is query, key and value at once, so that one gather serves both. Without gradients, long clips are gathered
    some points at a time; the result is the same.

    Args:
        y: (B, P, heads, D), P = F * side * side points.
        trajectories: of the B samples.

    Returns:
        (B, P, heads, D).
    """
    batch, points, heads, dim = y.shape
    start = torch.arange(batch, device=y.device)[:, None, None] * points
    rows = y.reshape(batch * points, heads * dim)

    def attend(query: Tensor, index: Tensor, bias: Tensor) -> Tensor:
        """(B, p, heads, D), (B, p, L) and (B, p, 1, L) -> (B, p, heads, D)."""
        keys = rows.index_select(0, (index + start).flatten())  # (B * p * L, C)
        keys = keys.view(*index.shape, heads, dim)  # (B, p, L, heads, D)
        scores = (query.unsqueeze(2) * keys).sum(-1).transpose(2, 3) * dim**-0.5  # (B, p, heads, L)
        weights = (scores + bias).softmax(-1).transpose(2, 3)  # (B, p, L, heads)
        return (weights.unsqueeze(-1) * keys).sum(2)

    per_point = batch * trajectories.index.shape[-1] * heads * dim
    size = max(1, GATHERED_AT_ONCE // per_point)
    if torch.is_grad_enabled() or points <= size:
        return attend(y, trajectories.index, trajectories.bias)
    parts = zip(
        y.split(size, 1), trajectories.index.split(size, 1), trajectories.bias.split(size, 1), strict=True
    )
    return torch.cat([attend(*part) for part in parts], dim=1)


class SequentialAugmentation(SelfAttention):
    """SAM: key-frame attention, then, at the trajectories' resolution, motion field attention."""

    def forward(self, x: Tensor, size: tuple[int, int], conditions: Conditioning) -> Tensor:
        """(B*F, N, C) -> (B*F, N, C)."""

        def split(x: Tensor) -> Tensor:
            return x.view(conditions.batch, conditions.frames, x.shape[1], self.heads, -1)

        # fmt: off
        q, k, v = split(self.to_q(x)), split(self.to_k(x)), split(self.to_v(x))  # (B, F, N, heads, D)
        y = key_frame_attention(q, k, v)                                         # (B, F, N, heads, D)
        trajectories = conditions.trajectories
        if trajectories is not None and size == (trajectories.side, trajectories.side):
            y = trajectory_attention(y.flatten(1, 2), trajectories)              # (B, F*N, heads, D)
        return self.to_out[0](y.reshape(x.shape))                                # (B*F, N, C)
        # fmt: on


class SequenceTransformerBlock(TransformerBlock):
    """The image model's block with SAM for self-attention, followed by sequential attention."""

    self_attention = SequentialAugmentation

    def __init__(self, dim: int, heads: int, context_dim: int, with_image: bool) -> None:
        super().__init__(dim, heads, context_dim, with_image)
        self.norm_temp = nn.LayerNorm(dim)
        self.attn_temp = Attention(dim, heads)

    def forward(self, x: Tensor, size: tuple[int, int], conditions: Conditioning) -> Tensor:
        """(B*F, H*W, C) -> (B*F, H*W, C); ``size`` is (H, W)."""
        x = super().forward(x, size, conditions)
        # each place of a sample is a sequence of F tokens
        rows = x.unflatten(0, (conditions.batch, conditions.frames)).transpose(1, 2)  # (B, N, F, C)
        rows = self.norm_temp(rows)
        if conditions.frame_numbers is not None:
            waves = get_timestep_embedding(conditions.frame_numbers.flatten(), rows.shape[-1])  # (B*F, C)
            rows = rows + waves.to(rows.dtype).view(conditions.batch, 1, conditions.frames, -1)
        rows = rows.flatten(0, 1)
        y = self.attn_temp.attend(rows, self.attn_temp.keys_values(rows))
        return x + y.unflatten(0, (conditions.batch, -1)).transpose(1, 2).reshape(x.shape)
