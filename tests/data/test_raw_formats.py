"""Raw files as they come: claims that are bombs, quirks of formats, links, litter. Each kind by several members."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import h5py
import nibabel
import numpy as np
import openpyxl
import pandas
import pytest
from nibabel import orientations

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.preprocessing import deflate, pictures, png, tables
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.nifti import existing, read_nifti, read_volume
from ctrlgenaug.preprocessing.own.reading import read_raw
from ctrlgenaug.preprocessing.raw_files import below, walk
from ctrlgenaug.preprocessing.readers import acdc, mosmed, mrnet, tusc
from ctrlgenaug.preprocessing.volumes import upright
from ctrlgenaug.video import read_video, write_mp4

MEGABYTE = 1 << 20


# --- what a file claims --------------------------------------------------------------------------------------------


def _header(shape, dtype=np.float64, image_class=nibabel.Nifti1Image, endianness="<"):
    header = image_class.header_class(endianness=endianness)
    header.set_data_shape(shape)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(endianness))
    header["magic"] = b"n+1\0" if image_class is nibabel.Nifti1Image else b"n+2\0\r\n\x1a\n"
    header["vox_offset"] = 352 if image_class is nibabel.Nifti1Image else 544
    return header.binaryblock + b"\0" * 4


def _nifti(path):
    path.write_bytes(_header((1290, 1290, 1290)))
    return read_nifti, "claims 16.0 GB|claims"


def _nifti2_big_endian(path):
    path.write_bytes(_header((1290, 1290, 1290), image_class=nibabel.Nifti2Image, endianness=">"))
    return read_nifti, "claims"


def _nifti_short(path):
    path.write_bytes(_header((100, 100, 100)))
    return read_nifti, "it claims 8000000 bytes of grey values, but has"


def _gzip(path):
    path.write_bytes(gzip.compress(_header((1000, 1000, 1000), np.uint8) + b"\0" * (64 * MEGABYTE), 9))
    return read_nifti, "no scan shrinks so far"


def _gzip_members(path):
    zeros = gzip.compress(b"\0" * (16 * MEGABYTE), 9)
    path.write_bytes(gzip.compress(_header((640, 1000, 1000), np.uint8)) + 40 * zeros)
    return read_nifti, "no scan shrinks so far"


def _workbook_far_cell(path):
    book = openpyxl.Workbook()
    book.active["A1"], book.active["B1"], book.active["A2"], book.active["B2"] = "id", "label", "x", "1"
    book.active.cell(1_000_000, 16_000, "far")
    book.save(path)
    return lambda path: tables.read_table(
        path, columns=("id", "label")
    ), None  # it is read, without the emptiness


def _workbook_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (200 * MEGABYTE))
    return tables.read_table, "unpacks to 200 MB"


def _text_without_end(path):
    with path.open("wb") as handle:
        handle.truncate(100 * MEGABYTE)  # sparse
    return tables.read_table, "is no table of patients"


def _png(path):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    head = png.SIGNATURE + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(head + b"\0\0\0\0IEND\xaeB`\x82")
    return png.read_png, "is 50000 x 50000 pixels, not 256 x 256"


def _picture(path):
    _png(path)
    return pictures.read_picture, "claims 50000 x 50000 pixels|Decompression"


def _bitmap(path):
    path.write_bytes(
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    return pictures.read_picture, "claims 40000 x 40000 pixels|not a whole picture"


def _npy(path):
    np.save(path, np.zeros((2, 4, 4)))
    data = path.read_bytes().replace(b"(2, 4, 4)", b"(9999,999,999)"[:9]).replace(b"(2, 4, 4)", b"")
    path.write_bytes(data.replace(b"'shape': (9999,999", b"'shape': (9999,9), "))
    return load_npy, "is not a readable"


def _video_of_large_frames(path):
    write_mp4(path, np.zeros((20, 4096, 4096), np.uint8), encoder_options=("-preset", "ultrafast"))
    return read_video, "frames of 4096 x 4096 pixels: no clip"


BOMBS = {
    "nifti": (_nifti, ".nii"), "nifti-2": (_nifti2_big_endian, ".nii"), "nifti, cut": (_nifti_short, ".nii"),
    "gzip": (_gzip, ".nii.gz"), "gzip members": (_gzip_members, ".nii.gz"), "far cell": (_workbook_far_cell, ".xlsx"),
    "workbook": (_workbook_bomb, ".xlsx"), "endless text": (_text_without_end, ".csv"), "png": (_png, ".png"),
    "picture": (_picture, ".png"), "bitmap": (_bitmap, ".bmp"), "npy": (_npy, ".npy"),
    "video": (_video_of_large_frames, ".mp4"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_claims_are_checked_before_memory_is_taken(kind, tmp_path):
    make, suffix = BOMBS[kind]
    path = tmp_path / f"bomb{suffix}"
    read, message = make(path)
    tracemalloc.start()
    try:
        if message is None:
            assert list(read(path).columns) == ["id", "label"]
        else:
            with pytest.raises(UserError, match=message):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 300 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_another_limit_can_be_set(tmp_path, monkeypatch):
    nibabel.save(
        nibabel.Nifti1Image(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), np.eye(4)),
        tmp_path / "v.nii",
    )
    monkeypatch.setenv("CTRLGENAUG_MOST_BYTES", "1999")
    with pytest.raises(UserError, match="CTRLGENAUG_MOST_BYTES sets another limit than 1999"):
        read_nifti(tmp_path / "v.nii")
    monkeypatch.setenv("CTRLGENAUG_MOST_BYTES", "2000")
    assert read_nifti(tmp_path / "v.nii").shape == (10, 10, 10)


def test_a_long_film_is_within_the_limit(tmp_path):
    """Frames that are cropped and scaled as they come: what counts is what stays in memory."""
    from ctrlgenaug.datasets.data_file import DataFile, Raw
    from ctrlgenaug.preprocessing.own.reading import read_case

    write_mp4(tmp_path / "long.mp4", np.tile(np.arange(256, dtype=np.uint8), (600, 256, 1)))
    data = DataFile(name="Own", classes=["a", "b"], raw=Raw(kind="video", pattern="{class}/{case}.*"))
    frames = read_case(Case("long", "train", "a", (tmp_path / "long.mp4",)), data)
    assert len(frames) == 600 and frames[600].shape == (256, 256)


# --- NIfTI ---------------------------------------------------------------------------------------------------------

LAS = np.random.default_rng(0).integers(-1000, 400, (16, 16, 5)).astype(np.int16)
AFFINE = np.diag([-1.0, 1.0, 5.0, 1.0])


def turned(codes):
    change = orientations.ornt_transform(orientations.axcodes2ornt("LAS"), orientations.axcodes2ornt(codes))
    affine = AFFINE @ orientations.inv_ornt_aff(change, LAS.shape)
    return nibabel.Nifti1Image(np.ascontiguousarray(orientations.apply_orientation(LAS, change)), affine)


@pytest.mark.parametrize("codes", ["LAS", "RAS", "LPS", "RAI", "PSR", "SAL", "IPR"])
def test_any_orientation_gives_the_same_slices(codes, tmp_path):
    nibabel.save(turned(codes), tmp_path / "v.nii.gz")
    case = Case("v", "train", "CT-0", (tmp_path / "v.nii.gz",))
    wanted = mosmed.slices(LAS)
    frames = mosmed.read_study(case, in_plane=16)
    assert all((frames[number] == wanted[number]).all() for number in wanted)
    volume = read_volume(tmp_path / "v.nii.gz")
    assert volume.orientation == codes and volume.thick_axis() == "axial"
    np.testing.assert_array_equal(upright(volume.oriented()), np.rot90(LAS).transpose(2, 0, 1))
    if codes in ("RAS", "LPS", "RAI"):  # the published behaviour: mirrored
        kept = mosmed.read_study(case, in_plane=16, as_stored=True)
        assert not all((kept[number] == wanted[number]).all() for number in wanted)


@pytest.mark.parametrize(
    ("axis", "corner"), [("axial", (0, 15, 0)), ("coronal", (0, 0, 4)), ("sagittal", (0, 15, 4))]
)
def test_slices_of_any_axis_are_upright(axis, corner, tmp_path):
    """The top left pixel of the first slice: right, front or head, as radiologists look at it."""
    nibabel.save(turned("RAS"), tmp_path / "v.nii")
    stack = upright(read_volume(tmp_path / "v.nii").oriented(), axis)
    assert stack[0, 0, 0] == LAS[corner]


QUIRKS = {
    "plain, named .nii.gz": lambda path: path.with_suffix(".gz").write_bytes(turned("LAS").to_bytes()),
    "gzip, named .nii": lambda path: path.write_bytes(gzip.compress(turned("LAS").to_bytes())),
    "two gzip members": lambda path: path.write_bytes(
        gzip.compress(turned("LAS").to_bytes()[:1000]) + gzip.compress(turned("LAS").to_bytes()[1000:])
    ),
    "trailing zeros": lambda path: path.write_bytes(gzip.compress(turned("LAS").to_bytes()) + b"\0" * 512),
    "trailing dimension": lambda path: nibabel.save(nibabel.Nifti1Image(LAS[..., None], AFFINE), path),
    "two trailing dimensions": lambda path: nibabel.save(
        nibabel.Nifti1Image(LAS[..., None, None], AFFINE), path
    ),
    "NIfTI-2": lambda path: nibabel.save(nibabel.Nifti2Image(LAS, AFFINE), path),
    "float64": lambda path: nibabel.save(nibabel.Nifti1Image(LAS.astype(np.float64), AFFINE), path),
    "big endian": lambda path: nibabel.save(
        nibabel.Nifti1Image(LAS, AFFINE, nibabel.Nifti1Header(endianness=">")), path
    ),
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_quirks_of_nifti_files_change_nothing(quirk, tmp_path):
    QUIRKS[quirk](tmp_path / "v.nii")
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(read_nifti(path), LAS)


@pytest.mark.parametrize("module", ["isal", "zlib"])
def test_a_flipped_bit_in_a_packed_volume_is_no_other_volume(module, tmp_path, monkeypatch):
    """Whatever comes out of it: the checksum at the end tells."""
    if module == "zlib":
        monkeypatch.setattr(deflate, "_module", zlib)
    voxels = np.random.default_rng(0).normal(0, 50, (32, 32, 8)).astype(np.int16)
    packed = bytearray(gzip.compress(nibabel.Nifti1Image(voxels, AFFINE).to_bytes(), 1))
    np.testing.assert_array_equal(_read_bytes(tmp_path / "v.nii.gz", packed), voxels)
    for place in range(1000, len(packed) - 20, len(packed) // 30):
        damaged = bytearray(packed)
        damaged[place] ^= 4
        with pytest.raises(UserError, match="is damaged or truncated"):
            _read_bytes(tmp_path / "v.nii.gz", damaged)


def _read_bytes(path, content):
    path.write_bytes(content)
    return read_nifti(path)


def test_a_table_may_name_the_other_suffix(tmp_path):
    for there, said in (("a.nii", "a.nii.gz"), ("b.nii.gz", "b.nii"), ("c.nii.gz", "c.nii.gz")):
        (tmp_path / there).write_bytes(b"x")
        assert existing(tmp_path / said) == tmp_path / there
    assert existing(tmp_path / "d.nii") == tmp_path / "d.nii"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_named_and_filled_only_if_asked(value, tmp_path):
    voxels = LAS.astype(np.float32)
    voxels[3, 4, 1] = voxels[5, 5, 2] = value
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "v.nii")
    with pytest.raises(UserError, match=r"holds 2 NaN or infinite voxels of 1280, the first at \(3, 4, 1\)"):
        read_nifti(tmp_path / "v.nii")
    case = Case("v", "train", "CT-0", (tmp_path / "v.nii",))
    frames = mosmed.read_study(case, in_plane=16, fill_air=True)
    air = LAS.copy()
    air[3, 4, 1] = air[5, 5, 2] = -1000
    np.testing.assert_array_equal(frames[2], mosmed.slices(air)[2])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint8])
def test_unsigned_ct_values(dtype, tmp_path):
    """The window's lower end lies outside their type: -1000 is no uint16."""
    voxels = (LAS.astype(int) % 200).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "v.nii")
    frames = mosmed.read_study(Case("v", "train", "CT-0", (tmp_path / "v.nii",)), in_plane=16)
    np.testing.assert_array_equal(frames[1], mosmed.slices(voxels.astype(np.int16))[1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 0.9999, 2.0001, 3.0]), None),
        (np.array([0, 1, 2, 3], np.float32) * np.float32(0.99999), None),
        (np.array([0.0, 0.5, 1.0, 2.0]), "0.5 away from whole numbers"),
        (np.array([0.0, 1.0, 300.0, 2.0]), "holds labels from 0.0 to 300.0"),
        (np.array([-1, 0, 1, 2]), "holds labels from -1 to 2"),
    ],
)
def test_labels_are_rounded_not_truncated(labels, message, tmp_path):
    if message is None:
        assert acdc.whole_labels(labels, tmp_path).tolist() == [0, 1, 2, 3]
    else:
        with pytest.raises(UserError, match=message):
            acdc.whole_labels(labels, tmp_path)


