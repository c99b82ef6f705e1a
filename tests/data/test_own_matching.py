"""Which row, mask, patient and frames belong to which raw file: nothing is taken for another in silence."""

from __future__ import annotations

import numpy as np
import pytest
from raw_examples import dicom_slice, film

from ctrlgenaug.datasets.data_file import DataFile
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.own.cases import find_cases


def described(kind="npy", columns=None, pattern="", **fields):
    """A data file of two classes; with columns, ``t.csv`` is the table."""
    data = DataFile(name="Own", **{"classes": ["0", "1"], **fields})
    data.raw.kind, data.raw.pattern = kind, pattern or "**/{case}.np[yz]"
    data.pseudonyms = kind == "dicom" if data.pseudonyms is None else data.pseudonyms
    data.table.file, data.table.columns = "t.csv" if columns else "", columns or {}
    return data


def arrays(folder, *names):
    for index, name in enumerate(names):
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, film(index))


def table(folder, text):
    (folder / "t.csv").write_text(text, encoding="utf-8")


def classes_of(found, home):
    return {case.sources[0].relative_to(home).as_posix(): case.cls for case in found.cases}


def test_a_column_of_paths_tells_files_of_one_name_apart(tmp_path):
    arrays(tmp_path, *(f"scans/P{i}/T1" for i in range(1, 5)))
    lines = [f"{i},scans\\P{i}\\T1.npy,{i % 2}" for i in range(1, 5)]
    table(tmp_path, "\n".join(["who,path,label", *lines]))
    data = described(columns={"file": "path", "patient": "who", "class": "label"})
    data.split.test_fraction = 0.5
    found = find_cases(data, tmp_path)
    assert classes_of(found, tmp_path) == {f"scans/P{i}/T1.npy": str(i % 2) for i in range(1, 5)}
    assert len({case.name for case in found.cases}) == 4


def test_a_row_of_one_file_is_not_taken_for_all_of_its_name(tmp_path):
    arrays(tmp_path, "P1/T1", "P2/T1", "P3/T1", "P4/T1", "P5/T1")
    table(tmp_path, "who,path,label\n" + "".join(f"{i},P{i}/T1.npy,{i % 2}\n" for i in range(1, 5)))
    data = described(columns={"file": "path", "patient": "who", "class": "label"})
    data.split.test_fraction = 0.5
    found = find_cases(data, tmp_path)
    assert len(found.cases) == 4 and list(found.rejected) == ["P5/T1.npy"]


@pytest.mark.parametrize("names", [("7", "007"), ("a/x", "b/x")])
def test_two_files_that_one_row_fits_are_refused(names, tmp_path):
    arrays(tmp_path, *names, "y")
    table(tmp_path, f"case,label\n{names[0].rpartition('/')[2]},0\ny,1\n")
    with pytest.raises(UserError, match="fits several files") as told:
        find_cases(described(columns={"case": "case", "class": "label"}), tmp_path)
    assert all(f"{name}.npy" in str(told.value) for name in names)


def test_what_follows_a_dot_in_a_name_is_not_always_a_suffix(tmp_path):
    arrays(tmp_path, "doe.jane", "doe.john", "x", "y")
    table(tmp_path, "case,label\ndoe.jane,0\ndoe.john.npy,1\nx.nii.gz,0\ny,1\n")
    data = described(columns={"case": "case", "class": "label"})
    data.split.test_fraction = 0.5
    found = find_cases(data, tmp_path)
    expected = {"doe.jane.npy": "0", "doe.john.npy": "1", "x.npy": "0", "y.npy": "1"}
    assert classes_of(found, tmp_path) == expected


