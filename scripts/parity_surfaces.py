"""What each language's public surface holds, read from the code itself.

A surface maps the name of a type to its members, and each member, by its name
in snake_case, to how the language spells it. The functions of a package are
the members of the type `FUNCTIONS`. Rust is read from its sources, which
rustfmt keeps in one layout; Node from its declarations, by the TypeScript
compiler; Python from the imported modules.
"""

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import textwrap
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ""

Members = dict[str, str]
Surface = dict[str, Members]


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# Rust

ITEM = re.compile(
    r"pub (?P<kind>struct|enum|trait|type|(?:async )?fn) (?P<name>\w+)"
    r"|impl(?:<.*?>)? (?:(?P<trait>[\w:]+)(?:<.*>)? for )?(?P<of>\w+)"
)
HIDDEN = "#[doc(hidden)]"
METHOD = re.compile(
    r"((?:^    (?://|#)[^\n]*\n)*)^    pub (?:const )?(?:async )?fn (\w+)(?:<[^\n]*>)?\(\s*([^,)]*)", re.MULTILINE
)
FIELD = re.compile(r"^    pub (\w+):", re.MULTILINE)
VARIANT = re.compile(r"^    ([A-Z]\w*)(?:[,(]| \{)", re.MULTILINE)
VARIANT_FIELD = re.compile(r"^        (\w+):", re.MULTILINE)

# What a type is by a trait, for its user.
TRAITS = {"Stream": "iterate", "Iterator": "iterate", "Future": "await"}


def rust() -> Surface:
    """The public types of the crate. Of a struct the fields and the methods; of
    an enum the variants, and the fields of all of them as `Name.fields`."""
    root = (ROOT / "core/src/lib.rs").read_text()
    exported = set()
    for names in re.findall(r"^pub use [\w:]+::(?:\{([^}]*)\}|(\w+));", root, re.MULTILINE):
        exported |= set(re.findall(r"\w+", "".join(names)))
    surface: Surface = {FUNCTIONS: {}}
    derefs: dict[str, str] = {}
    methods: dict[str, Members] = {}
    for path in sorted((ROOT / "core/src").rglob("*.rs")):
        for item, body in rust_items(path.read_text()):
            name, of = item["name"], item["of"]
            if name and (path.name == "lib.rs" or name in exported):
                if item["kind"].endswith("fn"):
                    surface[FUNCTIONS][name] = name
                else:
                    surface.setdefault(name, {}).update(rust_members(item["kind"], name, body, surface))
            elif of in exported and (trait := item["trait"]):
                trait = trait.split("::")[-1]
                if trait in TRAITS:
                    surface.setdefault(of, {})[TRAITS[trait]] = f"impl {trait}"
                elif trait == "Deref" and (to := re.search(r"type Target = (\w+);", body)):
                    derefs[of] = to[1]
            elif of in exported:
                for attributes, method, receiver in METHOD.findall(body):
                    if HIDDEN not in attributes:
                        surface.setdefault(of, {})[method] = method
                        if "self" in receiver:
                            methods.setdefault(of, {})[method] = method
    for name, target in derefs.items():
        surface[name] = methods[target] | surface.get(name, {})
    return surface


def rust_items(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Every item of a file that is not hidden, with its lines until the closing
    brace, which alone stands in the first column. Those of tests are indented."""
    lines = iter(text.splitlines())
    attributes = ""
    for line in lines:
        if line.startswith(("#", "//")):
            attributes += line
            continue
        hidden, attributes = HIDDEN in attributes, ""
        if item := ITEM.match(line):
            body = []
            if not line.endswith((";", "}")):
                for inner in lines:
                    body.append(inner)
                    if inner.startswith("}"):
                        break
            if not hidden:
                yield item, "\n".join(body) + "\n"


def rust_members(kind: str, name: str, body: str, surface: Surface) -> Members:
    if kind == "struct":
        return {field: field for field in FIELD.findall(body)}
    if kind != "enum":
        return {}
    if fields := VARIANT_FIELD.findall(body):
        surface[f"{name}.fields"] = {field: field for field in fields}
    return {snake(variant): variant for variant in VARIANT.findall(body)}


# Node

NODE_PROTOCOLS = {
    "[Symbol.asyncIterator]": "iterate",
    "[Symbol.asyncDispose]": "scope",
    "then": "await",
}
# Parts of a protocol whose first member has the row, and what is JavaScript's own.
NODE_SILENT = {"next", "return", "throw", "catch", "finally", "[Symbol.toStringTag]"}


def node() -> Surface:
    """What the package declares: members of classes and interfaces, values of
    unions of strings."""
    done = subprocess.run(["node", "scripts/parity_node.mjs"], cwd=ROOT, capture_output=True, text=True, check=True)
    surface: Surface = {FUNCTIONS: {}}
    for name, members in json.loads(done.stdout).items():
        if members is None and name[0].islower():
            surface[FUNCTIONS][snake(name)] = name
        else:
            spoken = [member for member in members or () if member not in NODE_SILENT]
            surface[name] = {NODE_PROTOCOLS.get(member, snake(member)): member for member in spoken}
    return surface


# Python

PYTHON_PROTOCOLS = {
    "__aiter__": "iterate",
    "__iter__": "iterate",
    "__aenter__": "scope",
    "__enter__": "scope",
    "__await__": "await",
    "__len__": "length",
}


def python(package: ModuleType) -> Surface:
    """The public names of a module, by `__all__`. Exceptions are the members of
    `MullamaError.codes`, by their code; what they carry, of `MullamaError`."""
    surface: Surface = {FUNCTIONS: {}}
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, ModuleType):
            continue
        if inspect.isfunction(value):
            surface[FUNCTIONS][name] = name
        elif inspect.isclass(value) and issubclass(value, Exception):
            if code := getattr(value, "code", ""):
                surface.setdefault("MullamaError.codes", {})[code] = name
            carried = [parameter for parameter in own_parameters(value) if parameter != "message"]
            surface.setdefault("MullamaError", {"code": "code"}).update({each: each for each in carried})
        else:
            surface[name] = dict(python_members(value))
    return surface


def own_parameters(kind: type) -> list[str]:
    return [*inspect.signature(kind).parameters]


def python_members(value: Any) -> Iterator[tuple[str, str]]:
    if typing.get_origin(value) is typing.Literal:
        yield from ((each, each) for each in typing.get_args(value))
    elif dataclasses.is_dataclass(value):
        yield from ((field.name, field.name) for field in dataclasses.fields(value))
    elif typing.is_typeddict(value):
        yield from ((key, key) for key in value.__annotations__)
    else:
        if not refuses(value.__init__) and not own_parameters(value):
            yield "new", f"{value.__name__}()"
        for base in value.__mro__:
            if base.__module__.partition(".")[0] != value.__module__.partition(".")[0]:
                continue
            for name in vars(base):
                if (name in PYTHON_PROTOCOLS or not name.startswith("_")) and not refuses(getattr(value, name)):
                    yield PYTHON_PROTOCOLS.get(name, name), name


def refuses(function: Callable[..., Any]) -> bool:
    """Whether a function does nothing but raise: it is there to say so."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(function):
        return False
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    body = definition.body[1 if ast.get_docstring(definition) else 0 :]
    return len(body) == 1 and isinstance(body[0], ast.Raise)
