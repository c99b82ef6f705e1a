"""How samples are drawn from a model: everything about solver, guidance and precision that the frames depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cond2img.guidance import Guidance
from ctrlgenaug.errors import UserError

SOLVERS = ("ddim", "dpmsolver++", "unipc")
NOISES = ("shared", "own")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn. The defaults are the method's (section 7).

    Attributes:
        solver: one of `SOLVERS`; ``ddim`` with 200 steps is the method's, the others need 20 to 50.
        num_inference_steps: denoising steps.
        guidance: how strong, when, and whether away from the other classes.
        noise: ``shared``: all samples with the same seed start from the same noise, as published; ``own``: each sample
            from its own.
        dtype: one of `DTYPES`, of weights and activations. The sampler's own arithmetic is always float32.
        compiled: whether the UNet is compiled (seconds to minutes at the start, faster steps afterwards).

    Raises:
        UserError: a value is none of those possible.
    """

    solver: str = "ddim"
    num_inference_steps: int = 200
    guidance: Guidance = field(default_factory=Guidance)
    noise: str = "shared"
    dtype: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, known in (("solver", SOLVERS), ("noise", NOISES), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise UserError(f"there is no {name} {getattr(self, name)!r}", f"Choose {' or '.join(known)}")
        if self.num_inference_steps < 1:
            raise UserError(f"{self.num_inference_steps} denoising steps are too few", "Give at least 1")

    def settings(self) -> dict[str, Any]:
        """As ``settings.json`` and manifests hold it.

        An option that is off is None, so that folders made before there was such an option are equal to those made
        without it.
        """
        guidance = self.guidance
        return {
            "scheduler": self.solver,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": guidance.scale,
            "dtype": self.dtype,
            "guidance_interval": guidance.interval,
            "class_contrast": guidance.class_contrast or None,
            "noise": None if self.noise == "shared" else self.noise,
            "compiled": self.compiled or None,  # rounds differently
        }
