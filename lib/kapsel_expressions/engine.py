"""The CEL engine: the compiled module of the package `cel`, without what that package imports besides.

Used by whoever here compiles a text. `import cel` also imports the package's command line and with it prompt_toolkit,
rich, typer and pygments: 190 modules that no process of ours has a use for, and that every one would pay for at start.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING


def _engine() -> ModuleType:
    if "cel.cel" in sys.modules:  # it cannot be loaded twice
        return sys.modules["cel.cel"]
    package = find_spec("cel")  # which finds a package without importing it
    spec = package and PathFinder.find_spec("cel.cel", package.submodule_search_locations)
    if not spec or spec.loader is None:
        return import_module("cel")  # not there; or a release that is laid out in another way: dearer, and the same
    engine = module_from_spec(spec)
    sys.modules[spec.name] = engine  # where `import cel` finds it, if somebody wants the whole package after all
    spec.loader.exec_module(engine)
    return engine


if TYPE_CHECKING:
    from cel import OptionalValue, Program
    from cel import compile as compile_program
else:
    _loaded = _engine()
    OptionalValue, Program, compile_program = _loaded.OptionalValue, _loaded.Program, _loaded.compile

__all__ = ["OptionalValue", "Program", "compile_program"]
