"""How samples are drawn from a model: everything about solver, guidance and precision that the frames depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cond2img.guidance import Guidance
from ctrlgenaug.errors import UserError

# diffusers' class and its fields, by name; ddim with these is the published one (method, section 7)
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
SPACINGS = ("leading", "trailing", "linspace")
NOISES = ("shared", "own")
BATCH_NORMS = ("running", "published")
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
        timestep_spacing: which timesteps are visited, see `cond2img.pipelines.solvers.make_scheduler`; None: as the
            model's schedule wants it, which is "leading" for the published one.
        batch_norm: ``running``: the image prior is normalised with the statistics that training collected;
            ``published``: with those of the two guidance branches, as the official scripts do.
        cache_interval: the UNet's deep features are computed at every such step and kept in between; 1: at each.
        dtype: one of `DTYPES`, of weights and activations. The sampler's own arithmetic is always float32.
        compiled: whether the UNet is compiled (seconds to minutes at the start, faster steps afterwards).

    Raises:
        UserError: a value is none of those possible.
    """

    solver: str = "ddim"
    num_inference_steps: int = 200
    guidance: Guidance = field(default_factory=Guidance)
    timestep_spacing: str | None = None
    noise: str = "shared"
    batch_norm: str = "running"
    cache_interval: int = 1
    dtype: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("solver", SOLVERS),
            ("timestep_spacing", (None, *SPACINGS)),
            ("noise", NOISES),
            ("batch_norm", BATCH_NORMS),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in known:
                choices = " or ".join(choice for choice in known if choice)
                raise UserError(f"there is no {name} {getattr(self, name)!r}", f"Choose {choices}")
        for name in ("num_inference_steps", "cache_interval"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} is too small", "Give at least 1")

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
            "timestep_spacing": self.timestep_spacing,
            "batch_norm": None if self.batch_norm == "running" else self.batch_norm,
            "cache_interval": None if self.cache_interval == 1 else self.cache_interval,
            "noise": None if self.noise == "shared" else self.noise,
            "compiled": self.compiled or None,  # rounds differently
        }
