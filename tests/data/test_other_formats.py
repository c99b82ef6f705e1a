"""MRNet, ACDC and TUSC from raw files to clips, and what is refused on the way."""

import json
import re
from pathlib import Path

import cv2
import h5py
import nibabel
import numpy as np
import pandas
import pytest
import SimpleITK
from sklearn.model_selection import train_test_split

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.images import percentile_window, square_frame, without_small_parts
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.preprocessing.readers import mrnet, tirads, tusc
from ctrlgenaug.preprocessing.sampling import Sampling, uniform_clips
from ctrlgenaug.video import read_video

MRNET, ACDC, TUSC = "MRNet/extract_all_slices.py", "ACDC/extract_all_slices.py", "TUSC/extract_all_images.py"


def rows(folder, split):
    return [json.loads(line) for line in (folder / f"{split}_metadata.jsonl").read_text().splitlines()]


def last_line(result):
    return result.stdout.strip().splitlines()[-1]


# --- MRNet ---------------------------------------------------------------------------------------------------------


def test_mrnet_from_series_to_clips(phantom, run_script):
    home = phantom("MRNet")
    labels = [line.split(",") for line in (home / "train-acl.csv").read_text().split()]
    # The second file in the other spelling: a header, CRLF, a byte-order mark, ids without their zeros.
    valid = [line.split(",") for line in (home / "valid-acl.csv").read_text().split()]
    lines = ["PatientID,label", *(f"{int(case)},{label}" for case, label in valid)]
    (home / "valid-acl.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    run_script(MRNET, "--num_workers", 1, cwd=home)
    run_script("MRNet/sample_sequences.py", "--num_workers", 1, cwd=home)
    for split, folder, entries in (("train", "train", labels), ("test", "valid", valid)):
        expected = []
        for case, label in entries:
            series = np.load(home / folder / "sagittal" / f"{case}.npy")
            for k, plane in enumerate(series, start=1):
                name = f"{case}_slice{k:02d}.png"
                np.testing.assert_array_equal(read_png(home / "MRNet_all_slices" / name), plane)
                expected.append({"file_name": name, "cls": int(label)})
            for i, clip in enumerate(uniform_clips(len(series), Sampling(15, 1, 8, 10, True))):
                frames = np.zeros((8, 256, 256), int)
                frames[: len(clip)] = series[clip]
                stored = read_video(home / "MRNet_volume" / f"{case}_s{clip[0] + 1:02d}.avi", 8)
                assert np.abs(stored - frames).max() <= 1, i
        assert rows(home / "MRNet_all_slices", split) == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{"a": 1}], dtype=object), "is not a readable .npy array"),
        (np.zeros((5, 256, 256), np.int16), "holds int16, not uint8"),
        (np.zeros((5, 256, 256), np.uint8), "is empty or constant"),
        (np.zeros((5, 128, 256), np.uint8), "has shape"),
        (np.zeros((256, 256), np.uint8), "has shape"),
    ],
)
def test_mrnet_series_that_are_refused(array, message, tmp_path):
    path = tmp_path / "0000.npy"
    np.save(path, array)
    with pytest.raises(UserError, match=re.escape(message)):
        mrnet.read_series(Case("0000", "train", "0", (path,)))


def test_mrnet_tables_that_do_not_fit(phantom, run_script):
    home = phantom("MRNet")
    labels = (home / "train-acl.csv").read_text()
    (home / "train-acl.csv").write_text(f"{labels}0077,1\n0078,2\n")
    np.save(home / "train" / "sagittal" / "0099.npy", np.zeros((3, 256, 256), np.uint8))
    result = run_script(MRNET, "--num_workers", 1, cwd=home, code=1)
    told = result.stdout + result.stderr
    assert "0077.npy: does not exist" in told and "'0078','2' is not an id and a label" in told
    assert "0099.npy: has no label in train-acl.csv" in told and "3 cases failed" in last_line(result)
    (home / "train-acl.csv").write_text(labels + labels)
    assert "occur more than once" in run_script(MRNET, cwd=home, code=2).stderr
    (home / "train-acl.csv").unlink()
    assert "train-acl.csv: does not exist" in run_script(MRNET, cwd=home, code=2).stderr


# --- ACDC ----------------------------------------------------------------------------------------------------------


def test_acdc_from_volumes_to_clips(phantom, run_script):
    home = phantom("ACDC")
    run_script(ACDC, "--num_workers", 2, cwd=home)
    run_script("ACDC/sample_sequences.py", "--num_workers", 2, cwd=home)
    for split, folder in (("train", "training"), ("test", "testing")):
        expected = []
        for patient in sorted((home / "database" / folder).iterdir()):
            info = dict(line.split(": ") for line in (patient / "Info.cfg").read_text().splitlines())
            for key in ("ED", "ES"):
                case = f"{patient.name}_frame{int(info[key]):02d}"
                volume, labels = (
                    SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(patient / f"{case}{suffix}.nii.gz")))
                    for suffix in ("", "_gt")
                )
                kept = [i for i, plane in enumerate(without_small_parts(labels)) if plane.any()]
                assert 0 < len(kept) < len(volume)
                for k, i in enumerate(kept, start=1):
                    name = f"{case}_slice{k:02d}.png"
                    frame = square_frame(percentile_window(volume)[i])
                    np.testing.assert_array_equal(read_png(home / "ACDC_all_slices" / name), frame)
                    expected.append({"file_name": name, "cls": info["Group"]})
        assert rows(home / "ACDC_all_slices", split) == expected
        for row in rows(home / "ACDC_volume", split):
            assert len(read_video(home / "ACDC_volume" / row["file_name"])) == 8


