"""``python -m ctrlgenaug.phantom``: writes a phantom data set."""

from __future__ import annotations

import argparse

from ctrlgenaug import steps
from ctrlgenaug.arguments import number, positive_int, seed_number, whole_number
from ctrlgenaug.errors import UserError
from ctrlgenaug.phantom import class_counts, formats, make_phantom


def _counts(text: str) -> dict[str, int]:
    try:
        return {cls.strip(): int(count) for cls, count in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form CLASS=COUNT,...") from None


def _range(text: str) -> tuple[int, int]:
    try:
        least, most = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FEWEST,MOST") from None
    return least, most


def main() -> int:
    """Parses the command line and writes the data set."""
    parser = steps.parser(
        "Write small synthetic patients in a data set's raw format, with findings that depend on the class. "
        "They stand in for real data in the demo and the tests; they are no medical data.",
        "python -m ctrlgenaug.phantom --data_name MosMed --cases 30 --balance --seed 0 --out MosMedData",
    )
    parser.add_argument("--data_name", required=True, choices=formats(), help="whose raw format to write")
    parser.add_argument("--cases", type=positive_int, default=30, help="patients (default: %(default)s)")
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="same seed, same patients (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, help="folder to write, e.g. MosMedData")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--balance",
        action="store_true",
        help="as many patients of each class (default: as often as in the real data)",
    )
    classes.add_argument(
        "--class_counts",
        type=_counts,
        help="patients a class, e.g. CT-0=10,CT-1=10,CT-3=4; overrides --cases",
    )
    parser.add_argument("--slices", type=_range, help="fewest,most slices (frames) of a patient, e.g. 20,24")
    parser.add_argument(
        "--in_plane",
        type=positive_int,
        help="MosMed only: rows and columns of a slice in pixels (default: 512)",
    )
    parser.add_argument(
        "--movement",
        type=number(0),
        default=0.0,
        help="pixels that the view drifts from one slice to the next, as in a patient who breathes: at most on "
        "average, and a quarter of the patients lie still (default: %(default)g). It tells nothing of the class",
    )
    parser.add_argument(
        "--num_workers", type=whole_number, default=1, help="processes (default: %(default)s)"
    )
    arguments = parser.parse_args()
    name = arguments.data_name
    options = {}
    if arguments.in_plane is not None:
        if name != "MosMed":
            raise UserError("--in_plane is for MosMed alone", "Leave it out")
        if arguments.in_plane < 2:
            raise UserError(f"--in_plane {arguments.in_plane} is too small", "Give e.g. 512")
        options["in_plane"] = arguments.in_plane
    counts = arguments.class_counts or class_counts(name, arguments.cases, arguments.balance)
    made = make_phantom(
        name,
        arguments.out,
        counts,
        seed=arguments.seed,
        slices=arguments.slices,
        movement=arguments.movement,
        num_workers=arguments.num_workers,
        **options,
    )
    per_class = ", ".join(f"{cls} {count}" for cls, count in counts.items())
    print(
        f"{'made' if made else 'already complete:'} {sum(counts.values())} {name} phantom patients ({per_class}) "
        f"in {arguments.out}; next: {formats()[name].first_step}, run inside that folder"
    )
    return 0


if __name__ == "__main__":
    steps.run(main)
