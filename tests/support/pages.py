"""What the pages tell a reader to type: their commands, their Python, the options they name."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import typer

ROOT = Path(__file__).parents[2]

#: Options of other programs that pages name.
FOREIGN = {
    "--all",  # ./check
    "--coverage",
    "--cpu",  # benchmarks/gpu_table.py
    "--fix",
    "--help",
    "--no-deps",  # pip
    "--small",
}
#: Dotted names that are none of Python's: headers, and the group of entry points.
NO_PYTHON = {"defectrt.h", "defectrt.hpp", "defectrt.commands"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def indented(text: str) -> Iterator[str]:
    """The blocks of code that are indented, without the indent; not those inside fences."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for found in re.finditer(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", outside + "\n", re.M):
        yield textwrap.dedent(found[0])


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def lines(block: str) -> list[str]:
    """The lines of a block of commands, continued ones joined, variables put in."""
    joined = re.sub(r"\\\n\s*", "", block)
    values = dict(re.findall(r'^([A-Z]+)="(.*)"$', joined, re.M))
    for name, value in values.items():
        joined = joined.replace(f"${name}", value)
    return [re.sub(r"^\$ |\s+#.*$", "", line) for line in joined.splitlines()]


def commands(text: str) -> list[str]:
    """Every line that calls the program, as a page has it; ``text`` is the page."""
    called = re.compile(r"^(?:defectrt\b|(?:\S+ )*-m defectrt )")
    blocks = [*indented(text), *fenced(text, "sh")]
    return [line for block in blocks for line in lines(block) if called.match(line)]


def files(text: str) -> dict[str, str]:
    """The files that a page shows: blocks that begin with ``# name.yaml``, by their names."""
    heads = ((re.match(r"# (\S+\.yaml)\n", block), block) for block in indented(text))
    return {head[1]: block for head, block in heads if head}


def runnable(text: str) -> list[str]:
    """The commands of a page that can be run as they stand: its installation and blocks that hold
    a name in capitals, which stands for something of the reader's, are left out.
    """
    found = []
    for block in indented(text):
        if not re.search(r"^(?:pip|source) |(?<!=)\b[A-Z]{4,}\b", block, re.M):
            called = re.compile(r"^(?:defectrt|python -m defectrt)\b")
            found += [line for line in lines(block) if called.match(line)]
    return found


def scripts(text: str) -> list[str]:
    """Every file or module of the project that a page tells to run."""
    found = []
    for block in [*indented(text), *fenced(text, "sh")]:
        for line in lines(block):
            own = re.match(
                r"(?:python )?(\./\S+|(?:examples|benchmarks|docs|cpp)/\S+\.(?:py|sh))(?: |$)", line
            )
            module = re.match(r"python -m (defectrt\.\S+)", line)
            found += [m[1] for m in (own, module) if m]
    return found


def missing(script: str) -> bool:
    """Whether a script or module is not there."""
    if script.startswith("defectrt."):
        return find_spec(script) is None
    return not (ROOT / script).is_file()


def fault(command: str, group: typer.core.TyperGroup) -> str | None:
    """Why the real command line would not take ``command``, if so. Nothing is run."""
    words = shlex.split(re.sub(r"^.*?-m defectrt |^defectrt ?", "", command))
    try:
        _parse(group, None, words)
    except typer.Exit:
        return None
    except Exception as error:
        return f"{command}: {error}"
    return None


def _parse(group: typer.core.TyperGroup, parent: object, words: list[str]) -> None:
    context = typer.Context(group, info_name="defectrt", parent=parent)
    own = [word for word in words[:1] if word.startswith("-")]
    if own:
        group.make_context("defectrt", words)
        return
    name, command, rest = group.resolve_command(context, words)
    if hasattr(command, "list_commands"):
        _parse(command, context, rest)
        return
    resume = "--resume" in rest
    command.make_context(name, rest, parent=context, resilient_parsing=resume)


def known_options(group: typer.core.TyperGroup) -> set[str]:
    """Every option of every command."""
    found: set[str] = set()
    for command in group.commands.values():
        if hasattr(command, "commands"):
            found |= known_options(command)
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found | {option for p in group.params for option in (*p.opts, *p.secondary_opts)}


def unknown_options(text: str, known: set[str]) -> list[str]:
    """Options in the prose of a page that no command has."""
    prose = re.sub(r"^```.*?^```$|^ {4}.*$", "", text, flags=re.M | re.S)
    prose = re.sub(r"^ {4}.*$", "", prose, flags=re.M)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return sorted({o for span in spans for o in OPTION.findall(span)} - known - FOREIGN)


def imports(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a block of Python imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def paths(text: str) -> list[str]:
    """Files and folders of the project that a page names."""
    top = "runtime|training|export|kernels|cpp|tests|benchmarks|examples|docs"
    return re.findall(rf"`((?:{top})/[\w/.-]+)`", text)


def names(text: str) -> list[str]:
    """Dotted names of the package that a page mentions in its text."""
    return [n for n in re.findall(r"`(defectrt(?:\.\w+)+)`", text) if n not in NO_PYTHON]


def resolves(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    try:
        resolve_name(name)
    except (AttributeError, ModuleNotFoundError):
        return False
    return True