def test_acdc_patients_that_are_skipped(phantom, run_script):
    home = phantom("ACDC")
    patients = sorted((home / "database" / "training").iterdir())
    info = (patients[0] / "Info.cfg").read_text()
    (patients[0] / "Info.cfg").write_text(re.sub("ED: .*\n", "", info))
    (patients[1] / "Info.cfg").write_text(re.sub("Group: .*\n", "", info))
    (patients[2] / "Info.cfg").write_text(re.sub("Group: .*", "Group: XYZ", info))
    (mask,) = patients[3].glob("*_frame01_gt.nii.gz")
    labels = np.asarray(nibabel.load(mask).dataobj)
    nibabel.save(nibabel.Nifti1Image(labels[:-3], np.eye(4)), mask)
    (mask,) = patients[4].glob("*_frame0[14]_gt.nii.gz")
    labels = np.asarray(nibabel.load(mask).dataobj)
    few = np.zeros_like(labels)
    few[5:9, 5:9] = 1  # too small to be a ventricle
    nibabel.save(nibabel.Nifti1Image(few, np.eye(4)), mask)
    result = run_script(ACDC, "--num_workers", 1, cwd=home, code=1)
    told = result.stdout + result.stderr
    for message in ("lacks ED", "lacks Group", "group 'XYZ' is unknown", "has shape", "leaves no slice"):
        assert message in told
    assert "Traceback" not in told and "5 cases failed" in last_line(result)
    assert run_script(ACDC, "--database", "nowhere", cwd=home, code=2).stderr.count("\n") == 1


# --- TUSC ----------------------------------------------------------------------------------------------------------


