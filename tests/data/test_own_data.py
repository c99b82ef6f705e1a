"""docs/your_own_data.md: each example from its raw files to a generated clip, by the page's own data file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_examples import EXAMPLES, FRAMES, PATIENTS, film, ultrasound_dicom

from augment.generation.plan import Sample
from augment.generation.synthesiser import SequenceSynthesiser
from cond2img.sampling import Sampling
from ctrlgenaug import datasets
from ctrlgenaug.datasets.data_file import DataFile, read_data_file
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_jsonl
from ctrlgenaug.preprocessing.own.cases import find_cases
from ctrlgenaug.preprocessing.own.reading import fitted, read_case
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.video import read_video

PAGE = Path(__file__).parents[2] / "docs" / "your_own_data.md"
CLASSES = {
    "Brain": ("low-grade", "high-grade"), "Lung": ("COVID", "CAP"), "Thyroid": ("benign", "malignant"),
    "Polyp": ("adenoma", "hyperplastic"), "Knee": ("0", "1"),
}  # fmt: skip
# none of these can be spelled in hexadecimal by a fingerprint in a ledger
NOBODY = re.compile(r"doe|jane|MRN|REQ\d|19510203|20200229|1\.2\.826", re.IGNORECASE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the five examples' raw files, a tiny sequence model of two classes and a stand-in for MedSAM."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "training"))
    import torch
    from tiny import make_weights

    from augment.demo.weights import write_medsam
    from cond2img.models import UNet2DMultiConditionModel, load_vae
    from cond2video.models import UNet3DMultiConditionModel

    root = tmp_path_factory.mktemp("own data")
    torch.manual_seed(0)
    weights = make_weights(root / "weights")
    UNet2DMultiConditionModel.from_pretrained_2d(weights, "unet", num_class_embeds=2).save_pretrained(
        root / "unet"
    )
    sequence = UNet3DMultiConditionModel.from_pretrained_2d(root / "unet", init="official")
    sequence.save_pretrained(root / "model" / "unet3d")
    load_vae(weights / "vae").save_pretrained(root / "model" / "vae-pretrained")
    for name in ("text_encoder", "tokenizer", "scheduler"):
        (weights / name).rename(root / "model" / name)
    write_medsam(root / "medsam")
    for name, make in EXAMPLES.items():
        make(root / name)
    return root


@pytest.fixture(autouse=True)
def _no_data_in_use(monkeypatch):
    monkeypatch.delenv("CTRLGENAUG_DATA", raising=False)


@pytest.mark.parametrize("name", EXAMPLES)
def test_from_raw_files_to_a_generated_clip(name, world, call_script, tmp_path):
    guessed = world / name / f"{name}.yaml"
    call_script("prepare_data.py", "--guess", name, "--out", guessed, cwd=world)
    written = tmp_path / f"{name}.yaml"
    written.write_text(
        re.search(rf"<!-- file: {name}/{name}.yaml -->\n```yaml\n(.*?)```", PAGE.read_text(), re.S)[1]
    )
    assert read_data_file(guessed) == read_data_file(
        written
    )  # the guess is what the page shows, without edits
    told = call_script("prepare_data.py", "--data", f"{name}/{name}.yaml", "--num_workers", 1, cwd=world)
    spec = datasets.load(guessed)
    home = world / name
    _whole(spec, home, name)

    frames, clips = f"{name}/{spec.frames_dir}", f"{name}/{spec.clips_dir}"
    priors = ("--medsam_checkpoint", "medsam", "--first_frames_only", "--split", "train", "--device", "cpu")
    call_script("extract_image_priors.py", "--data_dir", frames, *priors, cwd=world)
    call_script("extract_motion_field_trajs.py", "--clip_data_dir", clips, "--num_workers", 1, cwd=world)
    clip = spec.clips(home)[0]
    if name == "Brain":  # the command with its worker processes, which must know the data file too
        few = ("--num_inference_steps", 1, "--device_id_list", "cpu", "--predifined_sampled_num", 1)
        data = (
            "--data",
            f"{name}/{name}.yaml",
            "--class_label",
            clip.cls,
            "--output_dir",
            f"{name}/synthetic",
        )
        call_script("generate.py", "--sequence_model_path", "model", *data, *few, cwd=world)
        (synthetic,) = (home / "synthetic").glob("*.mp4")
        assert read_video(synthetic, 8).shape == (8, 256, 256) and f"_{clip.cls}_66" in synthetic.name
    else:
        sample = Sample(clip.name, clip.cls, 66)
        conditions = ("image_condition", "motion_condition")
        made = SequenceSynthesiser(
            "cpu",
            str(world / "model"),
            name,
            str(home),
            conditions,
            sampling=Sampling(num_inference_steps=1),
        )
        (frames_made,) = made.synthesise([sample], [made.load(sample)])
        assert frames_made.shape == (8, 256, 256) and frames_made.std() > 0
    again = call_script("prepare_data.py", "--data", f"{name}/{name}.yaml", cwd=world)
    assert again.stdout.count("already complete") == 2
    if name == "Lung":
        _nobody_is_named(home, told.stdout + told.stderr)


def _whole(spec, home, name):
    """Every case is there, in its class, with the pixels and the orientation that were drawn."""
    rows = [
        row
        for split in datasets.SPLITS
        for row in read_jsonl(home / spec.slices_dir / f"{split}_metadata.jsonl")
    ]
    cases = {spec.parse_frame(Path(row["file_name"]).stem)[0]: row["cls"] for row in rows}
    scans = 2 * PATIENTS if name == "Knee" else PATIENTS
    frames = 18 if name == "Thyroid" else FRAMES
    assert len(cases) == scans and len(rows) == scans * frames
    first, second = CLASSES[name]
    assert sorted(cases.values()) == sorted([first] * (scans // 2) + [second] * (scans // 2))
    ours = read_png(home / spec.slices_dir / f"{spec.frame_name(min(cases), 3)}.png")
    drawn = fitted(film(0, frames, 64 if name == "Thyroid" else 48)[2]).astype(float)
    assert (
        np.corrcoef(ours.ravel(), drawn.ravel())[0, 1] > 0.97
    )  # windows and lossy video keep the picture's order
    if name == "Polyp":
        assert rows[0]["text"].endswith("mm polyp in the ascending colon.")


def _nobody_is_named(home, told):
    """No name, date or id of a patient in file names, metadata, ledgers or what was said."""
    made = [path for folder in home.glob("Lung_*") if folder.is_dir() for path in folder.rglob("*")]
    assert len(made) > 100
    for path in made:
        assert not NOBODY.search(path.relative_to(home).as_posix())
        if path.suffix in (".json", ".jsonl") or path.name.startswith("."):
            assert not NOBODY.search(path.read_text())
    assert not NOBODY.search(told.replace(str(home.parent), ""))
    key = home / "Lung_key.csv"
    assert "MRN0" in key.read_text() and key.stat().st_mode & 0o077 == 0


def test_patients_keep_their_numbers_when_others_come(world, tmp_path):
    from raw_examples import lung

    home = lung(tmp_path / "Lung")
    data = _data(kind="dicom", columns={"patient": "Patient ID", "class": "Diagnosis"}, table="clinical.xlsx")
    data.classes = ["COVID", "CAP"]
    before = {case.sources: case.name for case in find_cases(data, home).cases}
    ultrasound_dicom(home / "export" / "A_FIRST" / "us.dcm", film(0), patient="3")
    after = {case.sources: case.name for case in find_cases(data, home).cases}
    assert {after[sources] for sources in before} == set(before.values())
    assert set(after.values()) - set(before.values()) == {_of(after, "us.dcm")}
    assert _of(after, "us.dcm").endswith("_c2")  # a second case of a patient who is known


def _of(names, file):
    return next(name for sources, name in names.items() if sources[0].name == file)


def _data(kind, columns=None, table="", pattern="", **fields):
    data = DataFile(name="Own", **fields)
    data.raw.kind, data.pseudonyms = kind, kind == "dicom"
    data.raw.pattern = pattern or {"dicom": "**/*", "frames": "{case}/*"}.get(kind, "**/{case}.*")
    data.table.file, data.table.columns = table, columns or {}
    return data


def test_ultrasound_films_lose_their_margins(tmp_path):
    path = tmp_path / "benign" / "us.dcm"
    ultrasound_dicom(path, film(4, 9))
    data = _data("dicom", pattern="{class}/**", classes=["benign", "malignant"])
    data.slices.crop = "region"
    from ctrlgenaug.preprocessing.batch import Case

    frames = read_case(Case("x", "train", "benign", (path,)), data)
    assert len(frames) == 9
    np.testing.assert_array_equal(frames[3], fitted(film(4, 9)[2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("kind:", "knid:"), "unknown field raw.knid. Did you mean raw.kind?"),
        (
            lambda text: text.replace("kind: nifti", "kind: nifty"),
            "raw.kind is 'nifty', .*did you mean nifti",
        ),
        (
            lambda text: text.replace("case: scan", "caes: scan"),
            "a key of table.columns is 'caes'.*did you mean case",
        ),
        (
            lambda text: text.replace("volumes/", "volume/"),
            "matches nothing: there are 6 .gz, 1 .yaml, 1 .csv",
        ),
        (
            lambda text: text.replace("class: grade", "class: garde"),
            "lacks the column garde. It has scan, sex, grade",
        ),
        (lambda text: text.replace("labels.csv", "label.csv"), "label.csv: does not exist"),
        (lambda text: text.replace("low_grade: low-grade", "lo: low-grade"), None),
        (
            lambda text: text.replace("[high-grade, low-grade]", "[high_grade, low-grade]"),
            "class 'high_grade' cannot",
        ),
        (lambda text: text.replace("name: Brain", "name: Brian"), "is named Brain, but describes Brian"),
        (lambda text: text + "clips: 3\n", "Brain.yaml"),
        (
            lambda text: text.replace("percentiles: [0.5, 99.5]", "window: [400, -1000]"),
            "must be .low, high.",
        ),
    ],
)
def test_mistakes_in_a_data_file_are_told_in_one_line(change, message, tmp_path, world, call_script):
    from raw_examples import brain

    home = brain(tmp_path / "Brain")
    text = re.search(r"<!-- file: Brain/Brain.yaml -->\n```yaml\n(.*?)```", PAGE.read_text(), re.S)[1]
    assert change(text) != text
    (home / "Brain.yaml").write_text(change(text))
    code = 1 if message is None else 2
    result = call_script(
        "prepare_data.py", "--data", "Brain/Brain.yaml", "--num_workers", 1, cwd=tmp_path, code=code
    )
    if message is None:  # a class that is not in the list: the rows are named and left out
        assert "skipped line 2 of labels.csv: class 'low_grade' is unknown" in result.stdout
        assert "3 cases failed" in result.stdout
    else:
        assert re.search(message, result.stderr) and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("case,label,split\na,0,train\nb,1,teh test\n", "says split 'teh test' .line 3 of t.csv."),
        ("case,label,split\na,0,val\nb,1,test\n", "says both val and test"),
        ("case,label,who,split\na,0,x,train\nb,1,x,test\n", "puts one patient into train and test"),
        ("case,label\na,0\na,1\nb,1\n", "has 2 rows for one case .lines 2, 3."),
        ("case,label\na,x\nb,y\n", "none of its classes is known: it says 'x'"),
        ("case,label\nq,0\nr,1\n", "none of 4 entries can be used"),
        ("case,label\n", "names no case in any row"),
    ],
)
def test_tables_that_contradict_themselves(rows, message, tmp_path):
    (tmp_path / "t.csv").write_text(rows)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", film(0))
    header = rows.splitlines()[0].split(",")
    columns = {"case": "case", "class": "label"} | ({"split": "split"} if "split" in header else {})
    columns |= {"patient": "who"} if "who" in header else {}
    data = _data("npy", columns, "t.csv", classes=["0", "1"])
    with pytest.raises(UserError, match=message):
        find_cases(data, tmp_path)


def test_a_registered_data_set_is_known_by_its_name(world, tmp_path, monkeypatch):
    from ctrlgenaug.datasets import registry, spec

    registered = tmp_path / "configs"
    registered.mkdir()
    monkeypatch.setattr(registry, "REGISTERED", registered)
    monkeypatch.setattr(spec, "REGISTERED", registered)
    target = tmp_path / "elsewhere" / "Own.yaml"
    target.parent.mkdir()
    target.write_text("name: Own\nclasses: [a, b]\nraw: {kind: npy, pattern: '{class}/{case}.npy'}\n")
    (registered / "Own.yaml").symlink_to(target)
    assert Path(datasets.get("own").home) == target.parent  # a link: the data stay where their file is
    (registered / "Own.yaml").unlink()
    (registered / "Own.yaml").write_text(target.read_text())
    assert datasets.get("Own").home == "Own" and datasets.data_names() == ["Own"]
