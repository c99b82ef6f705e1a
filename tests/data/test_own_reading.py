"""Raw files of a user's own data to frames: pages, depths, masks of labels, axes in another order."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image
from raw_examples import film

from ctrlgenaug.datasets.data_file import DataFile, Raw, Slices
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing import notes
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.own.guess import _spacing
from ctrlgenaug.preprocessing.own.reading import fitted, read_case, read_raw

FILM = film(4)


def described(kind, **slices):
    data = DataFile(name="Own", classes=["0", "1"], pseudonyms=False)
    data.raw = Raw(kind=kind, pattern="{class}/{case}.*", mask="masks/{case}.*" if slices else "")
    data.slices = Slices(**slices)
    return data


def read(data, *paths):
    return read_case(Case("x", "train", "0", paths), data)


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_every_page_of_a_file_is_a_frame(suffix, tmp_path):
    first, *others = [Image.fromarray(plane) for plane in FILM]
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=others)
    frames = read(described("frames"), tmp_path / f"x.{suffix}")
    assert len(frames) == len(FILM)
    np.testing.assert_array_equal(frames[5], fitted(FILM[4]))


def test_small_copies_in_a_tiff_are_no_frames(tmp_path):
    small = Image.fromarray(FILM[0, ::4, ::4])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(FILM[0]).save(tmp_path / "x.tif", save_all=True, append_images=[small])
    assert list(read(described("frames"), tmp_path / "x.tif")) == [1]


def test_deep_pictures_keep_their_values(tmp_path):
    wide = FILM[0].astype(np.int32) * 1000  # beyond 16 bits
    Image.fromarray(wide).save(tmp_path / "1.tif")
    found, _ = read_raw((tmp_path / "1.tif",), described("frames"))
    np.testing.assert_array_equal(found[0], wide)
    Image.fromarray(FILM[1]).save(tmp_path / "2.tif")
    with pytest.raises(UserError, match="8 bits and of more"):
        read(described("frames"), tmp_path / "1.tif", tmp_path / "2.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("kind", ["nii.gz", "npy"])
def test_numbers_of_a_mask_are_labels(kind, dtype, tmp_path):
    """FreeSurfer's reach from 2 to 2035: those up to 128 are structures as well."""
    labels = np.zeros((9, 48, 48), dtype)
    labels[2:7, 10:20, 10:20], labels[2:7, 30:40, 30:40] = 41, 251
    if kind == "npy":
        np.save(tmp_path / "x.npy", FILM)
        np.save(tmp_path / "mask.npy", labels)
    else:
        for name, stack in (("x", FILM.astype(np.int16)), ("mask", labels)):
            nibabel.save(
                nibabel.Nifti1Image(stack.transpose(2, 1, 0), np.diag([1, 1, 5, 1])),
                tmp_path / f"{name}.nii.gz",
            )
    data = described("npy" if kind == "npy" else "nifti", crop="mask", margin=0, only_masked=True)
    data.slices.orientation, data.intensity.as_stored = "as_stored", True
    frames = read(data, tmp_path / f"x.{kind}", tmp_path / f"mask.{kind}")
    assert len(frames) == 5
    data.slices = Slices(orientation="as_stored", crop="box", box=[10 / 48, 40 / 48, 10 / 48, 40 / 48])
    data.raw.mask = ""
    np.testing.assert_array_equal(frames[1], read(data, tmp_path / f"x.{kind}")[3])


def test_a_mask_picture_of_grey_edges_is_halved(tmp_path):
    grey = np.zeros((48, 48), np.uint8)
    grey[8:40, 8:40], grey[12:36, 12:36] = 60, 255
    np.save(tmp_path / "x.npy", FILM)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    frames = read(described("npy", crop="mask", margin=0), tmp_path / "x.npy", tmp_path / "mask.png")
    np.testing.assert_array_equal(frames[1], fitted(FILM[0, 12:36, 12:36]))


def test_masks_of_as_many_pages_as_frames(tmp_path):
    masks = np.zeros_like(FILM)
    masks[3:5, 10:30, 10:30] = 1
    np.save(tmp_path / "x.npy", FILM)
    first, *others = [Image.fromarray(plane) for plane in masks]
    first.save(tmp_path / "mask.tif", save_all=True, append_images=others)
    assert len(read(described("npy", only_masked=True), tmp_path / "x.npy", tmp_path / "mask.tif")) == 2


def test_axes_in_another_order_are_told(tmp_path):
    path, data = tmp_path / "x.npy", described("npy")
    np.save(path, np.repeat(FILM[0][..., None], 3, 2))
    with pytest.raises(UserError, match="one colour picture, or frames that come last"):
        read(data, path)
    np.save(path, FILM.transpose(1, 2, 0))
    notes.taken()
    read(data, path)
    assert "if frames come last, move that axis to the front" in notes.taken().texts[0]
    np.save(path, FILM)
    read(data, path)
    assert notes.taken().texts == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_an_affine_that_tells_nothing_is_told(value, tmp_path):
    image = nibabel.Nifti1Image(FILM.transpose(2, 1, 0).astype(np.int16), np.diag([-1.0, 1, 5, 1]))
    content = bytearray(image.to_bytes())
    content[280:296] = np.full(4, value, "<f4").tobytes()  # srow_x
    (tmp_path / "x.nii").write_bytes(content)
    data = described("nifti")
    data.intensity.as_stored = True
    notes.taken()
    frames = read(data, tmp_path / "x.nii")
    noted = notes.taken()
    assert "tells no orientation" in noted.texts[0] and noted.spacing is None
    np.testing.assert_array_equal(frames[3], fitted(np.rot90(FILM[2].T)))
    assert "?" in _spacing(read_raw((tmp_path / "x.nii",), data)[0])
