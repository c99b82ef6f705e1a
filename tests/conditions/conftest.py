"""A small data set at the point where its clips and frames are sampled."""

from __future__ import annotations

import cv2
import pytest

from ctrlgenaug import datasets
from ctrlgenaug.plain_data import write_jsonl
from ctrlgenaug.video import write_avi

MOSMED = datasets.get("MosMed")


@pytest.fixture
def make_home(tmp_path):
    """``make_home({clip name: frames}, frames_of=...)`` writes MosMedData with its clips and sampled frames."""

    def make(clips, frames_of=None, split="train"):
        home = tmp_path / MOSMED.home
        folder = home / MOSMED.clips_dir
        rows, frame_rows = [], []
        for name, frames in clips.items():
            write_avi(folder / f"{name}.avi", frames)
            rows.append({"file_name": f"{name}.avi", "cls": "CT-0"})
            case, first = MOSMED.parse_clip(name)
            for offset, frame in enumerate(frames[:frames_of]):
                file_name = f"{MOSMED.frame_name(case, first + offset)}.png"
                frame_rows.append({"file_name": file_name, "cls": "CT-0"})
                (home / MOSMED.frames_dir).mkdir(exist_ok=True)
                cv2.imencode(".png", frame)[1].tofile(home / MOSMED.frames_dir / file_name)
        write_jsonl(folder / f"{split}_metadata.jsonl", rows)
        write_jsonl(home / MOSMED.frames_dir / f"{split}_metadata.jsonl", frame_rows)
        return home

    return make
