"""The SAM image encoder written plainly from its published description, on segment-anything's own weight names."""

from __future__ import annotations

import torch
import torch.nn.functional as F

WIDTH, HEADS, WINDOW, GRID = 32, 2, 14, 64


def random_weights(
    seed: int = 0, global_blocks: tuple[int, ...] = (1,), depth: int = 2
) -> dict[str, torch.Tensor]:
    """Weights of a small encoder under the names of ``medsam_vit_b.pth``, with other parts of SAM beside them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=0.2):
        return torch.randn(shape, generator=generator) * scale

    state = {
        "pos_embed": draw(1, GRID, GRID, WIDTH),
        "patch_embed.proj.weight": draw(WIDTH, 3, 16, 16, scale=0.05),
        "patch_embed.proj.bias": draw(WIDTH),
        "neck.0.weight": draw(256, WIDTH, 1, 1),
        "neck.2.weight": draw(256, 256, 3, 3, scale=0.03),
    }
    for norm in ("neck.1", "neck.3"):
        state |= {f"{norm}.weight": 1 + draw(256), f"{norm}.bias": draw(256)}
    for i in range(depth):
        reach = 2 * (GRID if i in global_blocks else WINDOW) - 1
        block = {
            "norm1.weight": 1 + draw(WIDTH),
            "norm1.bias": draw(WIDTH),
            "norm2.weight": 1 + draw(WIDTH),
            "norm2.bias": draw(WIDTH),
            "attn.qkv.weight": draw(3 * WIDTH, WIDTH),
            "attn.qkv.bias": draw(3 * WIDTH),
            "attn.proj.weight": draw(WIDTH, WIDTH),
            "attn.proj.bias": draw(WIDTH),
            "attn.rel_pos_h": draw(reach, WIDTH // HEADS),
            "attn.rel_pos_w": draw(reach, WIDTH // HEADS),
            "mlp.lin1.weight": draw(2 * WIDTH, WIDTH),
            "mlp.lin1.bias": draw(2 * WIDTH),
            "mlp.lin2.weight": draw(WIDTH, 2 * WIDTH),
            "mlp.lin2.bias": draw(WIDTH),
        }
        state |= {f"blocks.{i}.{name}": value for name, value in block.items()}
    state = {f"image_encoder.{name}": value for name, value in state.items()}
    return state | {
        "mask_decoder.iou_token.weight": draw(1, 256),
        "prompt_encoder.not_a_point_embed.weight": draw(1, 256),
    }


def _attention(x, state):
    """x (N, S, S, C): every place attends to its whole square, with a bias for each distance in rows and columns."""
    count, side = x.shape[:2]
    qkv = F.linear(x.reshape(count, side * side, WIDTH), state["attn.qkv.weight"], state["attn.qkv.bias"])
    q, k, v = qkv.reshape(count, side * side, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # (N, heads, S*S, D)
    distance = torch.arange(side)[:, None] - torch.arange(side) + side - 1
    grid = q.reshape(count, HEADS, side, side, -1)
    by_row = torch.einsum("nhyxd,ykd->nhyxk", grid, state["attn.rel_pos_h"][distance])
    by_column = torch.einsum("nhyxd,xkd->nhyxk", grid, state["attn.rel_pos_w"][distance])
    bias = (by_row[..., :, None] + by_column[..., None, :]).reshape(count, HEADS, side * side, side * side)
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).reshape(count, side, side, WIDTH)
    return F.linear(mixed, state["attn.proj.weight"], state["attn.proj.bias"])


def _in_windows(x, state):
    """`_attention` inside squares of 14 x 14, the last ones filled up with zeros."""
    size = -(-GRID // WINDOW) * WINDOW
    padded = F.pad(x, (0, 0, 0, size - GRID, 0, size - GRID))
    out = torch.zeros_like(padded)
    for y in range(0, size, WINDOW):
        for x_ in range(0, size, WINDOW):
            square = (slice(None), slice(y, y + WINDOW), slice(x_, x_ + WINDOW))
            out[square] = _attention(padded[square], state)
    return out[:, :GRID, :GRID]


@torch.no_grad()
def plain_encoder(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """(B, 3, 1024, 1024) to (B, 256, 64, 64)."""
    state = {k.removeprefix("image_encoder."): v for k, v in state.items() if k.startswith("image_encoder.")}
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = x.permute(0, 2, 3, 1) + state["pos_embed"]
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))):
        part = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items() if k.startswith(f"blocks.{i}.")}
        attend = _attention if len(part["attn.rel_pos_h"]) == 2 * GRID - 1 else _in_windows
        x = x + attend(F.layer_norm(x, (WIDTH,), part["norm1.weight"], part["norm1.bias"], 1e-6), part)
        y = F.layer_norm(x, (WIDTH,), part["norm2.weight"], part["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, part["mlp.lin1.weight"], part["mlp.lin1.bias"]))
        x = x + F.linear(y, part["mlp.lin2.weight"], part["mlp.lin2.bias"])
    x = x.permute(0, 3, 1, 2)
    for conv, norm, padding in (("neck.0", "neck.1", 0), ("neck.2", "neck.3", 1)):
        x = F.conv2d(x, state[f"{conv}.weight"], padding=padding)
        deviation = (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        x = (x - x.mean(1, keepdim=True)) / deviation
        x = x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]
    return x
