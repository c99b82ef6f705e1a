"""Step (a), third part, for TUSC: the nodules' descriptions from their TI-RADS codes (method, section 2)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import SPLITS
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import exclusive, read_jsonl, write_jsonl
from ctrlgenaug.preprocessing.raw_files import find
from ctrlgenaug.preprocessing.tirads import Nodule, read_nodules

TUSC = datasets.get("TUSC")


def put_texts(folder: Path, nodules: dict[str, Nodule], table: Path) -> tuple[int, int]:
    """Writes each frame's description into the metadata in ``folder``; (rows, rows that changed)."""
    seen = changed = 0
    with exclusive(folder):
        for split in SPLITS:
            path = TUSC.metadata_path(folder, split)
            rows = []
            for row in read_jsonl(path, ("file_name", "cls")):
                case, _ = TUSC.parse_frame(Path(row["file_name"]).stem)
                if case not in nodules or nodules[case].problem:
                    raise UserError(
                        f"has no description of {case}", f"Mend its row, or leave it out of {path}", table
                    )
                rows.append({"file_name": row["file_name"], "text": nodules[case].text, "cls": row["cls"]})
                changed += rows[-1] != row
            seen += len(rows)
            write_jsonl(path, rows)
    return seen, changed


def main() -> int:
    """Parses the command line and runs the step."""
    parser = steps.parser(
        "Step (a), third part, for TUSC: write a sentence for each nodule, made from its TI-RADS codes, into the "
        "metadata. The image steps do so too; run this one alone after a correction in the table. Run it inside TUSC/.",
        "cd TUSC && python extract_all_texts.py",
    )
    parser.add_argument("--metadata", default="metadata.csv", help="TI-RADS table (default: %(default)s)")
    parser.add_argument(
        "--all_frames_dir",
        default=TUSC.slices_dir,
        help="folder with metadata to fill (default: %(default)s)",
    )
    arguments = parser.parse_args()
    table, folder = find(arguments.metadata, TUSC.home), find(arguments.all_frames_dir, TUSC.home)
    if not folder.is_dir():
        raise UserError("is not a folder", "Run save_all_consecutive_images.py first", folder)
    nodules, rejected = read_nodules(table)
    for line, reason in rejected.items():
        print(f"skipped {line}: {reason}")
    rows, changed = put_texts(folder, {nodule.case: nodule for nodule in nodules}, table)
    verb = f"wrote the texts of {changed} of" if changed else "already complete: the texts of"
    print(f"{verb} {rows} frames in {folder}; next: {TUSC.home}/sample_videos.py")
    return 1 if rejected else 0


if __name__ == "__main__":
    steps.run(main)
