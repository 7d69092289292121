"""The declaration of noise and rooms, and its curriculum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgeav.data.disturbance import Curriculum, Disturbance, RoomShare
from edgeav.errors import EdgeavError


def test_the_default_curriculum_is_the_ramp_that_the_demo_was_trained_with() -> None:
    wanted = Disturbance(share=0.7)
    for progress in np.linspace(0, 1, 21):
        assert wanted.at(progress).share == pytest.approx(0.7 * min(1.0, 0.3 + progress / 0.3))
        assert wanted.at(progress).snr_db == (-5.0, 18.0)


def test_rooms_and_the_lowest_ratio_rise_in_a_straight_line_and_stay() -> None:
    easy_first = Curriculum(full_at=0.5, first_share=0.2, lowest_snr_db=15.0)
    wanted = Disturbance(share=1.0, snr_db=(-5.0, 20.0), rooms=RoomShare(share=0.5), curriculum=easy_first)
    middle, end = wanted.at(0.25), wanted.at(0.9)
    assert (middle.share, middle.rooms.share, *middle.snr_db) == pytest.approx((0.6, 0.3, 5.0, 20.0))
    assert (end.share, end.rooms.share, end.snr_db) == (1.0, 0.5, (-5.0, 20.0))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"snr_db": (10.0, 0.0)}, "runs backwards"),
        ({"kinds": {"hum": 1.0}}, "white"),
        ({"kinds": {}}, "at least one kind"),
        ({"kinds": {"recording": 1.0}}, "needs a folder"),
        ({"recordings": "x", "kinds": {"white": 1.0}}, "has no share"),
        ({"rooms": {"rt60_s": (0.0, 1.0)}}, "between 0.05 and 10"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Disturbance.model_validate(settings)


def test_absent_folders_are_an_error_unless_they_are_optional_and_then_it_is_said(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    wanted = Disturbance(recordings=gone, rooms=RoomShare(responses=gone + "2"))
    with pytest.raises(EdgeavError, match=r"(?s)noise\.recordings.*noise\.rooms\.responses.*optional"):
        wanted.present(print)
    said: list[str] = []
    left = wanted.model_copy(update={"optional": True}).present(said.append)
    assert len(said) == 2 and left.shares == {"babble": 1.0} and left.rooms.responses is None
    assert Disturbance(music=str(tmp_path)).present(said.append).shares == pytest.approx(
        {"babble": 2 / 3, "music": 1 / 3}
    )
    only = Disturbance(recordings=gone, kinds={"recording": 1.0}, optional=True)
    with pytest.raises(EdgeavError, match="nothing is left"):
        only.present(said.append)
