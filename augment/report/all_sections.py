"""The report of a whole run of the pipeline: every stage's section, from what the steps left on disk."""

from __future__ import annotations

from collections.abc import Callable

from augment.report import (
    comparison_section,
    data_sections,
    evaluation_sections,
    quality_sections,
    synthesis_sections,
    training_sections,
)
from augment.report.page import Notice, Section
from augment.report.run_folders import RunFolders
from ctrlgenaug.errors import UserError

SECTIONS: dict[str, Callable[[RunFolders], Section]] = {
    "Data": data_sections.data_section,
    "Conditions": data_sections.conditions_section,
    "Training": training_sections.training_section,
    "Generation": synthesis_sections.generation_section,
    "Real beside synthetic": synthesis_sections.beside_section,
    "VAE-Seq": synthesis_sections.vae_seq_section,
    "Noise filter": synthesis_sections.filter_section,
    "Class control": evaluation_sections.control_section,
    "Steering": evaluation_sections.steering_section,
    "Evaluation": evaluation_sections.evaluation_section,
    "Privacy": evaluation_sections.privacy_section,
    "Classifiers": quality_sections.classifiers_section,
    "Does it help?": comparison_section.comparison_section,
}


def sections(folders: RunFolders) -> dict[str, Section]:
    """All sections by title; one whose files are damaged says so and does not take the others with it."""
    found = {}
    for title, make in SECTIONS.items():
        try:
            found[title] = make(folders)
        except UserError as error:
            found[title] = Section(title, [Notice(str(error))])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            why = f"{type(error).__name__}: {error}"
            notice = Notice(
                f"A file of this section is not as the step writes it ({why}). Run the step again."
            )
            found[title] = Section(title, [notice])
    return found