def test_a_patient_may_be_spelled_in_two_ways(tmp_path):
    """Or the two spellings could lie in train and test."""
    arrays(tmp_path, *(f"s{i:02d}" for i in range(24)))
    who = [("7", "007", "7.0", "p 1", "P 1", "p  1")[i] if i < 6 else f"{100 + i}" for i in range(24)]
    lines = [f"s{i:02d},{who[i]},{i % 2}" for i in range(24)]
    table(tmp_path, "\n".join(["case,who,label", *lines]))
    data = described(columns={"case": "case", "patient": "who", "class": "label"})
    splits = {}
    for seed in range(6):
        data.split.seed = seed
        for case in find_cases(data, tmp_path).cases:
            splits.setdefault((seed, case.name.partition("_")[0]), set()).add(case.split)
    names = {case.sources[0].stem: case.name for case in find_cases(data, tmp_path).cases}
    assert len({names[f"s{i:02d}"].partition("_")[0] for i in range(6)}) == 2
    assert all(len(found) == 1 for found in splits.values())


def test_path_and_table_must_agree_on_the_patient(tmp_path):
    arrays(tmp_path, "P1/a", "P2/b", "P3/c", "P4/d", "P5/e")
    table(tmp_path, "case,who,label\na,p1,0\nb,P2,1\nc,P1,0\nd,P4,1\ne,P5,0\n")
    data = described(
        columns={"case": "case", "patient": "who", "class": "label"}, pattern="{patient}/{case}.npy"
    )
    data.split.test_fraction = 0.5
    found = find_cases(data, tmp_path)
    assert len(found.cases) == 4
    assert "another patient than the table ('P3', the table 'P1')" in found.rejected["line 4 of t.csv"]


def test_frames_of_one_name_in_two_folders_are_two_cases(tmp_path):
    import cv2

    for site in ("site1", "site2"):
        for name in ("x", "y"):
            (tmp_path / site / name).mkdir(parents=True)
            for k, frame in enumerate(film(0)):
                cv2.imwrite(str(tmp_path / site / name / f"{site}-{k}.png"), frame)
    data = described("frames", {"case": "case", "class": "label"}, "*/{case}/*.png")
    table(tmp_path, "case,label\nx,0\ny,1\n")
    with pytest.raises(UserError, match="fits several files"):
        find_cases(data, tmp_path)
    parts = tmp_path / "parts"
    for number in range(3):  # a folder for each point in time is one case, as is a folder of folders
        (parts / f"{number}" / "deep").mkdir(parents=True)
        for name in "xyzw":
            cv2.imwrite(str(parts / f"{number}" / f"{name}.png"), film(0)[number])
    table(tmp_path, "case,label\nx,0\ny,1\nz,0\nw,1\n")
    data.raw.pattern, data.split.test_fraction = "parts/{number}/{case}.png", 0.5
    assert [len(case.sources) for case in find_cases(data, tmp_path).cases] == [3, 3, 3, 3]


def test_a_mask_that_fits_two_cases_is_refused(tmp_path):
    """``p1*`` fits ``p10_seg``, which comes first by name."""
    arrays(tmp_path, *(f"scans/p{i}" for i in (1, 10, 2, 3)), "masks/p10_seg", "masks/p1_seg", "masks/p2_seg")
    arrays(tmp_path, "masks/p3_seg")
    table(tmp_path, "case,label\np1,0\np10,1\np2,0\np3,1\n")
    data = described(columns={"case": "case", "class": "label"}, pattern="scans/{case}.npy")
    data.raw.mask, data.split.test_fraction = "masks/{case}*.npy", 0.5
    found = find_cases(data, tmp_path)
    assert len(found.cases) == 3
    assert "fits several masks, masks/p10_seg.npy and masks/p1_seg.npy" in found.rejected["scans/p1.npy"]
    data.raw.mask = "masks/{case}_*.npy"
    sources = {case.name: case.sources[-1].name for case in find_cases(data, tmp_path).cases}
    assert sources == {name: f"{name}_seg.npy" for name in ("p1", "p10", "p2", "p3")}


def test_suffixes_in_capitals_are_suffixes(tmp_path):
    for cls in "01":
        arrays(tmp_path, f"{cls}/a{cls}", f"{cls}/b{cls}")
        (tmp_path / cls / f"b{cls}.npy").rename(tmp_path / cls / f"b{cls}.NPY")
    data = described(pattern="{class}/{case}.np[yz]")
    data.split.test_fraction = 0.5
    assert sorted(case.name for case in find_cases(data, tmp_path).cases) == ["a0", "a1", "b0", "b1"]
    data.raw.pattern = "{class}/{case}.NPY"
    assert len(find_cases(data, tmp_path).cases) == 4


