"""Data files: every scalar is text first, and what is wrong is said in one line."""

from __future__ import annotations

import pytest

from ctrlgenaug import datasets
from ctrlgenaug.datasets.data_file import read_data_file
from ctrlgenaug.errors import UserError

WHOLE = "classes: [a, b]\nraw: {kind: npy, pattern: '{class}/{case}.npy'}\n"


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("[NO, YES]", ["NO", "YES"]), ("[0, 1]", ["0", "1"]), ("[007, 1.50]", ["007", "1.50"]), ("[null, ~a]", None),
        ("[on, off]", ["on", "off"]), ("[1e3, 12:30]", None), ("[2020-01-01, x]", ["2020-01-01", "x"]),
        ("[Grün, Röte]", ["Grün", "Röte"]),
    ],
)  # fmt: skip
def test_words_keep_their_letters(text, classes, tmp_path):
    path = tmp_path / "D.yaml"
    path.write_text(WHOLE.replace("[a, b]", text) + "name: 0123\n", encoding="utf-8")
    if classes is None:  # a colon or a tilde cannot be in a file's name; what is refused is what was written
        with pytest.raises(UserError, match="'12:30'|'~a'"):
            read_data_file(path)
        return
    data = read_data_file(path)
    assert data.classes == classes and data.name == "0123"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML .line"),
        ("- a\n- b\n", "is not a list of `field: value` lines"),
        ("", "0 bytes|is not a list"),
        ("name: D\nsplit: 3\n", "split is '3', must be fields"),
        ("name: D\nclips: {max_clips: few}\n", "must be a whole number"),
        ("name: D\nsplit: {test_fraction: x}\n", "must be a number"),
        ("name: D\ntexts: perhaps\n", "must be true or false"),
        ("name: D\nclasses: a\n", "must be a list"),
        ("name: D\ntable: {columns: [a]}\n", "must be {word: value}"),
        ("name: D\nclasss: [a]\n", "unknown field classs. Did you mean classes?"),
        ("name: {a: b}\n", "must be one value"),
        ("name: !!python/object/apply:os.system [ls]\n", "is not YAML|one value"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nname: D\n", "unknown field a"),
    ],
)
def test_malformed_data_files_are_one_line(text, message, tmp_path):
    (tmp_path / "D.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_data_file(tmp_path / "D.yaml")


def test_aliases_cannot_make_a_few_lines_into_billions(tmp_path):
    levels = [
        "class_of: &l0 {a: b}",
        *(f"x{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)),
    ]
    (tmp_path / "D.yaml").write_text("name: D\n" + "\n".join(levels).replace("x11", "classes") + "\n")
    with pytest.raises(UserError, match="unknown field|more values|one value"):
        read_data_file(tmp_path / "D.yaml")


def test_the_registered_data_sets_are_described_as_the_method_does():
    names = {"MosMed": "MosMed_volume", "MRNet": "MRNet_volume", "ACDC": "ACDC_volume", "TUSC": "TUSC_video"}
    for name, clips in names.items():
        spec = datasets.get(name)
        assert (spec.clips_dir, spec.frames_dir, spec.required_clip_num) == (clips, f"{name}_data", 8)
        assert set(dict(spec.published)) == {"fvd", "vae_seq", "smoothness"}
    sampling = {
        name: (s := datasets.get(name)) and (s.frames_per_clip, s.clip_sampling_interval, s.max_clips)
        for name in names
    }
    assert sampling == {"MosMed": (15, 1, 10), "MRNet": (15, 1, 10), "ACDC": (8, 0, 2), "TUSC": (15, 1, 4)}
    tusc = datasets.get("TUSC")
    assert tusc.has_text and not tusc.pad_short_cases and not tusc.numbered_from_one and tusc.digits == 0
