"""The data sets: what is particular to each (`spec`), the file that says so (`data_file`), and which there are."""

from ctrlgenaug.datasets.data_file import DataFile
from ctrlgenaug.datasets.options import DEFAULT, add_data_options, chosen
from ctrlgenaug.datasets.registry import data_file, data_names, get, load, of_folder
from ctrlgenaug.datasets.spec import IMAGE_SIZE, SPLITS, Clip, DatasetSpec

__all__ = [
    "DEFAULT",
    "IMAGE_SIZE",
    "SPLITS",
    "Clip",
    "DataFile",
    "DatasetSpec",
    "add_data_options",
    "chosen",
    "data_file",
    "data_names",
    "get",
    "load",
    "of_folder",
]
