"""Shorten the parsers' errors to one line: where it is, the field, the value and how to correct it."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Sequence

TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text"}


def one_line(
    message: str,
    verb: str,
    options: Iterable[str],
    arguments: Sequence[str] = (),
    names: Callable[[str], list[str]] = lambda key: [],
) -> str:
    """One line for an error of jsonargparse.

    Args:
        message: its message, of many lines.
        verb: the command that was called, such as "fit".
        options: all options of the command, such as "--trainer.max_epochs".
        arguments: the command line after the verb, to find a mistake in the files that it names.
        names: what may be given by name for a key, such as the classes of networks for "model.net".
    """
    from arlm.cli.config_files import ConfigFiles  # late: `arlm --help` reads no YAML

    see, files = f"see `arlm {verb} --help`", ConfigFiles(arguments)
    keys = ".".join(re.findall(r'Parser key "(.+?)"', message))
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        return _unrecognized(found[1], options, see)
    if found := re.search(r"argument (\S+): expected one argument", message):
        return f"{_last_option(arguments) or found[1]}: its value is missing; {see}"
    if found := re.search(r'Invalid option "(.*?)" for (\S+)', message):
        return f"{found[2]}: {found[1]!r} is not known; give {found[2]} alone, or skip_default or skip_unset after ="
    if found := re.search(r"arguments are required: (.+)", message):
        missing = found[1].replace(f"{verb}.", "")
        return f"{missing}: missing; name a configuration with --config (`arlm configs` lists some), or give them as options"
    if found := re.search(r"(Path is not a file|File does not exist): '(.+?)'", message):
        return f"{keys or 'config'}: '{files.shown(found[2])}' {_no_file(found[1], found[2], keys, names)}"
    if "Problems parsing config" in message or "Unexpected config" in message:
        return files.unreadable() or f"config: {' '.join(message.split())}; check the file"
    if found := re.search(r"does not accept option '(.+?)'", message):
        key, near = _unknown_key(found[1], options)
        return f"{files.locate(key)}{key}: unknown key; {near or see}"
    if found := re.search(r"Option '(.+?)' is not accepted", message):
        key = f"{keys}.{found[1]}" if keys else found[1]
        return f"{files.locate(key)}{key}: unknown option; {_accepted(found[1], message, see)}"
    place = files.locate(keys)
    if found := re.search(r"[Mm]odule '([\w.]+)' has no attribute '(\w+)'", message):
        own = _no_module(f"{found[1]}.{found[2]}") if found[1] == "datamodules" else ""
        elsewhere = nearest(found[2], names(keys), "check the name")
        mend = own or nearest(found[2], _members(found[1]), elsewhere)
        return f"{place}{keys}: '{found[1]}' has no {found[2]!r}; {mend}"
    if found := re.search(r"subclass of (?:<class ')?(\w+)|(is abstract)", message):
        given = re.search(r"Given value: (\S+)|class_path='(\S+?)'", message)
        name = next(filter(None, given.groups())) if given else "it"
        mend = f"give a subclass of {found[1]}" if found[1] else "write its abstract methods"
        return f"{place}{keys}: {name!r} does not fit; {mend} (ARCHITECTURE.md says how)"
    path = re.search(r"Expected a path but (.+?) either not accessible", message)
    missing = re.search(r"No module named '([\w.]+)'", message)
    if missing and not (path and path[1].endswith((".yaml", ".yml"))):
        found = missing
        return f"{place}{keys}: there is no module {found[1]!r}; {_no_module(found[1])}"
    wanted = [t for t in TYPES if re.search(rf"Expected an? <class '{t}'>", message)]
    known = names(keys)
    if found := re.search(
        r"Expected a path but (.+?) either not accessible|"
        r"(?:Expected a dot import path string|Unexpected import path format): (\S+)",
        message,
    ):
        value = found[1] or found[2]
        if wanted and not known:
            return f"{place}{keys}: {value!r} does not fit; give {_alternatives(wanted)}"
        if unreadable := files.unreadable():  # a file that is named for the key
            return unreadable
        near = nearest(value, known, "check the path or the name")
        return f"{place}{keys}: {value!r} is neither a file nor a class; {near}"
    given = re.search(r"(?:Got value|Given value): (.+?)(?:\. Got value|\.?\s*$)", message)
    if keys and given:
        literals = [
            x for part in re.findall(r"Literal\[(.+?)\]", message) for x in part.split(", ")
        ]
        choice = f"one of {', '.join(dict.fromkeys(literals))}" if literals else ""
        given = re.search(r"NestedArg\(key='.*?', val='(.*)'\)", given[1]) or given
        types = _alternatives([*filter(None, [choice]), *(TYPES[t] for t in wanted)])
        return f"{place}{keys}: {given[1]!r} does not fit; give {types or 'another value'} ({see})"
    return f"{place}{' '.join(message.split())}; {see}"


def missing_package(message: str) -> str | None:
    """One line for a class that cannot be built because a package is missing; None for other errors."""
    kind = re.search(r"class_path '[\w.]*?(\w+)'", message)
    package = re.search(
        r"Requirement '([^']+)|pip install (?:-U )?'?([\w-]+)|No module named '(\w+)", message
    )
    if not kind or not package:
        return None
    name = next(filter(None, package.groups()))
    return f"{kind[1]}: needs a package that is not installed; `pip install '{name}'`, or choose another class"


def _alternatives(wanted: Sequence[str]) -> str:
    """Types as words, such as "an integer or a number"."""
    return " or ".join(dict.fromkeys(TYPES.get(name, name) for name in wanted))


def _last_option(arguments: Sequence[str]) -> str | None:
    """The option after which no value follows."""
    following = [*arguments[1:], "--"]
    pairs = zip(arguments, following, strict=True) if arguments else ()
    open_ended = [a for a, b in pairs if a.startswith("--") and "=" not in a and b.startswith("--")]
    return open_ended[-1] if open_ended else None


def _unrecognized(argument: str, options: Iterable[str], see: str) -> str:
    """For an argument that the parser does not know."""
    option, equals, _ = argument.partition("=")
    if option.startswith("-"):
        return f"{option}: unknown option; {nearest(option, options, see)}"
    if equals:
        return f"{argument!r}: an option begins with two dashes; {nearest(f'--{option}', options, see)}"
    return f"{argument!r}: not expected here; an option begins with --, a configuration follows --config"


def _no_file(problem: str, path: str, key: str, names: Callable[[str], list[str]]) -> str:
    """For a path of a configuration that cannot be read."""
    if problem == "Path is not a file":
        return "is a folder; give a YAML file, or a name that `arlm configs` lists"
    stem = path.rpartition("/")[2].removesuffix(".yaml")
    near = nearest(stem, names(key or "config"), "")
    return f"does not exist; {near or 'check the path'} (`arlm configs` lists those of arlm)"


def _unknown_key(key: str, options: Iterable[str]) -> tuple[str, str]:
    """The first part of a dotted key that no option has, and a suggestion for it."""
    known = {option.removeprefix("--") for option in options}
    parts, above = key.split("."), ""
    for part in parts:
        prefix = f"{above}.{part}" if above else part
        if not any(name == prefix or name.startswith(f"{prefix}.") for name in known):
            start = f"{above}." if above else ""
            siblings = {n.removeprefix(start).split(".")[0] for n in known if n.startswith(start)}
            return prefix, nearest(part, sorted(siblings), "")
        above = prefix
    return key, ""


def _accepted(option: str, message: str, see: str) -> str:
    """A suggestion for an argument that a class does not have."""
    first = option.partition(".")[0]
    if near := nearest(first, ["class_path", "init_args"], ""):
        return near
    found = re.search(r"class_path[ =]'([\w.]+)\.(\w+)'", message)
    if not found:
        return see
    accepted = _arguments_of(getattr(importlib.import_module(found[1]), found[2]))
    return nearest(first, accepted, f"{found[2]} has {', '.join(accepted)}")


def _arguments_of(kind: type) -> list[str]:
    """Constructor arguments of a class; those of its bases too, as far as it passes `**options` on to them."""
    import inspect  # late: `arlm --help` imports this module

    names: list[str] = []
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
            names += [name for name in named if name not in names and name != "spec"]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def _members(module: str) -> list[str]:
    """Names in a module, or modules in a package."""
    import pkgutil

    found = importlib.import_module(module)
    own = [n for n, kind in vars(found).items() if getattr(kind, "__module__", "") == module]
    return own + [m.name for m in pkgutil.iter_modules(getattr(found, "__path__", []))]


def _no_module(name: str) -> str:
    """A suggestion for a module that cannot be imported."""
    package, _, rest = name.partition(".")
    if package == "datamodules" and rest:
        near = nearest(rest, _members(package), "")
        return near or "`datamodules` is arlm's own package: keep your classes in another folder"
    return "check the name, and run from its folder"


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """Suggest the known word most similar to an unknown one; `otherwise` if there is none."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"did you mean {lower[near[0]]!r}?" if near else otherwise
