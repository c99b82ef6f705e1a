"""Clips longer than those of training, in overlapping windows: their seams, and generate.py's flags for them."""

import json
import subprocess
import sys

import imageio.v3 as iio
import pytest

LONG = ("--num_frames", 20, "--context_length", 8, "--num_inference_steps", 1, "--guidance_scale", 1,
        "--device_id_list", "cpu", "--class_label", "CT-0", "--predifined_sampled_num", 1)  # fmt: skip


def test_no_seam_is_seen_where_windows_overlap(repository):
    """On the miniature base model: without overlap frames jump where a window begins, with overlap they do not."""
    command = [sys.executable, repository / "benchmarks" / "long_clips.py", "--frames", "24", "--steps", "6"]
    result = subprocess.run(
        [*command, "--strides", "8", "4", "--patients", "4"], capture_output=True, text=True, check=True
    )
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == [
        "real frames, there and back",
        "the whole clip at once",
        "length 8, stride 8, no overlap",
        "length 8, stride 4",
    ]
    apart, overlapping = ([float(cell) for cell in row[1:6]] for row in rows[2:])
    assert apart[2] > 1.35 and overlapping[2] < 1.2  # grey values at borders to those inside
    # VAE-Seq there, against inside
    assert apart[3] < apart[4] - 5 and overlapping[3] > overlapping[4] - 2.5


def test_long_clips_by_the_script(world, call_script, tmp_path):
    """A clip of 8 real frames makes one of 20, the same twice, and the folder says how."""
    base = ("generate.py", "--sequence_model_path", "model", *LONG)
    made = []
    for name in ("one", "again"):
        call_script(*base, "--output_dir", tmp_path / name, cwd=world)
        (path,) = (tmp_path / name).glob("*.mp4")
        made.append(path.read_bytes())
    assert made[0] == made[1] and len(iio.imread(path)) == 20
    settings = json.loads((tmp_path / "one" / "settings.json").read_text())
    (row,) = map(json.loads, (tmp_path / "one" / "manifest.jsonl").read_text().splitlines())
    for record in (settings, row):
        assert (record["num_frames"], record["context_length"], record["context_stride"]) == (20, 8, None)
    other = call_script(*base, "--context_stride", 2, "--output_dir", tmp_path / "one", cwd=world, code=2)
    assert "context_stride" in other.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--context_length", 1), "context_length 1 is too small. Give the frames of training's clips"),
        (
            ("--context_stride", 4),
            "context_stride 4 does not fit context_length None. Give 1 to context_length",
        ),
        (("--context_length", 8, "--context_stride", 9), "context_stride 9 does not fit context_length 8"),
        (("--cache_interval", 2, "--cache_center", 2), "cache_center 2 is no share of the run. Give 0"),
        (("--noise_correlation", 1.5), "noise_correlation 1.5 is none. Give 0 (frames independent) to 1"),
        (("--cache_center", 0.5), "cache_center without caching changes nothing. Give --cache_interval 2"),
    ],
)
def test_mistakes_are_one_line(world, call_script, flags, message):
    result = call_script("generate.py", "--sequence_model_path", "model", *flags, cwd=world, code=2)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
