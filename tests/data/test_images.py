"""The arithmetic on voxels against scipy, NumPy and plain loops."""

import cv2
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlgenaug.preprocessing import images
from ctrlgenaug.preprocessing.readers import mosmed

RANDOM = np.random.default_rng(0)


def test_chest_slices_equal_scipys_rotation_and_zoom_at_real_size():
    volume = RANDOM.integers(-1500, 1500, (512, 512, 3)).astype(np.int16)
    unit = volume.astype(float)
    unit[unit < -1000] = -1000
    unit[unit > 400] = 400
    unit = ((unit + 1000) / 1400).astype(np.float32)
    turned = scipy.ndimage.rotate(unit, 90, reshape=False)
    expected = (scipy.ndimage.zoom(turned, (0.5, 0.5, 1), order=1) * 255).astype(np.uint8)
    ours = mosmed.slices(volume)
    assert list(ours) == [1, 2, 3]
    for i in range(3):
        # scipy's spline leaves an error of 1e-7, which decides a truncation once in a hundred thousand pixels
        difference = np.abs(ours[i + 1].astype(int) - expected[:, :, i])
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-4


@pytest.mark.parametrize("size", [512, 300, 257, 256])
def test_zoom_equals_scipys_bit_for_bit(size):
    plane = RANDOM.random((size, size), dtype=np.float32)
    np.testing.assert_array_equal(images.zoom_plane(plane), scipy.ndimage.zoom(plane, 256 / size, order=1))


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16, np.int64])
def test_counted_percentiles_equal_numpys_bit_for_bit(dtype):
    for _ in range(50):
        least = 0 if np.dtype(dtype).kind == "u" else RANDOM.integers(-20, 20)
        voxels = RANDOM.integers(least, RANDOM.integers(30, 250), (8, 20, 30)).astype(dtype)
        bottom, top = np.percentile(voxels[voxels > 0], [0.5, 99.5])
        grey = np.clip(voxels, bottom, top)
        expected = (grey - grey.min()) / (grey.max() - grey.min()) * 255.0
        expected[voxels == 0] = 0
        np.testing.assert_array_equal(images.percentile_window(voxels), expected.astype(np.uint8))


def test_window_ends():
    window = images.hu_window(np.array([-3000, -1000, -300, 400, 3000], np.int16))
    np.testing.assert_array_equal(window, np.array([0, 0, 0.5, 1, 1], np.float32))
    np.testing.assert_array_equal(images.to_bytes(window), [0, 0, 127, 255, 255])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31), dtype=st.sampled_from(["int16", "uint8", "float32"]), empty=st.floats(0, 0.9)
)
def test_percentile_window_against_a_plain_reading(seed, dtype, empty):
    rng = np.random.default_rng(seed)
    voxels = (rng.gamma(2, 20, (3, 7, 9)) * (rng.random((3, 7, 9)) > empty)).astype(dtype)
    positive = sorted(float(value) for value in voxels.ravel() if value > 0)
    if len(set(positive)) < 3:
        return

    def percentile(q):  # linear interpolation between order statistics
        place = q / 100 * (len(positive) - 1)
        low = int(place)
        return positive[low] + (place - low) * (positive[min(low + 1, len(positive) - 1)] - positive[low])

    low, high = percentile(0.5), percentile(99.5)
    clipped = np.clip(voxels.astype(float), low, high)
    expected = (clipped - clipped.min()) / (clipped.max() - clipped.min()) * 255
    expected[voxels == 0] = 0
    ours = images.percentile_window(voxels)
    assert ours.dtype == np.uint8
    assert np.abs(ours - np.floor(expected)).max() <= 1  # a rounding error may decide a truncation
    assert (np.abs(ours - expected) < 1.001).all()
    assert (ours[voxels == 0] == 0).all()


@pytest.mark.parametrize("volume", [np.zeros((2, 3, 4)), np.full((2, 3, 4), 7)])
def test_percentile_window_refuses_volumes_without_contrast(volume):
    with pytest.raises(ValueError):
        images.percentile_window(volume)


def test_small_parts_go_as_flood_filling_says():
    rng = np.random.default_rng(1)
    labels = np.zeros((6, 60, 60), np.uint8)
    labels[1:4, 5:30, 5:30], labels[2:5, 30:52, 30:52] = 1, 2  # large ones that touch at a corner
    labels[3, 40:49, 2:13], labels[0, 50:55, 50:58] = 1, 3  # 99 pixels, 40 voxels
    labels[rng.random(labels.shape) < 0.01] = 3
    expected = np.zeros_like(labels)
    for label in (1, 2, 3):
        parts, count = scipy.ndimage.label(labels == label, np.ones((3, 3, 3)))
        for part in range(1, count + 1):
            if (parts == part).sum() >= 1000:
                expected[parts == part] = label
    for plane in expected:
        for label in (1, 2, 3):
            parts, count = scipy.ndimage.label(plane == label, np.ones((3, 3)))
            for part in range(1, count + 1):
                if (parts == part).sum() < 100:
                    plane[parts == part] = 0
    ours = images.without_small_parts(labels)
    np.testing.assert_array_equal(ours, expected)
    assert 0 < (ours > 0).sum() < (labels > 0).sum()


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_padding_gives_left_and_top_the_smaller_half(height, width):
    image = RANDOM.integers(1, 255, (height, width), dtype=np.uint8)
    side = max(height, width)
    expected = np.zeros((side, side), np.uint8)
    for row in range(height):
        for column in range(width):
            expected[row + (side - height) // 2, column + (side - width) // 2] = image[row, column]
    np.testing.assert_array_equal(images.pad_to_square(image), expected)
    np.testing.assert_array_equal(images.square_frame(image), cv2.resize(expected, (256, 256)))


def test_lesion_masks():
    mask = np.zeros((100, 120), np.uint8)
    mask[40:70, 50:90] = 255
    mask[5:15, 5:20] = 255  # 150 pixels: erased
    assert images.lesion_box(mask) == (slice(40, 70), slice(50, 90))
    mask[5:15, 20] = 255  # 160 pixels: kept
    assert images.lesion_box(mask) == (slice(5, 70), slice(5, 90))
    mask = np.zeros((100, 120), np.uint8)
    mask[40:70, 50:90] = 200
    mask[38:40, 50:90] = 128  # not above the threshold
    assert images.lesion_box(mask) == (slice(40, 70), slice(50, 90))
    with pytest.raises(ValueError, match="empty"):
        images.lesion_box(np.full((10, 10), 128, np.uint8))


def test_crop_has_a_margin_of_five_within_the_image_and_an_exclusive_end():
    box = images.with_margin((slice(40, 70), slice(50, 90)), (100, 120))
    assert box == (slice(35, 74), slice(45, 94))  # rows 40 to 69 and columns 50 to 89 are lesion
    assert images.with_margin((slice(2, 98), slice(0, 120)), (100, 120)) == (slice(0, 100), slice(0, 120))
