"""Times one call of the full-size sequence UNet; run by `against_published.py` with either code on the Python path.

    python unet_call.py published|ours fp32|bf16 forward|training THREADS

Prints processor seconds as its last line. A forward is a guided one (2 samples of 8 frames); a training step is forward
and backward of one clip with gradient checkpointing and with the parts frozen that the sequence stage freezes.
"""

from __future__ import annotations

import sys
import time

import torch

SIZES = {
    "num_class_embeds": 3,
    "cross_attention_dim": 768,
    "self_attn_mode": "SAM",
    "motion_condition": True,
    "image_condition": True,
    "image_encode": "MedSAM",
    "insert_strategy": "concat",
    "condition_insert_block": [1, 1, 1],
}
TRAINED = (
    "attn1",
    "motion_encoder",
    "insert_unit",
    "multi_modal_attn.attn2.to_q",
    "multi_modal_attn.attn_condImage.to_q",
    "norm_temp",
    "attn_temp",
)


def make_inputs(batch: int) -> dict[str, torch.Tensor]:
    """Random inputs in the published signature; trajectories of points that stay for three frames."""
    axes = torch.arange(8), torch.arange(32), torch.arange(32)
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(8 * 32 * 32, 1, 3)
    mask = torch.zeros(batch, len(points), 8, dtype=torch.bool)
    mask[..., :3] = True
    return {
        "sample": torch.randn(batch, 4, 8, 32, 32),
        "timestep": torch.tensor([481] * batch),
        "encoder_hidden_states": torch.randn(batch, 77, 768),
        "image_cond": torch.randn(batch, 256, 64, 64),
        "motion_cond": torch.randint(-4, 5, (batch, 2, 7, 256, 256)).float(),
        "class_labels": torch.tensor([1] * batch),
        "traj": points.repeat(1, 8, 1)[None].repeat(batch, 1, 1, 1),
        "traj_mask": mask,
    }


def main() -> None:
    side, precision, what, threads = sys.argv[1:5]
    if side == "published":
        from cond2video.models.unet_3d_multi_modal_input import UNet3DMultiConditionModel
    else:
        from cond2video.models import UNet3DMultiConditionModel
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    training = what == "training"
    net = UNet3DMultiConditionModel(**SIZES)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(training and any(part in name for part in TRAINED))
    if training:
        net.train()
        net.enable_gradient_checkpointing()
    else:
        net.eval()
    inputs = make_inputs(1 if training else 2)

    def call() -> None:
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
            torch.set_grad_enabled(training),
        ):
            noise = net(**inputs).sample
        if training:
            noise.float().square().mean().backward()

    if not training:
        call()  # the first call pays for memory that later ones reuse
    began = time.process_time()
    call()
    print(time.process_time() - began)


if __name__ == "__main__":
    main()
