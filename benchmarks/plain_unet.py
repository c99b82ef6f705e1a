"""The sequence UNet written down plainly: the reference that `benchmarks/unet.py` measures against.

Exactly the arithmetic of docs/method.md, section 5, on the weights of our model, the way a reader of the paper would
write it: every softmax spelled out, conditions repeated for every frame, keys and values computed anew at each call,
motion encoded at each call, trajectories gathered for query, key and value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cond2video.models import UNet3DMultiConditionModel


def softmax_attention(attention: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v for projected (B, N, C), (B, M, C), (B, M, C), heads merged, not yet projected."""

    def split(x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        x = x.reshape(batch, length, attention.heads, channels // attention.heads)
        return x.permute(0, 2, 1, 3).reshape(batch * attention.heads, length, -1)

    q, k, v = split(q), split(k), split(v)
    scores = torch.bmm(q, k.transpose(1, 2)) * q.shape[-1] ** -0.5
    out = torch.bmm(scores.softmax(-1), v)
    out = out.reshape(-1, attention.heads, *out.shape[1:]).permute(0, 2, 1, 3)
    return out.reshape(out.shape[0], out.shape[1], -1)


def plain_attention(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """``x`` (B, N, C) attends to ``context`` (B, M, D)."""
    y = softmax_attention(attention, attention.to_q(x), attention.to_k(context), attention.to_v(context))
    return attention.to_out[0](y)


class PlainUNet:
    """Call it like the model.

    Args:
        model: whose weights are used.
    """

    def __init__(self, model: UNet3DMultiConditionModel) -> None:
        self.model = model

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        image_cond: Tensor,
        motion_cond: Tensor,
        class_labels: Tensor,
        traj: Tensor,
        traj_mask: Tensor,
    ) -> Tensor:
        """(B, 4, F, H, W) -> (B, 4, F, H, W); the arguments are those of the model's ``forward``."""
        model = self.model
        self.batch, _, self.frames = sample.shape[:3]
        self.traj, self.mask = traj.long(), traj_mask
        self.text = self._each_frame(encoder_hidden_states)
        self.image = self._each_frame(model.image_proj(image_cond))
        time = model.time_embedding(model.time_proj(timestep).to(sample.dtype))
        self.time = self._each_frame(time + model.class_embedding(class_labels))

        x = model.conv_in(sample.transpose(1, 2).flatten(0, 1))  # (B*F, C, H, W)
        motion = model.motion_encoder(motion_cond.transpose(1, 2).flatten(0, 1))
        motion = motion.unflatten(0, (self.batch, -1))
        motion = torch.cat([torch.zeros_like(motion[:, :1]), motion], 1).flatten(0, 1)
        x = model.insert_unit(torch.cat([x, motion], 1))
        skips = [x]
        for level in model.down_blocks:
            for number, resnet in enumerate(level.resnets):
                x = self._resnet(resnet, x)
                x = self._transformer(level.attentions[number], x) if hasattr(level, "attentions") else x
                skips.append(x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0].conv(x)
                skips.append(x)
        x = self._resnet(model.mid_block.resnets[0], x)
        x = self._transformer(model.mid_block.attentions[0], x)
        x = self._resnet(model.mid_block.resnets[1], x)
        for level in model.up_blocks:
            for number, resnet in enumerate(level.resnets):
                x = self._resnet(resnet, torch.cat([x, skips.pop()], 1))
                x = self._transformer(level.attentions[number], x) if hasattr(level, "attentions") else x
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0].conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = model.conv_out(F.silu(self._norm_over_frames(model.conv_norm_out, x)))
        return x.unflatten(0, (self.batch, -1)).transpose(1, 2)

    def _each_frame(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.frames, dim=0)

    def _norm_over_frames(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        x = x.unflatten(0, (self.batch, -1)).transpose(1, 2).contiguous()  # (B, C, F, H, W)
        x = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return x.transpose(1, 2).flatten(0, 1).contiguous()

    def _resnet(self, block: nn.Module, x: Tensor) -> Tensor:
        y = block.conv1(F.silu(self._norm_over_frames(block.norm1, x)))
        y = y + block.time_emb_proj(F.silu(self.time))[:, :, None, None]
        y = block.conv2(F.silu(self._norm_over_frames(block.norm2, y)))
        return y + (x if block.conv_shortcut is None else block.conv_shortcut(x))

    def _transformer(self, transformer: nn.Module, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y = transformer.proj_in(transformer.norm(x)).flatten(2).transpose(1, 2).contiguous()  # (B*F, N, C)
        for block in transformer.transformer_blocks:
            y = self._block(block, y, (height, width))
        y = y.transpose(1, 2).unflatten(2, (height, width)).contiguous()
        return x + transformer.proj_out(y)

    def _block(self, block: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self._sequential_augmentation(block.attn1, block.norm1(x), size)
        modal = block.multi_modal_attn
        text = plain_attention(modal.attn2, modal.norm2(x), self.text)
        x = x + text + plain_attention(modal.attn_condImage, modal.norm_condImage(x), self.image)
        x = x + block.ff(block.norm3(x))
        rows = x.unflatten(0, (self.batch, -1)).transpose(1, 2).flatten(0, 1)  # (B*N, F, C)
        rows = block.norm_temp(rows)
        rows = plain_attention(block.attn_temp, rows, rows)
        return x + rows.unflatten(0, (self.batch, -1)).transpose(1, 2).flatten(0, 1)

    def _sequential_augmentation(self, attention: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
        q, k, v = attention.to_q(x), attention.to_k(x), attention.to_v(x)
        former = [max(frame - 1, 0) for frame in range(self.frames)]

        def key_frames(x: Tensor) -> Tensor:
            x = x.unflatten(0, (self.batch, -1))
            return torch.cat([x[:, [0] * self.frames], x[:, former]], dim=2).flatten(0, 1)

        y = softmax_attention(attention, q, key_frames(k), key_frames(v))
        side = round((self.traj.shape[1] / self.frames) ** 0.5)
        if size == (side, side):
            y = self._trajectory_attention(y, attention.heads, side)
        return attention.to_out[0](y)

    def _trajectory_attention(self, y: Tensor, heads: int, side: int) -> Tensor:
        shape = y.shape
        y = y.unflatten(0, (self.batch, -1)).flatten(1, 2).unflatten(-1, (heads, -1))  # (B, P, heads, D)
        frame, row, column = self.traj.unbind(-1)  # (B, P, L)
        index = (frame * side + row) * side + column
        sample = torch.arange(self.batch, device=y.device)[:, None, None]
        keys, values = (y[sample, index].transpose(2, 3) for _ in range(2))  # (B, P, heads, L, D)
        scores = (y.unsqueeze(3) @ keys.transpose(3, 4)) * y.shape[-1] ** -0.5  # (B, P, heads, 1, L)
        scores = scores.masked_fill(~self.mask[:, :, None, None], float("-inf"))
        return (scores.softmax(-1) @ values).squeeze(3).reshape(shape)
