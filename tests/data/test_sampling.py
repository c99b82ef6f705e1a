"""Which frames become which clip: the rules in plain words against the code, over many lengths and settings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.sampling import Sampling, uniform_clips


def plainly(n, covered, interval, wanted, most, pad):
    """The method's section 3, word for word and slowly."""
    for k in range(most, 0, -1):
        if n >= k * covered:
            gap = 0 if k == 1 else (n - k * covered) // (k - 1)
            clips = []
            for i in range(k):
                start = i * (covered + gap)
                clips.append([f for f in range(start, start + covered) if (f - start) % (interval + 1) == 0])
            return clips
    if not pad or n == 0:
        return []
    return [list(range(n))] if n <= wanted else None


@settings(max_examples=300, deadline=None)
@given(
    n=st.integers(0, 200),
    interval=st.integers(0, 3),
    wanted=st.integers(1, 12),
    most=st.integers(1, 12),
    pad=st.booleans(),
)
def test_against_the_rules_in_plain_words(n, interval, wanted, most, pad):
    covered = (wanted - 1) * (interval + 1) + 1
    clips = uniform_clips(n, Sampling(covered, interval, wanted, most, pad))
    expected = plainly(n, covered, interval, wanted, most, pad)
    if expected is not None:
        assert clips == expected
    else:  # too short for a clip, too long for the pad: evenly spaced, ends kept
        (clip,) = clips
        gaps = {after - before for before, after in zip(clip, clip[1:], strict=False)}
        assert len(clip) == wanted and clip[0] == 0 and (wanted == 1 or clip[-1] == n - 1)
        assert len(gaps) <= 2 and (not gaps or max(gaps) - min(gaps) <= 1) and 0 not in gaps


@pytest.mark.parametrize(
    ("n", "starts"),
    [
        (15, [0]), (29, [0]), (30, [0, 15]), (40, [0, 25]), (47, [0, 16, 32]), (60, [0, 15, 30, 45]),
        (74, [0, 19, 38, 57]),
        (170, [17 * i for i in range(10)]),
    ],
)  # fmt: skip
def test_starts_of_published_settings(n, starts):
    clips = uniform_clips(n, Sampling(15, 1, 8, 10, True))
    assert [clip[0] for clip in clips] == starts
    assert all([frame - clip[0] for frame in clip] == [0, 2, 4, 6, 8, 10, 12, 14] for clip in clips)


def test_short_cases():
    published = dict(frames_per_clip=15, clip_sampling_interval=1, required_clip_num=8, max_clips=10)
    assert uniform_clips(5, Sampling(**published, pad_short_cases=True)) == [[0, 1, 2, 3, 4]]
    assert uniform_clips(12, Sampling(**published, pad_short_cases=True)) == [[0, 2, 3, 5, 6, 8, 9, 11]]
    assert uniform_clips(14, Sampling(**published, pad_short_cases=False)) == []
    assert uniform_clips(0, Sampling(**published, pad_short_cases=True)) == []


@pytest.mark.parametrize(
    "numbers", [(15, 1, 7, 10), (8, 1, 8, 2), (0, 1, 8, 1), (15, -1, 8, 1), (15, 1, 8, 0)]
)
def test_settings_that_do_not_agree_are_refused(numbers):
    with pytest.raises(UserError, match="--"):
        Sampling(*numbers, True)
