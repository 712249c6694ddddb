"""Swift Hydra's rooms, and its one import name: ``from swift_hydra import SwiftHydra``.

In a clone the scripts that read like the paper stand beside this folder, in an installed package
inside of it; under either, ``swift_hydra.model`` is ``model.py``. Everything here imports
``swift_hydra.<name>`` only: a user's own ``model.py`` is never met.
"""

import importlib
import sys
import types
from pathlib import Path

_CLONE = Path(__file__).resolve().parent.parent
if (_CLONE / "SwiftHydra.py").is_file():
    __path__.append(str(_CLONE))

__all__ = ["SwiftHydra"]


class _Package(types.ModuleType):
    """Loads torch when the class is asked for, and not with the package."""

    @property
    def SwiftHydra(self):
        return importlib.import_module("swift_hydra.SwiftHydra").SwiftHydra

    @SwiftHydra.setter
    def SwiftHydra(self, module):
        """The import system offers the module of this name here: the name still means the class."""


sys.modules[__name__].__class__ = _Package
