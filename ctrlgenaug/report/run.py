"""The report of a whole run of the pipeline: every stage's section, from what the steps left on disk."""

from __future__ import annotations

from collections.abc import Callable

from ctrlgenaug.errors import UserError
from ctrlgenaug.report import data, judged, synthesis, training
from ctrlgenaug.report.page import Notice, Section
from ctrlgenaug.report.places import Places

SECTIONS: dict[str, Callable[[Places], Section]] = {
    "Data": data.data_section,
    "Conditions": data.conditions_section,
    "Training": training.training_section,
    "Generation": synthesis.generation_section,
    "Real beside synthetic": synthesis.beside_section,
    "VAE-Seq": synthesis.vae_seq_section,
    "Noise filter": synthesis.filter_section,
    "Class control": judged.control_section,
    "Evaluation": judged.evaluation_section,
    "Memorisation": judged.memorisation_section,
    "Classifiers": judged.classifiers_section,
    "Does it help?": judged.comparison_section,
}


def sections(places: Places) -> dict[str, Section]:
    """All sections by title; one whose files are damaged says so and does not take the others with it."""
    found = {}
    for title, make in SECTIONS.items():
        try:
            found[title] = make(places)
        except UserError as error:
            found[title] = Section(title, [Notice(str(error))])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            why = f"{type(error).__name__}: {error}"
            notice = Notice(
                f"A file of this section is not as the step writes it ({why}). Run the step again."
            )
            found[title] = Section(title, [notice])
    return found
