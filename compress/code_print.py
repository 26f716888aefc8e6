"""A fingerprint of what code does: stored work must not outlive an edit of the code behind it.

Two models with equal weights compute different things when one has ReLU and the other GELU, and so
does a loss function after an edit. Best effort: the bytecode of functions and methods with their
constants, defaults, closures and the functions of the user's own modules that they name; plain
attributes of objects. Not seen: what libraries do (their versions are the caller's affair), global
variables other than numbers and strings, and code that is reached through containers or strings.
"""

from __future__ import annotations

import hashlib
import re
import sysconfig
import types
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")})
_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.Size)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def code_print(value: object) -> str:
    """Hex SHA-256 of what a function, callable object or module would execute."""
    digest = hashlib.sha256()
    seen: set[int] = set()
    for part in _any(value, seen):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def _any(value: object, seen: set[int]) -> Iterator[str]:
    """Texts that say what ``value`` is, the same in each process."""
    # Constants are no reason to skip: whether equal ones are one object is the interpreter's whim.
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, types.CodeType):
        yield f"{value.co_code.hex()} {value.co_names} {value.co_varnames}"
        yield from _any(value.co_consts, seen)
    elif isinstance(value, tuple):
        yield f"tuple of {len(value)}"
        for item in value:
            yield from _any(item, seen)
    elif isinstance(value, frozenset | set):
        yield f"set of {len(value)}"
        yield from sorted(_ADDRESS.sub("", repr(item)) for item in value)
    elif id(value) not in seen:
        seen.add(id(value))
        yield from _once(value, seen)


def _once(value: object, seen: set[int]) -> Iterator[str]:
    if isinstance(value, types.FunctionType):
        yield from _function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _any((value.__func__, value.__self__), seen)
    elif isinstance(value, partial):
        yield from _any((value.func, value.args, value.keywords), seen)
    elif isinstance(value, list | dict):
        items = value.items() if isinstance(value, dict) else value
        yield type(value).__name__
        yield from _any(tuple(items), seen)
    elif isinstance(value, nn.Module):
        yield from _module(value, seen)
    elif isinstance(value, type):
        yield from _class(value, seen)
    else:
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__} {getattr(value, '__qualname__', '')}"
        yield from _class(kind, seen)
        yield from _attributes(value, seen)


def _function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    yield f"{function.__module__}.{function.__qualname__}"
    if function.__code__.co_filename.startswith(_LIBRARIES):
        return
    yield from _any(function.__code__, seen)
    yield from _any(function.__defaults__, seen)
    yield from _any(function.__kwdefaults__, seen)
    for cell in function.__closure__ or ():
        try:
            yield from _any(cell.cell_contents, seen)
        except ValueError:  # a name that is not bound yet
            yield "empty cell"
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, (types.FunctionType, *_PLAIN)):
            yield name
            yield from _any(value, seen)


def _class(kind: type, seen: set[int]) -> Iterator[str]:
    """The methods of a class and of its bases, as far as they are the user's."""
    for base in kind.__mro__:
        if id(base) in seen or base.__module__.partition(".")[0] in {"builtins", "torch"}:
            continue
        seen.add(id(base))
        for name, value in sorted(vars(base).items()):
            method = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(method, types.FunctionType):
                yield name
                yield from _function(method, seen)


def _attributes(value: object, seen: set[int]) -> Iterator[str]:
    for name, attribute in sorted(getattr(value, "__dict__", {}).items()):
        callable_too = isinstance(attribute, types.FunctionType | partial)
        if name.startswith("_") or not (
            callable_too or isinstance(attribute, (*_PLAIN, tuple, list))
        ):
            continue
        # Training or not is a mode of the moment.
        if name != "training":
            yield name
            yield from _any(attribute, seen)


def _module(module: nn.Module, seen: set[int]) -> Iterator[str]:
    """Structure and code of a module; its weights are not looked at."""
    seen.discard(id(module))
    yield _ADDRESS.sub("", repr(module))
    for name, part in module.named_modules():
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield f"{name} {type(part).__name__}"
        if isinstance(part, torch.fx.GraphModule):
            yield part.code
            continue
        yield from _class(type(part), seen)
        yield from _attributes(part, seen)
