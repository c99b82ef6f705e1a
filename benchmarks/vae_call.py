"""Times one training step of the VAE; run by `against_published.py` with either code on the Python path.

    python vae_call.py published|ours WEIGHTS plain|checkpointing THREADS SIDE CHANNELS [CODE]

Prints processor seconds and, as its last line, the loss. A step is forward and backward of one frame of SIDE x SIDE
pixels with the method's whole loss. WEIGHTS is a folder that `vae_seq_inputs.py` has made with the same CHANNELS, CODE
the published code's folder. VGG16 has random weights, the same on both sides: its arithmetic is the same whatever they
are. The published code takes the perceptual difference from another project, which took it from the package lpips; here
it comes from that package.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.models.vgg import cfgs, make_layers

POSTERIOR_SEED = 5
Step = Callable[[torch.Tensor], torch.Tensor]


def random_vgg() -> dict[str, torch.Tensor]:
    """VGG16's convolutions, ``NUMBER.weight`` and ``NUMBER.bias``."""
    torch.manual_seed(1)
    return make_layers(cfgs["D"], batch_norm=False).state_dict()


def published_step(weights: Path, channels: int, code: Path) -> Step:
    """Forward of the published VAE, which holds its loss; its file is meant to be copied into diffusers."""
    import lpips
    from published_on_cpu import old_spelling, stand_in

    def perceptual() -> torch.nn.Module:
        made = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        layers = {f"{number}.{kind}": part for number, kind, part in _layers(made.net)}
        for name, value in random_vgg().items():
            layers[name].data.copy_(value)
        return made.requires_grad_(False)

    stand_in("taming.modules.losses.vqperceptual", LPIPS=perceptual)
    stand_in("timm.models.layers", trunc_normal_=torch.nn.init.trunc_normal_)
    path = code / "cond2img/models/vae.py"
    spec = importlib.util.spec_from_file_location("diffusers.models.vae_published", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    from vae_seq_inputs import sizes

    model = module.AutoencoderKL(**sizes(channels))
    model.load_state_dict(old_spelling(torch.load(weights, weights_only=True)), strict=False)
    model.train()
    model.vae_loss.perceptual_loss.eval()  # no dropout, so that both losses can be compared

    def step(pixels: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(POSTERIOR_SEED)
        return model(pixels, sample_posterior=True, generator=generator)[1]

    return step


def _layers(network: torch.nn.Module) -> list[tuple[str, str, torch.nn.Parameter]]:
    """(number of the layer in VGG16, ``weight`` or ``bias``, parameter)."""
    return [(*name.split(".")[-2:], part) for name, part in network.named_parameters()]  # type: ignore[misc]


def our_step(weights: Path, checkpointing: bool) -> Step:
    """Forward of a training step of this project."""
    from cond2img.data import FrameBatch
    from cond2img.models import VAELoss, load_vae
    from cond2img.training.vae import VAEStep

    model = load_vae(weights.parent)
    if checkpointing:
        model.enable_gradient_checkpointing()
    with tempfile.TemporaryDirectory() as folder:
        vgg = Path(folder) / "vgg16.pth"
        torch.save({f"features.{name}": value for name, value in random_vgg().items()}, vgg)
        module = VAEStep(model, VAELoss(vgg))
    module.to(memory_format=torch.channels_last).train()

    def step(pixels: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(POSTERIOR_SEED)
        noise = torch.randn(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8, generator=generator)
        return module(FrameBatch(("",) * len(pixels), pixels, noise))[0]

    return step


def main() -> None:
    side, folder, what, threads, pixels_a_side = sys.argv[1:6]
    torch.set_num_threads(int(threads))
    weights = Path(folder) / "model" / "vae-pretrained" / "diffusion_pytorch_model.bin"
    if side == "published":
        step = published_step(weights, int(sys.argv[6]), Path(sys.argv[7]))
    else:
        step = our_step(weights, what == "checkpointing")
    torch.manual_seed(2)
    size = int(pixels_a_side)
    frame = torch.nn.functional.interpolate(torch.rand(1, 1, 16, 16), (size, size), mode="bicubic") * 2 - 1
    step(frame[..., :64, :64]).backward()  # the first call pays for what later ones reuse
    began = time.process_time()
    loss = step(frame)
    loss.backward()
    print(time.process_time() - began)
    print(loss.item())


if __name__ == "__main__":
    main()
