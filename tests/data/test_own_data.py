"""The guide for a fifth data set, done as written."""

import json
import os
import re
import subprocess
import sys

import nibabel
import numpy as np


def test_the_guide_works_as_written(repository, tmp_path):
    guide = (repository / "docs" / "your_own_data.md").read_text()
    scripts = dict(re.findall(r"<!-- file: Brain/(\S+) -->\n```python\n(.*?)```", guide, re.DOTALL))
    assert set(scripts) == {"extract_all_slices.py", "sample_sequences.py"}
    home = tmp_path / "Brain"
    (home / "volumes").mkdir(parents=True)
    for name, text in scripts.items():
        (home / name).write_text(text)
    lines, rng = ["id,grade,split"], np.random.default_rng(0)
    for i, (grade, split) in enumerate(
        [("low", "train"), ("high", "train"), ("low", "test"), ("high", "test")]
    ):
        voxels = rng.integers(1, 900, (40, 30, 9 + 8 * i)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), home / "volumes" / f"p{i:02d}.nii.gz")
        lines.append(f"p{i:02d},{grade},{split}")
    (home / "labels.csv").write_text("\n".join(lines))

    def call(script, code=0):
        result = subprocess.run(
            [sys.executable, script], cwd=home, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert result.returncode == code, result.stderr
        return result.stdout

    call("extract_all_slices.py")
    assert "wrote 10 clips of 4 cases" in call("sample_sequences.py")  # 9, 17, 25 and 33 slices
    rows = [
        json.loads(line) for line in (home / "Brain_volume" / "train_metadata.jsonl").read_text().splitlines()
    ]
    assert [row["file_name"] for row in rows] == ["p00_s01.avi", "p01_s01.avi", "p01_s10.avi"]
    assert [row["cls"] for row in rows] == ["low", "high", "high"]
    (home / "volumes" / "p03.nii.gz").write_bytes(b"")
    assert "1 cases failed" in call("extract_all_slices.py", code=1)
