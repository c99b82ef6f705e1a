"""A model asked by this process or by several: the same answers in the same order; a bad item costs itself alone."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from working_cases import Upper, refuse_to_open

from ctrlgenaug.errors import UserError
from ctrlgenaug.model_steps import Workers


def ask(items, workers, marks, batch_size=3, opener=Upper):
    return list(workers.ask(opener, {"marks": str(marks)}, items, batch_size=batch_size))


def shown(answers):
    return [str(answer) if isinstance(answer, UserError) else answer for answer in answers]


def test_one_process_or_two_answer_the_same(tmp_path):
    items = [*(f"item{i}" for i in range(7)), "refused", *(f"late{i}" for i in range(5))]
    alone = ask(items, Workers("cpu"), tmp_path / "one")
    assert alone[0] == "ITEM0" and len(alone) == 13
    assert shown(ask(items, Workers("cpu", 2), tmp_path / "two")) == shown(alone)
    assert str(alone[7]) == "refused: is damaged. Copy it again."
    opened = [(tmp_path / name / "opened").read_text() for name in ("one", "two")]
    assert opened[0] == "x" and len(opened[1]) <= 2  # the model is loaded once a worker
    batches = [sorted((tmp_path / name / "batches").read_text().splitlines()) for name in ("one", "two")]
    assert batches[0] == batches[1] and len(batches[0]) == 5  # the same items go through it together


def test_what_ends_a_worker_costs_itself_alone_and_too_many_are_halved(tmp_path):
    items = ["a", "kills", "b", "raises", "c", "d", "e", "f"]
    answers = dict(zip(items, shown(ask(items, Workers("cpu", 2), tmp_path, 4)), strict=True))
    assert [answers[name] for name in "abcdef"] == list("ABCDEF")
    assert "its worker died (exit code 3) (tried 2 times)" in answers["kills"]
    assert "ValueError: bad luck (tried 2 times)" in answers["raises"]
    few = ask([f"big{i}" for i in range(8)], Workers("cpu", 2), tmp_path / "big", 8)
    assert few == [f"BIG{i}" for i in range(8)]  # out of memory with more than two


@pytest.mark.parametrize("workers", [Workers("cpu"), Workers("cpu", 2)])
def test_a_full_disk_and_a_model_that_is_refused_end_the_step(tmp_path, workers):
    with pytest.raises(OSError, match="space"):
        ask(["a", "fills_disk", "b", "c"], workers, tmp_path, 1)
    with pytest.raises(UserError, match="is no model"):
        ask(["a", "b"], workers, tmp_path, 1, refuse_to_open)