# --- folders, links, litter ----------------------------------------------------------------------------------------


def test_links_are_followed_and_litter_is_not_data(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "a.nii").touch()
    (elsewhere / "loop").symlink_to(elsewhere)
    home = tmp_path / "home"
    home.mkdir()
    (home / "studies").symlink_to(elsewhere)
    (home / "b.nii").symlink_to(elsewhere / "deep" / "a.nii")
    for name in ("._a.nii", ".DS_Store", "Thumbs.db", "desktop.ini", "~$labels.xlsx", ".hidden.nii"):
        (home / name).touch()
    for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir", "lost+found"):
        (home / name).mkdir()
        (home / name / "a.nii").touch()
    assert [path.relative_to(home).as_posix() for path in walk(home)] == ["b.nii", "studies/deep/a.nii"]


@pytest.mark.parametrize(
    "entry", ["../x.nii", "/../../etc/x.nii", "a/../../x.nii", "..\\x.nii", "a\0b", "/", ""]
)
def test_entries_that_leave_the_data_folder(entry, tmp_path):
    with pytest.raises(UserError, match="leaves the data folder"):
        below(tmp_path, entry)


@pytest.mark.parametrize("make", ["fifo", "folder", "socketlike", "not UTF-8", "missing", "empty"])
def test_what_is_no_regular_file_is_refused_at_once(make, tmp_path):
    import os

    path = tmp_path / "x.png"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    elif make == "socketlike":
        path.symlink_to("/dev/null")
    elif make == "empty":
        path.touch()
    elif make == "not UTF-8":
        path = tmp_path / os.fsdecode(b"x\xff.png")
        path.write_bytes(b"data")
    for read in (check_file, png.read_png, pictures.read_picture, read_video, read_nifti, tables.read_table):
        with pytest.raises(UserError):
            read(path)


