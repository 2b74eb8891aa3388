"""The command line of a job: its own options and one flat option for each setting that it uses.

``settings: Annotated[Settings, Uses("walk", "cam.inference")]`` becomes ``--walk.alpha``, ``--cam.inference.scales``
and so on. The docstring under each field is its help.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import operator
import sys
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar, cast, get_type_hints

import tyro

from engine.config import Settings
from engine.plain_settings import part_at, with_part
from engine.runs.options import StartsFrom, Uses

Options = TypeVar("Options")

_COLUMNS = 79
_SETTINGS = "settings"


class Surface(Generic[Options]):
    """Converts between a job's options class and flat command-line options."""

    def __init__(self, options_class: type[Options]) -> None:
        self._class: Any = options_class
        self._hints = get_type_hints(options_class, include_extras=True)
        notes = getattr(self._hints.get(_SETTINGS), "__metadata__", ())
        self.paths: tuple[str, ...] = next((note.paths for note in notes if isinstance(note, Uses)), ())
        """Dotted paths of the settings that the job uses."""
        self.sources: dict[str, tuple[str, ...]] = {
            name: note.paths
            for name, hint in self._hints.items()
            for note in getattr(hint, "__metadata__", ())
            if isinstance(note, StartsFrom)
        }
        """Options that name an earlier job's output, each with the settings taken from its record."""
        self._own = [item for item in dataclasses.fields(options_class) if item.name != _SETTINGS]  # type: ignore[arg-type]

    @property
    def program(self) -> str:
        """The command as typed: ``tag2mask NAME``, or ``python -m jobs.NAME``, which runs the file as ``__main__``."""
        if self._class.__module__ == "__main__":
            return f"python -m {_module_of(self._class)}"
        return f"tag2mask {name_of(self._class).replace('_', '-')}"

    @property
    def description(self) -> str:
        """The job's docstring and its required options, wrapped for 80 columns.

        tyro joins all lines except those that start with a space.
        """
        paragraphs = inspect.cleandoc(self._class.__doc__ or "").split("\n\n")
        required = [
            f"--{item.name.replace('_', '-')}" for item in self._own if _default_of(item) is dataclasses.MISSING
        ]
        if required:
            paragraphs.append(f"Required: {', '.join(required)}.")
        return "\n\n".join(textwrap.fill(part, _COLUMNS, subsequent_indent=" ") for part in paragraphs)

    def start(self) -> type[Any]:
        """Build a dataclass of the options that set the defaults: ``preset``, ``config`` and the :attr:`sources`."""
        names = {"preset", "config", *self.sources}
        chosen = [self._option(item, required=False) for item in self._own if item.name in names]
        return dataclasses.make_dataclass("Start", chosen, kw_only=True)

    def command(self, settings: Settings | None) -> type[Any]:
        """Build the flat dataclass that tyro parses, with the given settings as defaults."""
        parts = [] if settings is None else [_part(settings, path) for path in self.paths]
        return dataclasses.make_dataclass("Command", [*map(self._option, self._own), *parts], kw_only=True)

    def options(self, values: Mapping[str, Any], settings: Settings | None) -> Options:
        """Create the job's options from the values of a parsed :meth:`command`."""
        own = {item.name: values[item.name] for item in self._own}
        if settings is None:
            return cast(Options, self._class(**own))
        for path in self.paths:
            settings = with_part(settings, path, values[_field_name(path)])
        return cast(Options, self._class(**own, settings=settings))

    def setting(self, field: str) -> str:
        """Convert tyro's name of a setting to its dotted path."""
        names = {_field_name(path).replace("_", "-"): path for path in self.paths}
        first, dot, rest = field.partition(".")
        return names.get(first, first) + dot + rest

    def _option(self, item: dataclasses.Field[Any], *, required: bool = True) -> tuple[str, Any, Any]:
        default = _default_of(item)
        if default is dataclasses.MISSING and not required:
            default = ""
        hint = "(optional)" if default == "" else None
        text = _help_of(self._class, item.name)
        return _flat(item.name, self._hints[item.name], tyro.conf.arg(help=text, help_behavior_hint=hint), default)


def name_of(options_class: type[Any]) -> str:
    """Return the name of the job that takes these options."""
    return _module_of(options_class).rpartition(".")[2]


def _module_of(options_class: type[Any]) -> str:
    module = sys.modules[options_class.__module__]
    return module.__spec__.name if module.__spec__ else module.__name__


def _default_of(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _part(settings: Settings, path: str) -> tuple[str, Any, Any]:
    parent, _, name = path.rpartition(".")
    holder = type(part_at(settings, parent) if parent else settings)
    option = tyro.conf.arg(name=path.replace("_", "-"), help=_help_of(holder, name))
    return _flat(_field_name(path), get_type_hints(holder)[name], option, part_at(settings, path))


def _flat(name: str, hint: Any, option: Any, default: Any) -> tuple[str, Any, Any]:
    """Build a field for :func:`dataclasses.make_dataclass`."""
    return name, operator.getitem(Annotated, (hint, option)), dataclasses.field(default=default)


def _field_name(path: str) -> str:
    return f"settings_{path.replace('.', '_')}"


def _help_of(holder: type[Any], name: str) -> str:
    texts = (text for one in holder.__mro__ if (text := _texts_under_fields(one).get(name)))
    return next(texts, "")


@lru_cache
def _texts_under_fields(holder: type[Any]) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, read from its source."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(holder))).body
    except (OSError, TypeError):  # a built-in class
        return {}
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            assert isinstance(text.value, ast.Constant)
            texts[field.target.id] = " ".join(inspect.cleandoc(str(text.value.value)).split())
    return texts
