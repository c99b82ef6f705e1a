"""A stage small enough to train in milliseconds, with everything that exact resume must carry: dropout, BatchNorm's
statistics, a trained parameter outside the model, an average of the weights.

``python toy.py key=value ...`` trains it through the real command line of the training scripts. TOY_KILL_AT=n kills the
process without warning before its n-th micro-batch; TOY_NAN_AT=m,n makes the losses of those micro-batches NaN;
TOY_TERM_AT=n sends it SIGTERM. TOY_KILL_AFTER_CHECKPOINT=n kills it when checkpoint n is there, before the figures
of that step, and TOY_KILL_IN_PICTURES=n after them, before its pictures. TOY_TERM_WHILE_AGREEING=n sends SIGTERM
while step n's scalars go across the processes.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cond2img.training.batch_norm import synchronise_batch_norm
from ctrlgenaug import steps
from ctrlgenaug.training import cli
from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.config import TrainingConfig
from ctrlgenaug.training.order import class_groups, generator
from ctrlgenaug.training.stage import Stage, TrainingStep


@dataclass
class ToyConfig(TrainingConfig):
    data_name: str = "MosMed"
    pretrained_model_path: str = "none"
    dropout: float = 0.1
    batch_norm: bool = True
    size: int = 10


@dataclass(frozen=True)
class ToyBatch(Batch):
    x: torch.Tensor
    y: torch.Tensor


class ToyModel(nn.Module):
    def __init__(self, dropout, batch_norm):
        super().__init__()
        norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), norm, nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(4, 1, 3)
        )
        self.frozen = nn.Conv2d(1, 1, 1).requires_grad_(False)

    def forward(self, x):
        return self.layers(self.frozen(x))

    def save_pretrained(self, folder):
        Path(folder).mkdir(parents=True)
        save_file(self.state_dict(), str(Path(folder) / "model.safetensors"))
        (Path(folder) / "config.json").write_text("{}")


class ToyStep(TrainingStep):
    def __init__(self, model):
        super().__init__()
        self.model, self.offset = model, nn.Parameter(torch.zeros(()))
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        if self.calls == int(os.environ.get("TOY_KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        # from the last process alone: one process's request must stop all of them
        last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
        if last and self.calls == int(os.environ.get("TOY_TERM_AT", 0)):
            os.kill(os.getpid(), signal.SIGTERM)
        loss = (self.model(batch.x) - batch.y + self.offset).square().mean()
        if str(self.calls) in os.environ.get("TOY_NAN_AT", "").split(","):
            loss = loss * torch.nan
        return loss, {"offset": self.offset.detach()}


class ToyData:
    def __init__(self, config):
        self.config = config
        # of three samples of four the first class, the others the second
        classes = [index % 4 == 3 for index in range(config.size)]
        self.groups = class_groups(classes) if config.balance_classes else []

    def __len__(self):
        return self.config.size

    def __getitem__(self, key):
        noise = generator(self.config.seed, key.epoch, key.index, "noise")
        x = torch.full((1, 8, 8), float(key.index)) / self.config.size + torch.randn(1, 8, 8, generator=noise)
        if key.index == int(os.environ.get("TOY_BAD_SAMPLE", -1)):
            raise OSError("no such slice")
        return ToyBatch((f"toy{key.index:02d}",), x[None], x[None, :, 2:6, 2:6] * 0.5)

    def check(self):
        pass

    def fingerprint(self):
        return str(self.config.size)


class ToyStage(Stage):
    folder = "unet"

    def __init__(self, config):
        super().__init__(config, ToyData(config), ToyStep(ToyModel(config.dropout, config.batch_norm)))

    def prepare(self, accelerator, records):
        super().prepare(accelerator, records)
        if accelerator.num_processes > 1:
            synchronise_batch_norm(self.step_module)

    def read_weights(self, folder):
        return load_file(folder / "model.safetensors")

    def measure(self):
        wanted = os.environ.get("TOY_KILL_AFTER_CHECKPOINT")
        if wanted and (Path(self.config.output_dir) / f"checkpoint-{wanted}").is_dir():
            os.kill(os.getpid(), signal.SIGKILL)
        torch.rand(3)
        return {"test_offset": float(self.step_module.offset)}

    def validate(self, step, records):
        if step == int(os.environ.get("TOY_KILL_IN_PICTURES", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        torch.rand(7)  # validation must not disturb the training's random streams
        assert not self.model.training
        (records.folder / "validated.jsonl").open("a").write(json.dumps({"step": step}) + "\n")


def disturb_agreement(number):
    """SIGTERM to the last process at the end of its ``number``-th agreement, when its row has been sent already."""
    from ctrlgenaug.training.trainer import Trainer

    settle, calls = Trainer._across_processes, []

    def disturbed(self, totals):
        calls.append(None)
        if len(calls) == number and self.accelerator.is_last_process:
            if self.accelerator.num_processes == 1:
                totals = settle(self, totals)
                os.kill(os.getpid(), signal.SIGTERM)
                return totals
            reduce = self.accelerator.reduce

            def interrupted(*arguments, **options):
                mean = reduce(*arguments, **options)
                os.kill(os.getpid(), signal.SIGTERM)
                return mean

            self.accelerator.reduce = interrupted
            try:
                return settle(self, totals)
            finally:
                self.accelerator.reduce = reduce
        return settle(self, totals)

    Trainer._across_processes = disturbed


def main():
    import sys

    if "TOY_TERM_WHILE_AGREEING" in os.environ:
        disturb_agreement(int(os.environ["TOY_TERM_WHILE_AGREEING"]))
    config = Path("toy.yaml")
    if not config.exists():
        config.write_text("output_dir: run\n")
    if "--config" not in sys.argv:
        sys.argv[1:1] = ["--config", str(config)]
    return cli.main(ToyConfig, ToyStage, description="toy", script="toy.py", default_config="toy.yaml")


if __name__ == "__main__":
    torch.manual_seed(0)
    steps.run(main)
