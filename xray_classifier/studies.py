"""Answers per study: what the films of one examination say together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xray_classifier.answers import OK, REFER

STUDY_COLUMNS = ("study_uid", "images", "ok", "p_sick_mean", "p_sick_max", "decision")
REGRESSION_COLUMNS = ("study_uid", "images", "ok", "prediction_mean", "prediction_max")


@dataclass
class _Study:
    images: int = 0
    ok: int = 0
    total: float = 0.0
    highest: float = float("-inf")
    sick: int = 0
    referred: int = 0


class Studies:
    """Adds up rows of a table of predictions by their column `study_uid`.

    Memory grows with the number of studies.

    Args:
        columns: Of the rows.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._place = {name: place for place, name in enumerate(columns)}
        self._score = "p_sick" if "p_sick" in columns else "prediction"
        self._studies: dict[str, _Study] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `rows`."""
        return STUDY_COLUMNS if self._score == "p_sick" else REGRESSION_COLUMNS

    def add(self, row: Sequence[Any]) -> None:
        """Count one row; those that name no study belong to none."""
        uid = row[self._place["study_uid"]]
        if not uid:
            return
        study = self._studies.setdefault(uid, _Study())
        study.images += 1
        score = row[self._place[self._score]]
        if row[self._place["status"]] != OK or score is None:
            return
        study.ok += 1
        study.total += score
        study.highest = max(study.highest, score)
        if self._score == "p_sick":
            decision = row[self._place["decision"]]
            study.sick += decision == "sick"
            study.referred += decision == REFER

    def rows(self) -> list[tuple[Any, ...]]:
        """One row per study, in the order of their first films."""
        return [(uid, *self._answer(study)) for uid, study in self._studies.items()]

    def _answer(self, study: _Study) -> tuple[Any, ...]:
        if not study.ok:
            scores: tuple[Any, ...] = (None, None)
        else:
            scores = (study.total / study.ok, study.highest)
        decision = (_decision(study),) if self._score == "p_sick" else ()
        return (study.images, study.ok, *scores, *decision)


def _decision(study: _Study) -> str | None:
    """Sick where any film is; healthy where all are.

    Otherwise some films are referred, or have no answer: that is left to a person.
    """
    if study.sick:
        return "sick"
    if not study.ok:
        return None
    return REFER if study.referred or study.ok < study.images else "healthy"
