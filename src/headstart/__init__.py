"""Small multilingual students that start as a piece of their fine-tuned teacher."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.checkup import check
    from headstart.errors import HeadstartError
    from headstart.loading import load_recipe
    from headstart.recipe import Recipe
    from headstart.record import Record
    from headstart.repair import refit
    from headstart.report import report
    from headstart.run import run
    from headstart.steps import evaluate_model
    from headstart.student import student_from
    from headstart.study import study

__all__ = [
    "HeadstartError",
    "Recipe",
    "Record",
    "check",
    "evaluate_model",
    "load_recipe",
    "refit",
    "report",
    "run",
    "student_from",
    "study",
]

_ROOMS = {
    "HeadstartError": "errors",
    "Recipe": "recipe",
    "Record": "record",
    "check": "checkup",
    "evaluate_model": "steps",
    "load_recipe": "loading",
    "refit": "repair",
    "report": "report",
    "run": "run",
    "student_from": "student",
    "study": "study",
}


def __getattr__(name: str) -> object:
    """Open a room when one of its names is asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headstart.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Door(ModuleType):
    """Keeps functions in front of the rooms of the same name: `run`, `study`, `report`.

    Python puts a room in its package as soon as anything imports it, and so would hide them.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _ROOMS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
