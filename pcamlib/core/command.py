"""What the command line is made of: names that are looked up when needed, commands in order, failures in one line."""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Collection
from typing import Any

import click

from pcamlib.core.errors import StudyError


class Subsets(click.ParamType):
    """A number of subsets, as int; or which, counted from 0: "3-5" as range(3, 6)."""

    name = "N|A-B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", value)
        if not found or (found[2] and int(found[2]) < int(found[1])):
            self.fail(f"{value[:60]!r} is neither a number of subsets, like 3, nor which, like 3-5.", param, ctx)
        return range(int(found[1]), int(found[2]) + 1) if found[2] else int(found[1])


class Name(click.ParamType):
    """A name out of a table or list of the library, whose module is imported when it is needed.

    With `several`, names separated by commas; the value is then a list.
    """

    name = "name"

    def __init__(self, module: str, attribute: str, several: bool = False):
        self.module, self.attribute, self.several = module, attribute, several

    @functools.cached_property
    def known(self) -> Collection[str]:
        return getattr(importlib.import_module(self.module), self.attribute)

    @property
    def meanings(self) -> str:
        """The names for a help text, with what they mean where the table says it."""
        if isinstance(self.known, dict):
            return "; ".join(f"{name}: {meaning}" for name, meaning in self.known.items())
        return ", ".join(self.known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        for name in value.split(",") if self.several else [value]:
            if name not in self.known:
                near = difflib.get_close_matches(name, self.known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                self.fail(f"{name[:60]!r} is unknown: {hint}It is one of {', '.join(self.known)}.", param, ctx)
        return value.split(",") if self.several else value


class Option(click.Option):
    """An option that shows its default, and after its help the names that it takes."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, show_default=True, **kwargs)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record and isinstance(self.type, Name):
            return record[0], f"{record[1]} {self.type.meanings}."
        return record


class Group(click.Group):
    """Commands in the order in which they are defined."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click's own handling would print an empty line first
            return _stopped()


def run_command(command: click.Command, name: str, argv: list[str] | None = None) -> int:
    """Run `command` with the arguments `argv` (default: the process's own) and return its exit status.

    A failure is one line, `error: ...`, on standard error, and status 2; Ctrl-C is status 130. What is no StudyError,
    no usage error and no operating system's error about a file is a bug, and is raised.
    """
    try:
        return command.main(argv, prog_name=name, standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command
        click.echo(error.format_message(), err=True)
        return _fail("give a command.")
    except click.UsageError as error:
        asked = error.ctx.command_path if error.ctx else name
        return _fail(f"{error.format_message()} See `{asked} --help`.")
    except click.ClickException as error:
        return _fail(error.format_message())
    except StudyError as error:
        return _fail(str(error))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise  # not about a file: a bug
        return _fail(f"{error.filename}: {error.strerror}.")
    except (KeyboardInterrupt, click.Abort):
        return _stopped()


def _stopped() -> int:
    click.echo("stopped: the same command goes on from here", err=True)
    return 130


def _fail(sentence: str) -> int:
    click.echo(f"error: {' '.join(sentence.split())}", err=True)
    return 2
