"""Damages one sample of every format in every way, and reads it with the loader that users' files meet.

    python tests/foundations/fuzz_loaders.py FOLDER ROUNDS SEED

Prints a line for every reading that ended otherwise than with a value or the one-line error, and a count at the end.
It runs as a process of its own, because a library that is written in C may crash; FOLDER/now then holds the file.
"""

from __future__ import annotations

import gzip
import json
import pickle
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctrlgenaug.errors import UserError

SECONDS = 20  # for one file
MEMORY = 12 << 30  # bytes of address space


# --- samples: written once, into a folder of their own -------------------------------------------------------------


def write_samples(folder: Path) -> None:
    import cv2
    import h5py
    import nibabel
    import pandas
    from diffusers import AutoencoderKL
    from safetensors.torch import save_file

    from augment import classifiers
    from augment.demo.weights import _stable_diffusion_parts, write_tokenizer
    from ctrlgenaug import plain_data, video
    from ctrlgenaug.conditions import trajectories

    noise = np.random.default_rng(0)
    still = trajectories.track(np.zeros((1, 2, 256, 256), np.float32), 0)
    frames = noise.integers(0, 256, (2, 64, 64), dtype=np.uint8)
    plain_data.write_json(folder / "settings.json", {"a": [1, 2.5, None], "b": {"c": "text"}})
    rows = [{"file_name": f"study_000{i}_s01.avi", "cls": "CT-0", "text": "é"} for i in range(4)]
    plain_data.write_jsonl(folder / "train_metadata.jsonl", rows)
    plain_data.save_npy(folder / "array.npy", noise.random((3, 4)).astype(np.float16))
    plain_data.save_npy(folder / "field.npy", np.zeros((1, 2, 256, 256), np.float32))
    plain_data.save_npy(folder / "tracks.npy", still)
    trajectories.save_official(folder / "official.npy", still)
    (folder / "bare.pkl").write_bytes(
        pickle.dumps({"traj32": torch.arange(6).view(2, 3), "n": np.float32(1)}, 2)
    )
    cv2.imwrite(str(folder / "frame.png"), noise.integers(0, 256, (256, 256), dtype=np.uint8))
    cv2.imwrite(str(folder / "picture.jpg"), frames[0])
    video.write_avi(folder / "clip.avi", frames)
    video.write_mp4(folder / "clip.mp4", frames)
    image = nibabel.Nifti1Image(
        noise.integers(-1000, 400, (8, 8, 4)).astype(np.int16), np.diag([-1, 1, 1, 1])
    )
    nibabel.save(image, folder / "volume.nii")
    nibabel.save(image, folder / "packed.nii.gz")
    _write_dicom(folder / "slice.dcm")
    table = pandas.DataFrame({"case": ["a", "b"], "class": [0, 1], "text": ["x", "ü"]})
    table.to_csv(folder / "table.csv", index=False)
    table.to_excel(folder / "table.xlsx", index=False)
    (folder / "Info.cfg").write_text("ED: 1\nES: 4\nGroup: NOR\nHeight: 180.0\n")
    with h5py.File(folder / "films.hdf5", "w") as films:
        films["image"] = films["mask"] = frames
        films["annot_id"], films["frame_num"] = [b"1_", b"1_"], [0, 1]
    config = Path("configs/data/MosMed.yaml").read_text(encoding="utf-8")
    (folder / "MosMed.yaml").write_text(config, encoding="utf-8")
    (folder / "training.yaml").write_text(
        "data_name: MosMed\nlearning_rate: 1e-4\nseed: 3\npretrained_model_path: a\noutput_dir: b\n"
    )
    tiny = classifiers.build("tiny", 3, 32)
    classifiers.save(folder / "classifier.pth", tiny, "tiny", ["a", "b", "c"], "MosMed")
    tensors = {"module.a": torch.rand(3, 4), "module.b.weight": torch.rand(2)}
    torch.save({"state_dict": tensors}, folder / "tensors.bin")
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "tensors.safetensors")
    (folder / "checkpoint-1").mkdir()
    torch.save({"step": 1, "rng": torch.rand(4)}, folder / "checkpoint-1" / "training_state.pt")
    vae = AutoencoderKL(1, 1, ("DownEncoderBlock2D",), ("UpDecoderBlock2D",), (32,))
    vae.save_pretrained(folder / "vae")
    write_tokenizer(folder / "tokenizer")
    _stable_diffusion_parts(0)["text_encoder"].save_pretrained(folder / "text_encoder")
    (folder / ".finished.jsonl").write_text('\n{"case": "a", "made_from": [1], "files": {"a.png": 3}}\n')
    (folder / "manifest.jsonl").write_text(
        '{"file": "study_0001_s01_CT-0_66.mp4", "clip": "study_0001_s01"}\n'
    )
    (folder / "study_0001_s01_CT-0_66.mp4").write_bytes((folder / "clip.mp4").read_bytes())


