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
        noise_correlation: of the initial noise of any two frames of a clip; 0: each frame has its own, as published.
        timestep_spacing: which timesteps are visited, see `cond2img.pipelines.solvers.make_scheduler`; None: as the
            model's schedule wants it, which is "leading" for the published one.
        batch_norm: ``running``: the image prior is normalised with the statistics that training collected;
            ``published``: with those of the two guidance branches, as the official scripts do.
        cache_interval: the UNet's deep features are computed at one in so many steps and kept in between; 1: at each.
        cache_center: where in the run, from 0 (its start) to 1 (its end), those steps lie closest together; None: they
            are evenly spread. See `cond2img.pipelines.caching.fresh_steps`.
        context_length: longer clips are denoised in overlapping windows of so many frames, those of training; None:
            every clip as a whole. See `cond2img.pipelines.windows`.
        context_stride: frames from a window's start to that of the next; None: half of ``context_length``.
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
    noise_correlation: float = 0.0
    batch_norm: str = "running"
    cache_interval: int = 1
    cache_center: float | None = None
    context_length: int | None = None
    context_stride: int | None = None
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
        self._check_additions()

    def _check_additions(self) -> None:
        if not 0 <= self.noise_correlation <= 1:
            raise UserError(
                f"noise_correlation {self.noise_correlation:g} is none",
                "Give 0 (frames independent) to 1 (all alike)",
            )
        center, length, stride = self.cache_center, self.context_length, self.context_stride
        if center is not None and not 0 <= center <= 1:
            raise UserError(
                f"cache_center {center:g} is no share of the run", "Give 0 (its start) to 1 (its end)"
            )
        if center is not None and self.cache_interval == 1:
            raise UserError(
                "cache_center without caching changes nothing", "Give --cache_interval 2 or more with it"
            )
        if length is not None and length < 2:
            raise UserError(
                f"context_length {length} is too small", "Give the frames of training's clips, e.g. 8"
            )
        if stride is not None and (length is None or not 1 <= stride <= length):
            raise UserError(
                f"context_stride {stride} does not fit context_length {length}",
                "Give 1 to context_length, e.g. half of it",
            )

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
            "contrast_with": None if guidance.contrast_with == "mean" else guidance.contrast_with,
            "timestep_spacing": self.timestep_spacing,
            "batch_norm": None if self.batch_norm == "running" else self.batch_norm,
            "cache_interval": None if self.cache_interval == 1 else self.cache_interval,
            "cache_center": self.cache_center,
            "context_length": self.context_length,
            "context_stride": self.context_stride,
            "noise": None if self.noise == "shared" else self.noise,
            "noise_correlation": self.noise_correlation or None,
            "compiled": self.compiled or None,  # rounds differently
        }
