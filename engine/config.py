"""YAML and `key=value` overrides -> frozen, typed dataclasses; a wrong key or type stops with its name.

A config class is a frozen stdlib dataclass beside its consumer; its defaults are the paper's. Only this file
touches raw dictionaries. Limits on one value stand in its type (`Count`), those on several in `__post_init__`.
"""

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic
import yaml

T = TypeVar("T")
Count = Annotated[int, pydantic.Field(ge=1)]
CountOrNone = Annotated[int, pydantic.Field(ge=0)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file, key and what would be right."""


def load(
    config_class: type[T],
    path: str | Path | None = None,
    overrides: list[str] | tuple[str, ...] = (),
    below: dict[str, Any] | None = None,
) -> T:
    """Read `path` (may be None: all defaults), apply `a.b=value` overrides, validate.

    A file may name another beside it as `base:` and then holds only what differs from it. Values of `below` stand where
    neither the file nor an override says another.

    Raises:
        ConfigError: unreadable file, unknown or missing key, wrong type, value out of range.
    """
    data: dict[str, Any] = dict(below or {})
    if path is not None:
        data = _merged(data, read_yaml(Path(path)))
    for override in overrides:
        _apply_override(data, override)
    sources = [str(path)] * (path is not None) + ["command line"] * (path is None or bool(overrides))
    return from_dict(config_class, data, source=" and ".join(sources))


def from_dict(config_class: type[T], data: dict[str, Any], source: str = "config") -> T:
    """Validate plain values (from YAML, JSON or a checkpoint) into `config_class`. Raises ConfigError."""
    _check_keys(config_class, data, source, prefix="")
    _check_finite(data, source, prefix="")
    try:
        # JSON mode is strict about types and still turns lists into tuples and strings into paths.
        return pydantic.TypeAdapter(config_class).validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_sentence(e) for e in error.errors())) from error
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON/YAML values of a config; `from_dict(type(config), to_dict(config)) == config`."""
    return pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")


def save(config: Any, path: Path) -> None:
    """Write the whole config, defaults included, as YAML."""
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _check_finite(value: Any, source: str, prefix: str) -> None:
    """No setting of any script may be infinite or not a number."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_finite(inner, source, f"{prefix}{key}.")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_finite(inner, source, prefix)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{source}: {prefix.rstrip('.')} must be a finite number, found {value}")


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file says, laid over what its `base:` says. Raises ConfigError.

    Args:
        above: the files whose bases led here.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        raise ConfigError(
            f"config file {path} does not exist" + (f"; did you mean {near[0]}?" if near else "")
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read as text: {error}") from error
    data = _parsed(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` pairs, found {type(data).__name__}")
    base = data.pop("base", None)
    if base is None:
        return data
    above = (*above, path.resolve())
    below = path.parent / str(base)
    if below.resolve() in above:
        raise ConfigError(f"{path}: base {base} leads back to itself; name another, or take the line away")
    return _merged(read_yaml(below, above), data)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a section: YAML would take the last in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def _parsed(text: str, source: str) -> Any:
    """The values of a YAML text. Raises ConfigError."""
    try:
        data = yaml.load(text, _Loader)
        json.dumps(data, default=str, skipkeys=True)  # raises ValueError where a value holds itself
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()).replace(' in "<unicode string>",', ",")
        raise ConfigError(f"{source} is not valid YAML: {reason}") from error
    return data


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, section by section."""
    both = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = _merged(below[key], above[key])
    return both


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise ConfigError(f"override {override!r} is not of the form section.key=value")
    value = _parsed(text, f"the value of override {override!r}") if text else ""
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    data[last] = value


def _check_keys(config_class: type, data: Any, source: str, prefix: str) -> None:
    """Stop at keys that no field has (pydantic ignores them for stdlib dataclasses) and name the nearest one."""
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}: {prefix.rstrip('.') or 'the whole file'} must be a section of keys, found {data!r}"
        )
    hints = get_type_hints(config_class)
    names = [field.name for field in dataclasses.fields(config_class)]
    for key, value in data.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(names)}"
            raise ConfigError(f"{source}: unknown key {prefix}{key}; {hint}")
        nested = _nested_config(hints[key])
        if nested is not None and value is not None:
            _check_keys(nested, value, source, f"{prefix}{key}.")


def _nested_config(annotation: Any) -> type | None:
    """The dataclass inside `X` or `X | None`, if any."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((a for a in get_args(annotation) if isinstance(a, type) and dataclasses.is_dataclass(a)), None)
    return annotation if isinstance(annotation, type) and dataclasses.is_dataclass(annotation) else None


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "config"
    value = error["input"]
    message = f"{key}: {error['msg'].removeprefix('Value error, ')}"
    if error["type"] != "missing" and not isinstance(value, dict):
        message += f", found {value!r}"
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        message += f" (YAML reads {value} as text; write {value.lower().replace('e', '.0e', 1)})"
    return message
