"""Times one call of the full-size sequence UNet; run by `against_published.py` with either code on the Python path.

    python unet_call.py published|ours fp32|bf16 forward|training|clip THREADS

Prints processor seconds as its last line. A forward is a guided one (2 samples of 8 frames); a training step is forward
and backward of one clip with gradient checkpointing and with the parts frozen that the sequence stage freezes. A clip
is 200 times a guided forward on the published side, neither conditions nor decoding counted; on ours it is a whole one
with the settings that docs/performance.md recommends for large folders, from conditions to frames.
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
    "condition_insert_block": [1, 1, 1],
}
CHOICES = {  # that the published model leaves open, and ours does not
    "image_condition": True,
    "image_encode": "MedSAM",
    "insert_strategy": "concat",
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


def ours_sampled(net: torch.nn.Module, dtype: torch.dtype) -> float:
    """Processor seconds of one clip: UniPC, 20 steps, guidance at the noisier half, deep features kept, decoded."""
    from cond2img.guidance import Guidance
    from cond2img.models import AutoencoderKL
    from cond2img.models.conditioning import number_points
    from cond2img.pipelines import make_scheduler
    from cond2video.pipelines import GenVideoPipeline
    from ctrlgenaug.conditions.clip import ClipConditionsBatch
    from ctrlgenaug.noise_schedule import NoiseSchedule

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    channels = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    vae = AutoencoderKL(in_channels=1, out_channels=1, **blocks, **channels).eval().to(dtype)
    pipeline = GenVideoPipeline(vae, net.to(dtype), make_scheduler("unipc", NoiseSchedule()))
    pipeline.set_progress_bar_config(disable=True)
    inputs = make_inputs(1)
    conditions = ClipConditionsBatch(
        inputs["class_labels"],
        ("",),
        inputs["image_cond"],
        inputs["motion_cond"].transpose(1, 2),
        number_points(inputs["traj"], inputs["traj_mask"], 8),
    )
    text = inputs["encoder_hidden_states"].to(dtype)
    began = time.process_time()
    pipeline.sample(
        conditions,
        (8, 256, 256),
        prompt_embeds=text,
        negative_prompt_embeds=text,
        num_inference_steps=20,
        guidance=Guidance(7.5, (500, 999)),
        cache_interval=2,
        generator=torch.Generator().manual_seed(0),
    )
    return time.process_time() - began


def main() -> None:
    side, precision, what, threads = sys.argv[1:5]
    if side == "published":
        from cond2video.models.unet_3d_multi_modal_input import UNet3DMultiConditionModel
    else:
        from cond2video.models import UNet3DMultiConditionModel
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    training = what == "training"
    net = UNet3DMultiConditionModel(**SIZES, **(CHOICES if side == "published" else {}))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(training and any(part in name for part in TRAINED))
    if training:
        net.train()
        net.enable_gradient_checkpointing()
    else:
        net.eval()
    if what == "clip" and side == "ours":
        print(ours_sampled(net, torch.bfloat16 if precision == "bf16" else torch.float32))
        return
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
    print((time.process_time() - began) * (200 if what == "clip" else 1))


if __name__ == "__main__":
    main()
