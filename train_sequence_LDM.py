"""Step 3: trains the sequence diffusion model."""

from __future__ import annotations

from cond2video.config import SequenceConfig
from ctrlgenaug import steps
from ctrlgenaug.training import cli


def build_stage(config: SequenceConfig) -> object:
    """The stage; imported late, because models take seconds to import."""
    from cond2video.training.sequence import SequenceStage

    return SequenceStage(config)


def main() -> int:
    return cli.main(
        SequenceConfig,
        build_stage,
        description="Trains the sequence diffusion model on the sampled clips, from the trained image diffusion model.",
        script="train_sequence_LDM.py",
        default_config="configs/MosMed-sequence-LDM.yaml",
    )


if __name__ == "__main__":
    steps.run(main)
