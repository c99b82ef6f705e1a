"""MosMedData from raw volumes to clips, through the scripts a user calls."""

import gzip
import json
import shutil

import nibabel
import numpy as np
import pandas
import pytest
from sklearn.model_selection import train_test_split

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.preprocessing.readers import mosmed as mosmed_reader
from ctrlgenaug.video import read_video

EXTRACT, SAMPLE = "MosMedData/extract_all_slices.py", "MosMedData/sample_sequences.py"


def contents(home):
    """Every visible result file below ``home``, with its bytes."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for folder in ("MosMed_all_slices", "MosMed_data", "MosMed_volume")
        for path in sorted((home / folder).glob("[!.]*"))
    }


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def mosmed(finished):
    """A finished home, made by one process: do not change it."""
    return finished("MosMed")


def test_every_slice_and_every_clip_is_there_and_right(mosmed):
    registry = pandas.read_excel(mosmed / "dataset_registry.xlsx")
    merged = [
        "CT-234" if category in ("CT-2", "CT-3", "CT-4") else category for category in registry["category"]
    ]
    train, test = train_test_split(range(len(merged)), test_size=0.2, random_state=33, stratify=merged)
    for split, indices in (("train", train), ("test", test)):
        slices, frames, clips = [], [], []
        for i in indices:
            path = mosmed / registry["study_file"][i][1:]
            volume = np.asarray(nibabel.load(path).dataobj)
            case, n = path.name[: -len(".nii.gz")], volume.shape[2]
            expected = mosmed_reader.slices(volume)
            stored = [
                read_png(mosmed / "MosMed_all_slices" / f"{case}_slice{k:02d}.png") for k in range(1, n + 1)
            ]
            np.testing.assert_array_equal(stored, list(expected.values()))
            slices += [{"file_name": f"{case}_slice{k:02d}.png", "cls": merged[i]} for k in range(1, n + 1)]
            frames += [{"file_name": f"{case}_slice{k:02d}.png", "cls": merged[i]} for k in range(1, 16, 2)]
            clips.append({"file_name": f"{case}_s01.avi", "cls": merged[i]})
            clip = read_video(mosmed / "MosMed_volume" / f"{case}_s01.avi", 8)
            assert (
                np.abs(clip.astype(int) - stored[0:15:2]).max() <= 1
            )  # through a colour conversion and back
        assert rows(mosmed / "MosMed_all_slices" / f"{split}_metadata.jsonl") == slices
        assert rows(mosmed / "MosMed_data" / f"{split}_metadata.jsonl") == frames
        assert rows(mosmed / "MosMed_volume" / f"{split}_metadata.jsonl") == clips
    for row in frames:
        name = row["file_name"]
        assert (mosmed / "MosMed_data" / name).read_bytes() == (
            mosmed / "MosMed_all_slices" / name
        ).read_bytes()


def test_slices_stand_upright(mosmed):
    slice_ = read_png(mosmed / "MosMed_all_slices" / "study_0001_slice08.png")
    rows_, columns = np.nonzero(slice_ > 215)  # bone: the spine lies at the back, in the middle
    assert rows_.mean() > 128 and abs(columns.mean() - 128) < 20


def test_the_published_split_of_1110_studies(tmp_path):
    counts = {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2}
    categories = [category for category, count in counts.items() for _ in range(count)]
    table = pandas.DataFrame(
        {
            "study_id": range(1, 1111),
            "category": categories,
            "study_file": [f"/studies/{c}/study_{i:04d}.nii.gz" for i, c in enumerate(categories, 1)],
            "mask_file": None,
        }
    )
    table.to_csv(tmp_path / "registry.csv", index=False, encoding="utf-8-sig")
    table.to_excel(tmp_path / "registry.xlsx", index=False)
    merged = ["CT-234" if c in ("CT-2", "CT-3", "CT-4") else c for c in categories]
    train, test = train_test_split(list(range(1110)), test_size=0.2, random_state=33, stratify=merged)
    for name in ("registry.csv", "registry.xlsx"):
        cases, rejected = mosmed_reader.read_registry(tmp_path / name, tmp_path)
        assert not rejected and len(cases) == 1110
        assert [case.name for case in cases] == [f"study_{i + 1:04d}" for i in train + test]
        assert [case.split for case in cases] == ["train"] * 888 + ["test"] * 222
        assert (
            cases[0].sources[0]
            == tmp_path / "studies" / categories[train[0]] / f"study_{train[0] + 1:04d}.nii.gz"
        )
    # pinned, so that a new scikit-learn that splits differently is noticed
    assert [case.name for case in cases[:3]] == ["study_1082", "study_0180", "study_0472"]
    assert [case.name for case in cases[888:891]] == ["study_0871", "study_0413", "study_0764"]


def test_a_split_at_a_time_from_the_folder_above(mosmed, tmp_path, run_script):
    home = shutil.copytree(mosmed, tmp_path / "MosMedData")
    for folder in ("MosMed_data", "MosMed_volume"):
        shutil.rmtree(home / folder)
    run_script(SAMPLE, "--num_workers", 1, "--mode", "train", cwd=tmp_path)
    assert not (home / "MosMed_volume" / "test_metadata.jsonl").exists()
    run_script(SAMPLE, "--num_workers", 1, "--mode", "test", cwd=tmp_path)
    assert contents(home) == contents(mosmed)


def test_a_finished_step_says_so_and_mends_what_was_spoilt(mosmed, tmp_path, run_script):
    home = shutil.copytree(mosmed, tmp_path / "MosMedData")
    before = contents(home)
    for script in (EXTRACT, SAMPLE):
        assert "already complete" in run_script(script, cwd=home).stdout
    victim = home / "MosMed_all_slices" / "study_0003_slice04.png"
    victim.write_bytes(victim.read_bytes()[:-20])
    (home / "MosMed_volume" / "study_0005_s01.avi").unlink()
    result = run_script(EXTRACT, cwd=home)
    assert "10 of 11 cases are finished already" in result.stdout
    run_script(SAMPLE, cwd=home)
    assert contents(home) == before


def test_other_sampling_settings_replace_the_clips(mosmed, tmp_path, run_script):
    home = shutil.copytree(mosmed, tmp_path / "MosMedData")
    numbers = (
        "--frames_per_clip",
        5,
        "--clip_sampling_interval",
        0,
        "--required_clip_num",
        5,
        "--max_clips",
        2,
    )
    run_script(SAMPLE, *numbers, cwd=home)
    clips = sorted(path.name for path in (home / "MosMed_volume").glob("*.avi"))
    assert len(clips) == 22  # of 15 to 17 slices: two clips, the second after a gap of 5 to 7
    listed = [
        row["file_name"]
        for split in ("train", "test")
        for row in rows(home / "MosMed_volume" / f"{split}_metadata.jsonl")
    ]
    assert sorted(listed) == clips
    assert len(list((home / "MosMed_data").glob("*.png"))) == 22 * 5
    assert len(read_video(home / "MosMed_volume" / clips[0])) == 5
    run_script(SAMPLE, *numbers[:-4], "--required_clip_num", 4, cwd=home, code=2)


def test_bad_studies_are_skipped_and_counted(phantom, run_script):
    home = phantom("MosMed")
    registry = pandas.read_excel(home / "dataset_registry.xlsx")

    def study(i):
        return home / registry["study_file"][i][1:]

    study(0).write_bytes(study(0).read_bytes()[:50_000])  # truncated
    study(1).unlink()  # missing
    image = nibabel.load(study(4))
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(image.dataobj)[:, :400], image.affine), study(4)
    )  # wrong size
    study(8).write_bytes(gzip.compress(b"no volume at all" * 100))
    registry.loc[len(registry)] = [99, "CT-9", "/studies/CT-9/study_0099.nii.gz", None]
    registry.loc[len(registry)] = [100, "CT-1", "/../../etc/study_0100.nii.gz", None]
    registry.to_excel(home / "dataset_registry.xlsx", index=False)
    result = run_script(EXTRACT, "--num_workers", 2, cwd=home, code=1)
    told = result.stdout + result.stderr
    for message in (
        "study_0001.nii.gz: is damaged or truncated", "study_0002.nii.gz: does not exist",
        "study_0005.nii.gz: has slices of 512 x 400 pixels", "study_0009.nii.gz: is not a NIfTI volume",
        "category 'CT-9' is unknown", "leaves the data folder",
    ):  # fmt: skip
        assert message in told
    assert "Traceback" not in told
    assert "6 cases failed" in result.stdout.splitlines()[-1]
    kept = json.loads((home / "MosMed_all_slices" / "skipped.json").read_text())
    assert len(kept) == 6 and "is damaged or truncated" in kept["study_0001"]
    names = {
        row["file_name"].split("_slice")[0]
        for split in ("train", "test")
        for row in rows(home / "MosMed_all_slices" / f"{split}_metadata.jsonl")
    }
    assert names == {f"study_{i:04d}" for i in (3, 4, 6, 7, 8, 10, 11)}
    strict = run_script(EXTRACT, "--num_workers", 1, "--strict", cwd=home, code=2)
    assert strict.stderr.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (np.full((512, 512, 2), np.nan, np.float32), "NaN"),
        (np.full((512, 512, 2), 7, np.int16), "is constant"),
        (np.stack([np.full((512, 512), hu, np.int16) for hu in (-2000, -1500)], 2), "between -1000 and 400 HU"),
        (np.zeros((512, 512, 2, 2), np.int16), "not three dimensions"),
        (np.arange(256 * 256 * 2, dtype=np.int16).reshape(256, 256, 2), "256 x 256 pixels, not 512 x 512"),
    ],
)  # fmt: skip
def test_volumes_that_are_no_chest_ct(voxels, message, tmp_path):
    from ctrlgenaug.preprocessing.batch import Case

    path = tmp_path / "study_0001.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    with pytest.raises(UserError, match=message):
        mosmed_reader.read_study(Case("study_0001", "train", "CT-0", (path,)))


def test_one_nan_voxel_is_enough(tmp_path):
    from ctrlgenaug.preprocessing.nifti import read_nifti

    voxels = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    voxels[3, 4, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(UserError, match="NaN"):
        read_nifti(tmp_path / "v.nii")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda home: (home / "dataset_registry.xlsx").unlink(), "dataset_registry.xlsx: does not exist"),
        (
            lambda home: (home / "dataset_registry.xlsx").write_bytes(b"PK no workbook"),
            "is not a readable table",
        ),
        (
            lambda home: pandas.concat([pandas.read_excel(home / "dataset_registry.xlsx")] * 2).to_excel(
                home / "dataset_registry.xlsx", index=False
            ),
            "occur more than once",
        ),
        (
            lambda home: pandas.read_excel(home / "dataset_registry.xlsx")[:5].to_excel(
                home / "dataset_registry.xlsx", index=False
            ),
            "cannot be split into train and test",
        ),
    ],
)
def test_a_bad_registry_is_an_error_in_one_line(spoil, message, phantom, run_script):
    home = phantom("MosMed")
    spoil(home)
    result = run_script(EXTRACT, cwd=home, code=2)
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_bad_slices_are_skipped_and_counted(mosmed, tmp_path, run_script):
    home = shutil.copytree(mosmed, tmp_path / "MosMedData")
    slices = home / "MosMed_all_slices"
    (slices / "study_0001_slice03.png").write_bytes(b"")
    (slices / "study_0002_slice04.png").unlink()  # not in a clip, but a hole
    whole = (slices / "study_0003_slice05.png").read_bytes()
    (slices / "study_0003_slice05.png").write_bytes(whole[: len(whole) // 2])
    for split in ("train", "test"):
        path = slices / f"{split}_metadata.jsonl"
        path.write_text(
            "".join(f"{line}\n" for line in path.read_text().splitlines() if "study_0004_slice06" not in line)
        )
    result = run_script(SAMPLE, cwd=home, code=1)
    told = result.stdout + result.stderr
    for message in (
        "study_0001_slice03.png: is empty (0 bytes)", "study_0002_slice04.png: does not exist",
        "study_0003_slice05.png: is not a whole PNG", "study_0004: lists frame 7 after frame 5",
    ):  # fmt: skip
        assert message in told
    assert "4 cases failed" in result.stdout.splitlines()[-1]
    names = [
        row["file_name"]
        for split in ("train", "test")
        for row in rows(home / "MosMed_volume" / f"{split}_metadata.jsonl")
    ]
    assert sorted(names) == [f"study_{i:04d}_s01.avi" for i in range(5, 12)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "is not a JSON object"),
        ('{"cls": "CT-0"}', "lacks file_name"),
        ('{"file_name": "../x_slice01.png", "cls": "CT-0"}', "not a plain file name"),
        ('{"file_name": "study_0001_slice01.png", "cls": "CT-7"}', "holds class 'CT-7'"),
    ],
)
def test_bad_metadata_are_an_error_in_one_line(line, message, tmp_path, run_script):
    folder = tmp_path / "MosMed_all_slices"
    folder.mkdir()
    (folder / "train_metadata.jsonl").write_text(line + "\n")
    result = run_script(SAMPLE, "--mode", "train", cwd=tmp_path, code=2)
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_a_case_in_both_splits_is_refused(mosmed, tmp_path, run_script):
    home = shutil.copytree(mosmed, tmp_path / "MosMedData")
    train, test = (home / "MosMed_all_slices" / f"{split}_metadata.jsonl" for split in ("train", "test"))
    test.write_text(test.read_text() + train.read_text().splitlines()[0] + "\n")
    assert "occur more than once" in run_script(SAMPLE, cwd=home, code=2).stderr


def test_two_runs_cannot_write_one_folder(mosmed, tmp_path, run_script):
    from ctrlgenaug.folders import exclusive

    home = shutil.copytree(mosmed, tmp_path / "MosMedData")
    with exclusive(home / "MosMed_all_slices"):
        assert "another run is writing" in run_script(EXTRACT, cwd=home, code=2).stderr
    with exclusive(home / "MosMed_volume"):
        assert "another run is writing" in run_script(SAMPLE, cwd=home, code=2).stderr