def test_names_are_composed_as_text_is(tmp_path):
    """Some file systems keep ä as two signs; tables and data files have one."""
    arrays(tmp_path, *(f"{cls}/sch\u0061\u0308del{i}" for i, cls in enumerate("0101")))
    table(tmp_path, "case,label\n" + "".join(f"sch\u00e4del{i},b\u00f6{i % 2}\n" for i in range(4)))
    data = described(columns={"case": "case", "class": "label"}, classes=["bo\u03080", "b\u00f61"])
    data.split.test_fraction = 0.5
    assert len(find_cases(data, tmp_path).cases) == 4
    for index, name in enumerate(("bo\u03080", "b\u00f61")):
        (tmp_path / str(index)).rename(tmp_path / name)
    data = described(pattern="{class}/{case}.npy", classes=["b\u00f60", "bo\u03081"])
    data.split.test_fraction = 0.5
    assert len(find_cases(data, tmp_path).cases) == 4


def test_a_mended_pattern_mends_the_names(tmp_path):
    """The key file keeps numbers, not what an earlier pattern made of names."""
    for who in "1234":
        arrays(tmp_path, f"P{who}/s1/T1", f"P{who}/s2/T1")
    data = described(columns={"patient": "who", "class": "label"}, pattern="{patient}/*/{case}.npy")
    table(tmp_path, "who,label\nP1,0\nP2,1\nP3,0\nP4,1\n")
    data.split.test_fraction = 0.5
    assert (
        len({case.name for case in find_cases(data, tmp_path).cases}) == 4
    )  # twice each: refused by what reads
    data.raw.pattern = "{patient}/{case}/T1.npy"
    names = [case.name for case in find_cases(data, tmp_path).cases]
    assert sorted(names) == [f"p000{who}_s{visit}" for who in "1234" for visit in (1, 2)]


def test_pseudonyms_asked_for_later_leave_no_name_behind(tmp_path):
    arrays(tmp_path, "JaneDoe", "JohnDoe", "MaryRoe", "PeteRoe")
    table(tmp_path, "scan,who,label\nJaneDoe,1,0\nJohnDoe,2,1\nMaryRoe,3,0\nPeteRoe,4,1\n")
    data = described(columns={"case": "scan", "patient": "who", "class": "label"})
    data.split.test_fraction = 0.5
    before = {case.sources: case.name for case in find_cases(data, tmp_path).cases}
    assert {name.partition("_")[2] for name in before.values()} == {
        "JaneDoe",
        "JohnDoe",
        "MaryRoe",
        "PeteRoe",
    }
    data.pseudonyms = True
    after = {case.sources: case.name for case in find_cases(data, tmp_path).cases}
    assert {sources: name.partition("_")[0] + "_c1" for sources, name in before.items()} == after
    assert find_cases(data, tmp_path).cases == find_cases(data, tmp_path).cases


def dicom_home(folder, column="PatientID"):
    """Series of four patients whose folders have numbers that other patients have as their ids."""
    for index, (who, folder_name) in enumerate(((1, 2), (2, 1), (3, 4), (4, 3))):
        for k in range(2):
            dicom_slice(
                folder / f"{folder_name}" / f"{k}.dcm", film(index)[k].astype(np.int16), series=f"1.2.{index}",
                study=f"1.3.{index}", patient=str(who), number=k, PatientID=str(who),
            )  # fmt: skip
    table(folder, "id,label\n1,0\n2,1\n3,0\n4,1\n")
    return folder


def test_ids_that_two_tags_have_are_asked_about(tmp_path):
    home = dicom_home(tmp_path)
    data = described("dicom", {"case": "id", "class": "label"}, "**/*.dcm")
    data.split.test_fraction = 0.5
    with pytest.raises(UserError, match="fits patient as well as folder.*table.match"):
        find_cases(data, home)
    for match, cls in (("patient", "0"), ("folder", "1")):
        data.table.match = match
        found = {case.sources[0].parent.name: case.cls for case in find_cases(data, home).cases}
        assert found["2"] == cls
