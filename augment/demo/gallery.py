"""The gallery of docs/: the four kinds of data set, each with a patient's conditions and what comes of them.

``python -m augment.demo.gallery --out docs/images/gallery.png`` uses the miniature base model as it is, without classes
and without training on anything but what it was made of; the patients are new to it, and their view drifts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from augment.demo import encoder
from augment.demo.base.patients import KINDS, Example, draw_patient
from augment.demo.base.store import field_of, moved
from augment.demo.pictures import field_picture
from augment.demo.weights import BASE
from cond2img.guidance import Guidance
from cond2img.latent_codec import to_uint8
from cond2img.models import load_vae
from cond2img.models.text import load_text
from cond2img.pipelines import make_scheduler
from cond2video.config import FINETUNED
from cond2video.models import UNet3DMultiConditionModel
from cond2video.models.checkpoints import load_sequence_parts
from cond2video.pipelines import GenVideoPipeline
from ctrlgenaug import steps
from ctrlgenaug.arguments import positive_int, seed_number
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.conditions.trajectories import link
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.training.feature_picture import map_picture

MOVEMENT = 6  # pixels a frame at most
NOISE_CORRELATION = 0.5
GUIDANCE = Guidance(4, (500, 999))


class Gallery:
    """The miniature base model, to draw from.

    Args:
        num_inference_steps: UniPC steps.
    """

    def __init__(self, num_inference_steps: int) -> None:
        self.num_inference_steps = num_inference_steps
        unet = UNet3DMultiConditionModel.from_pretrained_2d(BASE, subfolder="unet")
        load_sequence_parts(unet, BASE / "sequence_parts", FINETUNED)
        scheduler = make_scheduler("unipc", NoiseSchedule.of_folder(BASE), "trailing")
        tokenizer, encoder = load_text(BASE)
        vae = load_vae(BASE / "vae").eval()
        self.pipeline = GenVideoPipeline(vae, unet.eval(), scheduler, encoder, tokenizer)
        self.pipeline.set_progress_bar_config(disable=True)

    def synthesise(
        self,
        example: Example,
        field: np.ndarray,
        prior: torch.Tensor,
        seed: int,
        guidance: Guidance = GUIDANCE,
    ) -> np.ndarray:
        """(F, 256, 256) uint8 from a text, a motion field (F-1, 2, 256, 256) and a prior (1, 256, 64, 64)."""
        lines = torch.as_tensor(link(field, 0))[None]
        conditions = ClipConditionsBatch(None, (example.text,), prior, torch.from_numpy(field)[None], lines)
        (frames,) = self.pipeline.sample(
            conditions,
            (field.shape[0] + 1, IMAGE_SIZE, IMAGE_SIZE),
            generator=torch.Generator().manual_seed(seed),
            num_inference_steps=self.num_inference_steps,
            guidance=guidance,
            noise_correlation=NOISE_CORRELATION,
        )
        return to_uint8(frames)

    def rows(self, kind: str, example: Example) -> list[tuple[str, np.ndarray]]:
        """The rows of one kind: real, conditions, two seeds, the movement turned round, no prior."""
        field = field_of(example.frames)
        prior = encoder.priors(example.frames[:1])
        described = f' "{example.text}"' if example.text else ""
        return [
            (f"{kind}: a drawn patient, never trained on{described}", example.frames),
            ("image prior of the first frame", map_picture(prior[0].numpy(), 256)[None]),
            ("motion field", field_picture(field)),
            ("synthetic from both, seed 0", self.synthesise(example, field, prior, 0)),
            ("synthetic from both, seed 1", self.synthesise(example, field, prior, 1)),
            ("seed 0, the motion field turned round", self.synthesise(example, -field, prior, 0)),
            ("without image prior", self.synthesise(example, field, torch.zeros_like(prior), 0)),
        ]


def main() -> int:
    """Draws the gallery."""
    parser = steps.parser(
        __doc__.splitlines()[0], "python -m augment.demo.gallery --out docs/images/gallery.png"
    )
    parser.add_argument("--out", required=True, help="the picture")
    parser.add_argument("--seed", type=seed_number, default=15, help="of the patients (default: %(default)s)")
    parser.add_argument("--num_inference_steps", type=positive_int, default=20, help="(default: %(default)s)")
    options = parser.parse_args()
    gallery = Gallery(options.num_inference_steps)
    rows = []
    for number, kind in enumerate(KINDS):
        example = draw_patient(options.seed, number)
        frames = moved(example.frames, options.seed, number, MOVEMENT)
        rows += gallery.rows(kind, replace(example, frames=frames))
    save_picture(Path(options.out), contact_sheet(rows))
    print(f"gallery of {len(KINDS)} kinds of data set: {options.out}")
    return 0


if __name__ == "__main__":
    steps.run(main)
