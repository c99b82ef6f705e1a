"""What a demo's page says was wanted and found."""

from __future__ import annotations

import json

import numpy as np
import pytest

from augment.demo.goals import goals, goals_section
from augment.demo.pictures import field_picture
from augment.report.page import Notice

METRICS = {
    "class_control": {
        "all": {"accuracy": 0.83, "count": 18},
        "CT-0": {"accuracy": 0.5},
        "CT-1": {"accuracy": 1.0},
        "CT-234": {"accuracy": 1.0},
    },
    "image_prior": {"all": {"retrieved": 1.0, "candidates": 6}},
    "motion_field": {"all": {"nearer_than_another": 0.6}},
    "optical_flow": {"all": {"nearer_than_another": 0.85}},
    "slice_order": {"all": {"synthetic": {"mean": 0.9}, "real": {"mean": 0.95}}},
}
CSV = """step,split,timestep,condition,own,another,none
0,test,850,image prior,0.3,0.4,0.5
9,test,850,image prior,0.1,0.9,0.3
9,test,500,image prior,0.9,0.9,0.9
9,train,850,image prior,0.9,0.9,0.9
"""


def test_every_figure_is_judged_by_what_is_wanted(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps({"data_name": "ACDC", "metrics": METRICS}))
    (tmp_path / "runs/ldm").mkdir(parents=True)
    (tmp_path / "runs/ldm/steering.csv").write_text(CSV)
    found = {goal.what: (goal.reached, goal.found) for goal in goals(tmp_path)}
    assert found == {
        "class asked for is found": (True, "83.0 % of 18 clips"),
        "in every class": (False, "50.0 % of CT-0"),
        "own image prior retrieved": (True, "100.0 % among 6 of the class"),
        "motion, extracted again, nearer to its own field than to another's": (
            False,
            "60.0 % (50 % is chance)",
        ),
        "motion, by optical flow, nearer to its own field than to another's": (
            True,
            "85.0 % (50 % is chance)",
        ),
        "slices in order": (True, "0.90, real clips 0.95"),
        "image model: error with the own prior over another's, test patients": (
            True,
            "0.11 (0.100 own, 0.900 another's)",
        ),
    }
    notice = next(block for block in goals_section(tmp_path).blocks if isinstance(block, Notice))
    assert "in every class; motion, extracted again, nearer" in notice.text


@pytest.mark.parametrize(("data_name", "judged"), [("MosMed", 0), ("MRNet", 0), ("TUSC", 2), ("ACDC", 2)])
def test_motion_is_judged_where_things_move(tmp_path, data_name, judged):
    (tmp_path / "evaluation.json").write_text(json.dumps({"data_name": data_name, "metrics": METRICS}))
    assert sum(goal.what.startswith("motion") for goal in goals(tmp_path)) == judged


def test_a_run_without_figures_has_no_goals(tmp_path):
    assert goals(tmp_path) == []


def test_a_field_is_brightest_where_most_moves():
    field = np.zeros((2, 2, 64, 64), np.float32)
    field[0, 0, 10, 20], field[0, 1, 40, 40] = 3.0, -6.0
    shown = field_picture(field)
    assert shown.shape == (3, 64, 64) and not shown[0].any() and not shown[2].any()
    assert shown[1, 40, 40] == 255 and 120 < shown[1, 10, 20] < 135 and shown[1, 12, 22] == shown[1, 10, 20]