def plain_crop(image, mask):
    """Section 2 in plain steps, with OpenCV's components."""
    lesion = (mask > 128).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(lesion, connectivity=8)
    areas = sorted(((stats[i, cv2.CC_STAT_AREA], i) for i in range(1, count)), reverse=True)
    for area, i in areas[1:]:
        if area <= 150:
            lesion[parts == i] = 0
    ys, xs = np.nonzero(lesion)
    crop = image[max(ys.min() - 5, 0) : ys.max() + 5, max(xs.min() - 5, 0) : xs.max() + 5]
    side = max(crop.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - crop.shape[0]) // 2, (side - crop.shape[1]) // 2
    square[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return cv2.resize(square, (256, 256))


def test_texts_are_not_put_to_another_class(tmp_path):
    """The table says another grade now: the frames' metadata would keep the former one, and its split."""
    nodule = tirads.Nodule(7, "TR5", "train", "The nodule is solid, and smooth.")
    for split in ("train", "test"):
        line = '{"file_name": "Nodule7_1.png", "text": "", "cls": "TR4"}\n'
        (tmp_path / f"{split}_metadata.jsonl").write_text(line if split == "train" else "")
    with pytest.raises(
        UserError, match="says class TR4 of Nodule7, metadata.csv says TR5.*extract_all_images"
    ):
        tusc.put_texts(tmp_path, {"Nodule7": nodule}, Path("metadata.csv"))


def test_tusc_from_films_to_clips(phantom, run_script):
    home = phantom("TUSC")
    run_script(TUSC, "--num_workers", 2, cwd=home)
    run_script("TUSC/save_all_consecutive_images.py", "--num_workers", 2, cwd=home)
    assert "already complete" in run_script("TUSC/extract_all_texts.py", cwd=home).stdout
    run_script("TUSC/sample_videos.py", "--all_frames_dir", "TUSC_all_images_consecutive", cwd=home)

    table = pandas.read_csv(home / "metadata.csv")
    table = table[table["ti-rads_level"] > 1]
    classes = ["TR2-3" if level < 4 else f"TR{level}" for level in table["ti-rads_level"]]
    numbers = [int(annotation[:-1]) for annotation in table["annot_id"]]
    assert 8 not in numbers
    parts = train_test_split(range(len(numbers)), test_size=0.3, random_state=3407, stratify=classes)
    with h5py.File(home / "dataset.hdf5") as films:
        image, mask, owner = films["image"][()], films["mask"][()], films["annot_id"][()]
        frame_num = [int(value) for value in films["frame_num"][()]]
    specks = 0
    for split, part in zip(("train", "test"), parts, strict=True):
        every, consecutive, clips = [], [], []
        for i in part:
            of_nodule = {
                frame_num[row]: row for row in range(len(owner)) if owner[row] == f"{numbers[i]}_".encode()
            }
            names = {frame: f"Nodule{numbers[i]}_{frame}" for frame in sorted(of_nodule)}
            for frame, row in of_nodule.items():
                stored = read_png(home / "TUSC_all_images" / f"{names[frame]}.png")
                np.testing.assert_array_equal(stored, plain_crop(image[row], mask[row]))
                specks += mask[row, -25, 35] > 0
            every += [(f"{name}.png", classes[i]) for name in names.values()]
            frames = sorted(of_nodule)
            frames = frames[1:] if numbers[i] == 4 else frames
            run = [frame for k, frame in enumerate(frames) if frame - k == frames[0]]
            consecutive += [(f"{names[frame]}.png", classes[i]) for frame in run]
            if len(run) >= 15:
                clips.append((f"Nodule{numbers[i]}_f{run[0]}.avi", classes[i]))
                clip = read_video(home / "TUSC_video" / clips[-1][0], 8)
                last = read_png(home / "TUSC_data" / f"{names[run[14]]}.png").astype(int)
                assert np.abs(clip[-1] - last).max() <= 1
        for folder, expected in (
            ("TUSC_all_images", every), ("TUSC_all_images_consecutive", consecutive), ("TUSC_video", clips)
        ):  # fmt: skip
            assert [(row["file_name"], row["cls"]) for row in rows(home / folder, split)] == expected
            assert all(row["text"].startswith("The nodule is ") for row in rows(home / folder, split))
    assert specks > 5 and not (home / "TUSC_video" / "Nodule2_f1.avi").exists()  # too short: dropped


def test_tusc_descriptions():
    def codes(*values):
        names = ("composition", "echogenicity", "shape", "margin", "echogenicfoci")
        return {f"ti-rads_{name}": value for name, value in zip(names, values, strict=True)}

    assert tirads.describe(codes("2", "3", "0", "0", "0")) == (
        "The nodule is solid, very hypoechoic, wider-than-tall, and smooth."
    )
    assert tirads.describe(codes("1", "1.0", "3", "3", "2")) == (
        "The nodule is mixed cystic and solid, isoechoic, taller-than-wide, extra-thyroidal extension, "
        "and peripheral (rim) calcifications."
    )
    assert tirads.describe(codes("2", "2", "0", "2", "4")).endswith("irregular, and punctate echogenic foci.")
    with pytest.raises(ValueError, match="ti-rads_margin is '7'"):
        tirads.describe(codes("2", "2", "0", "7", "4"))


def test_tusc_consecutive_runs(tmp_path):
    consecutive = tusc.consecutive

    def kept(nodule, *frames):
        paths = tuple(tmp_path / f"{nodule}_{frame}.png" for frame in frames)
        return [
            int(path.stem.split("_")[1]) for path in consecutive(Case(nodule, "train", "TR4", paths)).sources
        ]

    assert kept("Nodule7", 3, 4, 5, 9, 10) == [3, 4, 5]
    assert kept("Nodule4", 1, 9, 10, 11, 14) == [9, 10, 11]
    assert kept("Nodule4", 1, 2, 3) == [1, 2, 3]


def test_tusc_nodules_that_are_skipped(phantom, run_script):
    home = phantom("TUSC")
    table = pandas.read_csv(home / "metadata.csv", dtype=str)
    table.loc[0, "ti-rads_margin"] = "9"
    table.loc[len(table)] = ["300_", *table.loc[1][1:]]
    table.to_csv(home / "metadata.csv", index=False)
    with h5py.File(home / "dataset.hdf5", "r+") as films:
        (row,) = [i for i, value in enumerate(films["annot_id"]) if value == b"3_" and films["frame_num"][i]][
            :1
        ]
        films["mask"][row] = np.zeros(films["mask"].shape[1:], np.uint8)
    result = run_script(TUSC, "--num_workers", 1, cwd=home, code=1)
    told = result.stdout + result.stderr
    for message in ("ti-rads_margin is '9'", "holds no frame of this nodule", "the mask is empty"):
        assert message in told
    assert "3 cases failed" in last_line(result) and "Traceback" not in told


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda films: films.__delitem__("mask"), "lacks the data set mask"),
        (
            lambda films: (films.__delitem__("mask"), films.create_dataset("mask", (4, 8, 8), "u1")),
            "and mask",
        ),
        (
            lambda films: (films.__delitem__("frame_num"), films.create_dataset("frame_num", (3,), "S8")),
            "differ in length",
        ),
    ],
)
def test_tusc_files_that_are_refused(spoil, message, tmp_path):
    path = tmp_path / "dataset.hdf5"
    with h5py.File(path, "w") as films:
        for name in ("image", "mask"):
            films.create_dataset(name, (5, 8, 8), "u1")
        for name in ("annot_id", "frame_num"):
            films.create_dataset(name, (5,), "S8")
        spoil(films)
    with pytest.raises(UserError, match=message), tusc.open_films(path):
        pass
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="not a whole HDF5 file"), tusc.open_films(path):
        pass


def test_tusc_table_twice(originals, tmp_path):
    text = (originals("TUSC") / "metadata.csv").read_text()
    (tmp_path / "metadata.csv").write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(UserError, match="lists nodule 1 more than once"):
        tirads.read_nodules(tmp_path / "metadata.csv")
