"""Finds the strategy that the settings name: an entry point, or a class in a file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from schemas.records import StrategySpec
from streams.errors import ParametersInvalid, StrategyInvalid, StrategyNotFound
from streams.signals.envelope import StateCodec
from streams.signals.strategy import INPUTS, Strategy

GROUP = "headrace.strategies"
AnyStrategy = Strategy[Any, Any]


def load(spec: StrategySpec) -> AnyStrategy:
    """The strategy that ``spec.uses`` names, with its parameters.

    ``uses`` is the name of an entry point in the group `GROUP`, or ``path/to/file.py:Class``, relative to the
    folder that the process runs in. Raises StrategyNotFound, StrategyInvalid or ParametersInvalid.
    """
    if ".py:" in spec.uses:
        path, _, name = spec.uses.rpartition(":")
        found = _from_file(Path(path), name)
    else:
        found = _from_entry_point(spec.uses)
    strategy_type = _checked(spec.uses, found)
    strategy = strategy_type(_parameters(spec, strategy_type.Parameters))
    StateCodec(spec.name, strategy_type.State)
    return strategy


def _from_entry_point(name: str) -> Any:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        names = ", ".join(sorted(known)) or "none are installed"
        raise StrategyNotFound(
            f"no strategy is called {name!r}. Installed under the entry-point group {GROUP!r}: {names}. "
            f"A class in a file of yours is written path/to/file.py:Class."
        )
    try:
        return known[name].load()
    except Exception as error:
        raise StrategyNotFound(
            f"strategy {name!r} ({known[name].value}) cannot be imported: {error}"
        ) from error


def _from_file(path: Path, name: str) -> Any:
    if not path.is_file():
        raise StrategyNotFound(f"there is no file {path} (looked for from {Path.cwd()})")
    module = _module(path.resolve())
    if not hasattr(module, name):
        classes = sorted(
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
        )
        raise StrategyNotFound(
            f"{path} has no class {name!r}; its strategies: {', '.join(classes) or 'none'}"
        )
    return getattr(module, name)


def _module(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(f"headrace_strategy_{digest}", path)
    if spec is None or spec.loader is None:
        raise StrategyNotFound(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks up the annotations of the file's Structs there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise StrategyInvalid(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _checked(uses: str, found: Any) -> type[AnyStrategy]:
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise StrategyInvalid(f"{uses} is not a class derived from headrace.Strategy")
    if missing := sorted(found.__abstractmethods__):
        raise StrategyInvalid(f"{uses} lacks {', '.join(missing)}")
    for name in ("Parameters", "State"):
        declared = getattr(found, name, None)
        if not (isinstance(declared, type) and issubclass(declared, msgspec.Struct)):
            raise StrategyInvalid(f"{uses} needs a class {name} derived from msgspec.Struct")
    if not found.Parameters.__struct_config__.frozen:
        raise StrategyInvalid(
            f"{uses}.Parameters must be frozen: class Parameters(msgspec.Struct, frozen=True)"
        )
    if unknown := sorted(set(found.inputs) - INPUTS):
        raise StrategyInvalid(f"{uses} declares inputs {unknown}; there are {sorted(INPUTS)}")
    return found


def _parameters(spec: StrategySpec, declared: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        given = msgspec.json.decode(spec.parameters, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ParametersInvalid(f"the parameters of {spec.name!r} are not a JSON object: {error}") from error
    fields = {field.name: field for field in msgspec.structs.fields(declared)}
    for name in given:
        if name not in fields:
            names = ", ".join(sorted(fields)) or "none"
            raise ParametersInvalid(f"{spec.name!r} ({spec.uses}) has no parameter {name!r}; it has: {names}")
        try:
            given[name] = msgspec.convert(given[name], fields[name].type)
        except msgspec.ValidationError as error:
            message = f"parameter {name!r} of {spec.name!r} ({spec.uses}) is {given[name]!r}: {error}"
            raise ParametersInvalid(message) from error
    try:
        return declared(**given)
    except (TypeError, ValueError) as error:  # a parameter without default, or the Struct's own __post_init__
        raise ParametersInvalid(f"the parameters of {spec.name!r} ({spec.uses}): {error}") from error