@pytest.mark.parametrize("script", ["MosMed", "MRNet", "ACDC", "TUSC"])
def test_linked_and_littered_homes_are_read(
    script, finished, phantom, run_script, writers, repository, call_script
):
    """The home's raw folders lie elsewhere and are linked in; a Mac and an editor have been there."""
    home = phantom(script)
    store = home.parent / "store"
    store.mkdir()
    for item in list(home.iterdir()):
        item.rename(store / item.name)
        (home / item.name).symlink_to(store / item.name)
    for folder in [path for path in store.rglob("*") if path.is_dir()]:
        (folder / "._x.npy").write_bytes(b"\0")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / "__MACOSX").mkdir()
    first = next(iter(writers[script]))
    result = call_script(first, "--num_workers", 1, cwd=home)
    assert "skipped" not in result.stdout + result.stderr


# --- tables --------------------------------------------------------------------------------------------------------

ROWS = [("id", "label"), ("007", "CT-0"), ("8", "Grün"), ("9", "1")]


def _csv(separator, encoding, newline="\n"):
    return newline.join(separator.join(row) for row in ROWS).encode(encoding)


TABLES = {
    "comma": _csv(",", "utf-8"), "semicolon": _csv(";", "utf-8"), "tab": _csv("\t", "utf-8"),
    "mark": _csv(",", "utf-8-sig", "\r\n"), "UTF-16": _csv(";", "utf-16"), "UTF-16, no mark": _csv(",", "utf-16-le"),
    "UTF-16, big": b"\xfe\xff" + _csv("\t", "utf-16-be"), "Latin-1": _csv(";", "latin-1", "\r\n"),
    "old Mac": _csv(",", "utf-8", "\r"), "title above": b"Export of 1 May\n\n" + _csv(",", "utf-8"),
    "empty rows": _csv(",", "utf-8") + b"\n,\n,\n",
    "title of another kind": b"Miller, Smith, 3 May\n\n" + _csv(";", "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_csv_as_programs_write_it(kind, tmp_path):
    (tmp_path / "t.csv").write_bytes(TABLES[kind])
    table = tables.read_table(tmp_path / "t.csv", columns=("id", "label"))
    assert [tuple(row) for row in table.rows] == ROWS[1:]


def test_rows_know_their_lines(tmp_path):
    (tmp_path / "t.csv").write_text('A title\n\nid,label\n1,"two\nlines"\n\n2,b\n')
    table = tables.read_table(tmp_path / "t.csv", columns=("id", "label"))
    assert table.lines == [4, 7] and table.column("id") == ["1", "2"]
    frame = pandas.DataFrame([["A title", ""], ["id", "label"], ["1", "a"], [None, None], ["2", "b"]])
    frame.to_excel(tmp_path / "t.xlsx", header=False, index=False)
    assert tables.read_table(tmp_path / "t.xlsx", columns=("id", "label")).lines == [3, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,label\n1,a,b\n", "has the column label more than once"),
        ("id,text,label\n1,small, round,a\n", "line 2 has 4 cells, the header 3"),
        ("id,label\n1,7,a\n", "line 2 has 3 cells, the header 2"),  # R names rows, but not their column
        ("id;label\n1;a;;\n", None),
        ("id,label,note,note\n1,a,x,y\n", None),
    ],
)
def test_cells_that_might_be_another_columns(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    if message is None:
        assert tables.read_table(tmp_path / "t.csv", columns=("id", "label")).column("label") == ["a"]
        return
    with pytest.raises(UserError, match=message):
        tables.read_table(tmp_path / "t.csv", columns=("id", "label"))


def _styles(data, change):
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for item in source.infolist():
            content = source.read(item)
            archive.writestr(item, change(content) if item.filename == "xl/styles.xml" else content)
    return target.getvalue()


def _book(sheets):
    target = io.BytesIO()
    with pandas.ExcelWriter(target) as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    return target.getvalue()


LABELS = pandas.DataFrame(ROWS[1:], columns=ROWS[0])
NUMBERS = pandas.DataFrame({"id": [7, 8], "label": [1.0, 0.0]})
BOOKS = {
    "plain": (_book({"Sheet1": LABELS}), ROWS[1:]),
    "another sheet first": (_book({"Readme": pandas.DataFrame({"About": ["x"]}), "Data": LABELS}), ROWS[1:]),
    "an empty sheet first": (_book({"Empty": pandas.DataFrame(), "Data": LABELS}), ROWS[1:]),
    "numbers": (_book({"Sheet1": NUMBERS}), [("7", "1"), ("8", "0")]),
    "an empty fill": (
        _styles(_book({"Sheet1": LABELS}), lambda xml: xml.replace(b"<fill>", b"<fill/><fill>", 1)),
        ROWS[1:],
    ),
    "more columns": (_book({"Sheet1": LABELS.assign(note="x")}), [(*row, "x") for row in ROWS[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOOKS)
def test_workbooks_as_programs_write_them(kind, tmp_path):
    data, rows = BOOKS[kind]
    (tmp_path / "t.xlsx").write_bytes(data)
    table = tables.read_table(tmp_path / "t.xlsx", columns=("id", "label"))
    assert [tuple(row) for row in table.rows] == rows


@pytest.mark.parametrize(
    "data", [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, b"PK\x05\x06", b"\0\1\2\3" * 99, b"\n\n"]
)
def test_what_is_no_table(data, tmp_path):
    (tmp_path / "t.xlsx").write_bytes(data)
    with pytest.raises(UserError, match="t.xlsx: (is|has)"):
        tables.read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize("label", ["1.0", "1", "01"])
def test_mrnet_labels_of_spreadsheets(label, tmp_path):
    for folder in ("train", "valid"):
        (tmp_path / folder / "sagittal").mkdir(parents=True)
        (tmp_path / f"{folder}-acl.csv").write_text(f"7.0;{label}\n8;0.0\n")
    cases, rejected = mrnet.read_labels(tmp_path, "train")
    assert [(case.name, case.cls) for case in cases] == [("0007", "1"), ("0008", "0")] and not rejected


def test_where_every_row_is_rejected_the_reasons_come_first(tmp_path, call_script):
    LABELS.assign(study_file="/../x.nii", category="CT-0")[["id", "category", "study_file"]].to_csv(
        tmp_path / "dataset_registry.csv", index=False
    )
    result = call_script("MosMedData/extract_all_slices.py", cwd=tmp_path, code=2)
    assert "none of 3 entries can be used: '/../x.nii' leaves the data folder" in result.stderr
    (tmp_path / "metadata.csv").write_text(
        "annot_id,ti-rads_composition,ti-rads_echogenicity,ti-rads_shape,ti-rads_margin,ti-rads_echogenicfoci,"
        "ti-rads_level\nx_,1,1,0,0,0,4\n9_,1,1,0,0,0,77\n"
    )
    with h5py.File(tmp_path / "dataset.hdf5", "w"):
        pass
    result = call_script("TUSC/extract_all_images.py", cwd=tmp_path, code=2)
    assert "none of 2 entries can be used" in result.stderr and "ti-rads_level is '77'" in result.stderr


# --- HDF5 ----------------------------------------------------------------------------------------------------------


def _films(path):
    with h5py.File(path, "w") as films:
        for name in ("image", "mask"):
            films[name] = np.zeros((3, 8, 8), np.uint8)
        for name in ("annot_id", "frame_num"):
            films[name] = np.array([b"1_", b"1_", b"1_"])


def _external_link(films, other):
    del films["image"]
    films["image"] = h5py.ExternalLink(other, "/image")


def _virtual(films, other):
    del films["image"]
    layout = h5py.VirtualLayout((3, 8, 8), np.uint8)
    layout[:] = h5py.VirtualSource(other, "image", (3, 8, 8))
    films.create_virtual_dataset("image", layout)


def _external_storage(films, other):
    del films["image"]
    films.create_dataset("image", (3, 8, 8), np.uint8, external=[(str(other), 0, 192)])


@pytest.mark.parametrize("spoil", [_external_link, _virtual, _external_storage])
def test_hdf5_that_reads_other_files_is_refused(spoil, tmp_path):
    _films(tmp_path / "other.hdf5")
    _films(tmp_path / "dataset.hdf5")
    with h5py.File(tmp_path / "dataset.hdf5", "a") as films:
        spoil(films, str(tmp_path / "other.hdf5"))
    with pytest.raises(UserError, match="its image is a link"), tusc.open_films(tmp_path / "dataset.hdf5"):
        pass


def test_hdf5_open_elsewhere_is_not_called_damaged(tmp_path):
    import subprocess
    import sys

    _films(tmp_path / "dataset.hdf5")
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(1, flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "dataset.hdf5")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        other.stdout.readline()
        with (
            pytest.raises(UserError, match="is open in another program"),
            tusc.open_films(tmp_path / "dataset.hdf5"),
        ):
            pass
    finally:
        other.communicate()


# --- arrays --------------------------------------------------------------------------------------------------------

FILM = np.arange(3 * 8 * 6, dtype=np.uint8).reshape(3, 8, 6)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda path: np.save(path.with_suffix(".npy"), FILM), None),
        (lambda path: np.save(path.with_suffix(".npy"), FILM[..., None]), None),
        (lambda path: np.savez(path, frames=FILM, id=np.int64(3)), None),
        (lambda path: np.savez_compressed(path, a=FILM), None),
        (lambda path: np.savez(path, a=FILM, b=FILM), "holds 2 arrays of frames"),
        (lambda path: np.save(path.with_suffix(".npy"), FILM[0]), "holds an array of shape"),
        (lambda path: np.save(path.with_suffix(".npy"), np.array([{}], object)), "is not a readable"),
        (
            lambda path: np.savez_compressed(path, a=np.zeros((1000, 1000, 1000), np.uint8)),
            "no scan shrinks so far",
        ),
    ],
)
def test_arrays(save, message, tmp_path):
    from ctrlgenaug.datasets.data_file import DataFile, Raw

    data = DataFile(name="Own")
    data.raw = Raw(kind="npy")
    save(tmp_path / "x.npz")
    (path,) = tmp_path.iterdir()
    if message is None:
        np.testing.assert_array_equal(read_raw((path,), data)[0], FILM)
    else:
        with pytest.raises(UserError, match=message):
            read_raw((path,), data)