def _write_dicom(path: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid(entropy_srcs=["a"])
    data.SeriesInstanceUID, data.Modality, data.InstanceNumber = generate_uid(entropy_srcs=["b"]), "CT", 1
    data.Rows = data.Columns = 16
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [1, 1]
    data.PixelData = np.arange(256, dtype=np.uint16).tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    pydicom.dcmwrite(path, data, enforce_file_format=True)


# --- loaders: by the sample that they read -------------------------------------------------------------------------


def loaders() -> dict[str, list[Callable[[Path], Any]]]:
    from augment.classifiers.weights import read_weights
    from augment.generation.synthesis_folder import SynthesisFolder
    from cond2img.models.text import load_text_encoder, load_tokenizer
    from cond2img.models.vae import load_vae
    from ctrlgenaug import datasets, plain_data, tensor_files
    from ctrlgenaug.conditions.motion_field import load_field, read_vectors
    from ctrlgenaug.conditions.trajectories import load_trajectories
    from ctrlgenaug.config import load_config
    from ctrlgenaug.datasets.data_file import read_data_file
    from ctrlgenaug.preprocessing import dicom, ledger, nifti, pictures, png, tables
    from ctrlgenaug.preprocessing.readers.acdc import read_info
    from ctrlgenaug.preprocessing.readers.tusc import open_films, rows_by_nodule
    from ctrlgenaug.restricted_pickle import load_restricted_pickle
    from ctrlgenaug.training.checkpoints import load_state
    from ctrlgenaug.training.config import TrainingConfig
    from ctrlgenaug.video import read_video

    def films(path: Path) -> None:
        with open_films(path) as opened:
            rows_by_nodule(opened, path)

    def series(path: Path) -> None:
        for found in dicom.find_series([path])[0]:
            dicom.read_series(found.files)

    mosmed = datasets.get("MosMed")
    return {
        "settings.json": [plain_data.read_json],
        "train_metadata.jsonl": [lambda path: mosmed.all_rows(path.parent, "train")],
        "array.npy": [plain_data.load_npy, lambda path: plain_data.load_npy(path, mmap=True)],
        "field.npy": [lambda path: load_field(path, 2)],
        "tracks.npy": [lambda path: load_trajectories(path, 2)],
        "official.npy": [lambda path: load_trajectories(path, 2)],
        "bare.pkl": [load_restricted_pickle],
        "frame.png": [png.read_png, pictures.read_picture],
        "picture.jpg": [pictures.read_picture],
        "clip.avi": [read_video],
        "clip.mp4": [read_video, read_vectors],
        "volume.nii": [nifti.read_volume],
        "packed.nii.gz": [nifti.read_volume],
        "slice.dcm": [series],
        "table.csv": [tables.read_table],
        "table.xlsx": [tables.read_table],
        "Info.cfg": [read_info],
        "films.hdf5": [films],
        "MosMed.yaml": [read_data_file],
        "training.yaml": [lambda path: load_config(TrainingConfig, path)],
        "classifier.pth": [read_weights, _classifier],
        "tensors.bin": [tensor_files.read_tensors, read_weights],
        "old.pth": [tensor_files.read_tensors, read_weights],
        "tensors.safetensors": [tensor_files.read_tensors],
        "checkpoint-1/training_state.pt": [lambda path: load_state(path.parent)],
        "vae/config.json": [lambda path: load_vae(path.parent)],
        "vae/diffusion_pytorch_model.safetensors": [lambda path: load_vae(path.parent)],
        "tokenizer/vocab.json": [lambda path: load_tokenizer(path.parent)],
        "tokenizer/merges.txt": [lambda path: load_tokenizer(path.parent)],
        "tokenizer/tokenizer_config.json": [lambda path: load_tokenizer(path.parent)],
        "text_encoder/config.json": [lambda path: load_text_encoder(path.parent)],
        ".finished.jsonl": [lambda path: ledger.entries(path.parent)],
        "manifest.jsonl": [lambda path: SynthesisFolder(path.parent).clips(mosmed)],
    }


def _classifier(path: Path) -> None:
    from augment import classifiers

    classifiers.load(path)


# --- damage --------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with one to three kinds of damage; most of it near the beginning, where headers are."""
    if rng.random() < 0.2 and data[:2] == b"\x1f\x8b":  # what is packed is damaged before it is packed
        return gzip.compress(damaged(gzip.decompress(data), rng))
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        near = min(len(changed), 512) if rng.random() < 0.6 else len(changed)
        if not near:
            break
        at = int(rng.integers(near))
        span = int(rng.integers(1, 17))
        match int(rng.integers(10)):
            case 0:
                del changed[at:]
            case 1:
                changed[at] ^= 1 << int(rng.integers(8))
            case 2:
                changed[at : at + span] = rng.bytes(span)
            case 3:
                changed[at:at] = rng.bytes(span)
            case 4:
                del changed[at : at + span]
            case 5:
                changed[at : at + span] = bytes(span)
            case 6:
                changed[at : at + 8] = rng.choice(
                    [b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x00\x00\x80" * 2]
                )
            case 7:
                other = int(rng.integers(len(changed)))
                changed[at : at + span] = changed[other : other + span]
            case 8:
                digits = [index for index, byte in enumerate(changed[:4096]) if 48 <= byte <= 57]
                if digits:
                    where = digits[int(rng.integers(len(digits)))]
                    changed[where : where + 1] = rng.choice(
                        [b"-1", b"99999999999", b"nan", b"1e999", b'"x"', b"[]"]
                    )
            case 9:
                changed[at:at] = rng.choice(
                    [b"[" * 5000, b"\xe2\x80\xa8", b"\xff\xfe", b"\r", b"{}", b"\x00", b"null"]
                )
    return bytes(changed)


def main(folder: Path, rounds: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    samples = folder / "samples"
    samples.mkdir(parents=True)
    write_samples(samples)
    table = loaders()
    assert not {name for name in table if not (samples / name).is_file()}

    def too_slow(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_slow)
    count = errors = 0
    for name, readers in table.items():
        # the files beside it stay whole, so that only one is to blame
        work = folder / "now"
        shutil.rmtree(work, ignore_errors=True)
        source = samples / name
        if source.parent == samples:
            work.mkdir()
            shutil.copy(source, work)
        else:
            shutil.copytree(source.parent, work)
        target, whole = work / source.name, source.read_bytes()
        for read in readers:
            target.write_bytes(whole)
            read(target)  # the sample itself is fine
        for number in range(rounds):
            rng = np.random.default_rng([seed, number, *name.encode()])
            target.write_bytes(damaged(whole, rng))
            for index, read in enumerate(readers):
                count += 1
                started = time.perf_counter()
                signal.alarm(SECONDS)
                try:
                    read(target)
                except UserError as error:
                    errors += 1
                    if "\n" in str(error) or "weights_only" in str(error) or "allow_pickle" in str(error):
                        print(json.dumps([name, number, index, f"not for users: {error}"]), flush=True)
                except BaseException as error:
                    reason = f"{type(error).__name__}: {error}"[:300]
                    print(json.dumps([name, number, index, reason]), flush=True)
                finally:
                    signal.alarm(0)
                if time.perf_counter() - started > SECONDS / 2:
                    print(json.dumps([name, number, index, "slow"]), flush=True)
    print(json.dumps({"read": count, "refused": errors}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
