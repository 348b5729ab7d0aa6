"""Write the reference of the command line and of Python from the code itself.

python docs/make_reference.py [OUT]
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import defectrt
from defectrt import errors
from defectrt.cli.app import command_line

HEAD = """\
# Reference

Made from the code by `python docs/make_reference.py`; a test finds it when it is stale.
`--help` says the same, `defectrt --install-completion` completes it in the shell.

Options of a command with `--config` are also the keys of its YAML file, with `_` for `-`. Those of
`synthesize` are the keyword arguments of `defectrt.synthesize` as well, and all but the folders and
the formats those of `defectrt.Synthesizer`.
"""


def commands(group: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Every command below ``group``, in the order of its help, with its context."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        own = typer.Context(command, info_name=name, parent=context)
        if hasattr(command, "list_commands"):
            yield from commands(command, own)
        else:
            yield command, own


def cell(text: str) -> str:
    """A text that stays in its cell of a table."""
    text = " ".join(text.split())
    return text.replace("|", "\\|")


def command_section(command: Any, context: Any) -> str:
    """Usage, story, and a line an option."""
    story, _, examples = inspect.cleandoc(command.help).partition("\nExamples:\n")
    lines = re.sub(r"\\\n", "\n", examples).strip().split("\n\n")
    shown = "\n".join(f"    {' '.join(line.split())}" for line in lines)
    usage = f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    parts = [f"### {context.command_path}", usage, story.strip(), shown]
    return "\n\n".join([*filter(str.strip, parts), option_table(command, context)])


def option_table(command: Any, context: Any) -> str:
    """A line an option or argument."""
    rows = [p.get_help_record(context) for p in command.params]
    lines = [f"| `{cell(row[0])}` | {cell(row[1])} |" for row in rows if row]
    return "\n".join(["| option | |\n|---|---|", *lines])


def python_section(name: str, value: Any) -> str:
    """Signature and docstring of a public name, and of the public methods of a class."""
    parts = [f"### defectrt.{name}", f"```text\n{name}{signature(value)}\n```", text_of(value)]
    if inspect.isclass(value) and "model_fields" not in vars(value):
        methods = {k: v for k, v in vars(value).items() if inspect.isfunction(v)}
        for method, function in methods.items():
            public = not method.startswith("_") or method == "__call__"
            if public and function.__doc__:
                head = f"{name}.{method}{signature(function)}"
                parts += [f"```text\n{head}\n```", text_of(function)]
            elif method == "__init__" and function.__doc__ and value.__doc__:
                parts.append(text_of(function))
    return "\n\n".join(parts)


def signature(value: Any) -> str:
    """The parameters; of a configuration they are the options of `synthesize`."""
    if hasattr(value, "model_fields"):
        return "(**options)"
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))


def text_of(value: Any) -> str:
    """A docstring; its tables, which are aligned by hand, as they are."""
    blocks = inspect.cleandoc(value.__doc__).split("\n\n")
    return "\n\n".join(
        f"```text\n{block}\n```" if re.search(r"^\S+ {2,}\S", block, re.M) else block
        for block in blocks
    )


def errors_section() -> str:
    """The tree of errors with the exit codes."""
    rows = [(name, getattr(errors, name)) for name in errors.__all__]
    rows.sort(key=lambda row: row[1].exit_code)
    table = "\n".join(f"| {e.exit_code} | `{name}` | {cell(e.__doc__ or '')} |" for name, e in rows)
    return f"| exit code | `defectrt.errors` | |\n|---|---|---|\n{table}"


def reference() -> str:
    """The whole page."""
    group = command_line()
    context = typer.Context(group, info_name="defectrt", max_content_width=100, terminal_width=100)
    parts = [HEAD.strip(), "## Command line", command_section(group, context)]
    parts += [command_section(command, own) for command, own in commands(group, context)]
    parts += ["## Python"]
    parts += [
        python_section(name, getattr(defectrt, name))
        for name in defectrt.__all__
        if not name.startswith("_")
    ]
    return "\n\n".join([*parts, "## Errors", errors_section()]) + "\n"


def main() -> None:
    """Write the page."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("reference.md")
    out.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
