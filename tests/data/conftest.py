"""Small phantom data sets, made once."""

import shutil

import pytest

from ctrlgenaug.phantom import class_counts, make_phantom

SMALL = {"MosMed": (11, (15, 17)), "MRNet": (8, (7, 31)), "ACDC": (10, (8, 10)), "TUSC": (8, (16, 20))}

# By data set the scripts that write pictures, in order, each with the folders it writes; the first has the ledger.
WRITERS = {
    "MosMed": {
        "MosMedData/extract_all_slices.py": ("MosMed_all_slices",),
        "MosMedData/sample_sequences.py": ("MosMed_volume", "MosMed_data"),
    },
    "MRNet": {
        "MRNet/extract_all_slices.py": ("MRNet_all_slices",),
        "MRNet/sample_sequences.py": ("MRNet_volume", "MRNet_data"),
    },
    "ACDC": {
        "ACDC/extract_all_slices.py": ("ACDC_all_slices",),
        "ACDC/sample_sequences.py": ("ACDC_volume", "ACDC_data"),
    },
    "TUSC": {
        "TUSC/extract_all_images.py": ("TUSC_all_images",),
        "TUSC/save_all_consecutive_images.py": ("TUSC_all_images_consecutive",),
        "TUSC/sample_videos.py": ("TUSC_video", "TUSC_data"),
    },
}


@pytest.fixture(scope="session")
def small():
    """Cases and slices of each small phantom."""
    return SMALL


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """``originals("MosMed")``: the folder of a small phantom; do not change it."""
    made = {}

    def get(data_name):
        if data_name not in made:
            made[data_name] = tmp_path_factory.mktemp("phantom") / data_name
            cases, slices = SMALL[data_name]
            make_phantom(
                data_name, made[data_name], class_counts(data_name, cases, True), seed=1, slices=slices
            )
        return made[data_name]

    return get


@pytest.fixture
def phantom(originals, tmp_path):
    """``phantom("MosMed")``: a copy of a small phantom, to be read, written and spoilt."""

    def copy(data_name):
        return shutil.copytree(originals(data_name), tmp_path / f"{data_name} Ünïcode home")

    return copy


@pytest.fixture(scope="session")
def writers():
    """Scripts and the folders that they write, by data set."""
    return WRITERS


@pytest.fixture(scope="session")
def finished(originals, tmp_path_factory, run_script):
    """``finished("MRNet")``: a home that went through all steps in one process, undisturbed; do not change it."""
    made = {}

    def get(data_name):
        if data_name not in made:
            made[data_name] = shutil.copytree(
                originals(data_name), tmp_path_factory.mktemp("finished") / "home"
            )
            for script in WRITERS[data_name]:
                run_script(script, "--num_workers", 1, cwd=made[data_name])
        return made[data_name]

    return get
