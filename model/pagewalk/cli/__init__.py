"""The front door: parses, calls, prints.

Each command lives in a module of its own family and is imported when it is called, so that
``pagewalk --help`` loads neither numba nor matplotlib.
"""

import importlib
import io
import os
import signal
import sys
import warnings
from pathlib import Path

import click

from pagewalk import __version__
from pagewalk.errors import BadInput, meant

SECTIONS = {
    "Replay": {
        "run": ("replay.replays", "the main job: a scenario or the packaged kernel trace, compared"),
        "replay": ("replay.replays", "replay a trace over mappings and machines"),
        "explain": ("replay.explain", "one access, step by step"),
        "sample": ("studies.sampling", "estimate misses from windows of a trace, with error bars"),
        "curve": ("studies.curve", "misses for every TLB size at once"),
        "sweep": ("studies.sweep", "a grid of machines, mappings and traces; resumable"),
    },
    "Decide": {
        "plan": ("studies.plan", "which areas of a machine could be huge, and whether that pays"),
        "report": ("report", "results as one page to mail, print, or read on a phone"),
    },
    "Prepare": {
        "trace": ("trace.commands", "look at, convert, make and record traces"),
        "calibrate": ("studies.calibrate", "measure this machine and write a machine file"),
    },
    "Look up": {
        "machines": ("catalogue.machines", "the processors we know, each figure with its source"),
        "kernels": ("catalogue.kernels", "what each kernel release maps huge, each rule with its source"),
    },
    "Trust": {
        "validate": ("studies.validate", "measured results beside the model's predictions"),
        "check": ("studies.check", "whether the model still says what the committed baseline says"),
        "doctor": ("doctor", "versions, compiled kernels, what this machine can measure"),
    },
}
"""Section of the help -> command -> module of this package that defines it, and its line in the help."""

COMMANDS = {name: module for section in SECTIONS.values() for name, (module, _) in section.items()}
"""Command -> module."""


class Lazy(click.Group):
    """A group that imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"{__name__}.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise BadInput(name[:80], "no such command", meant(name, COMMANDS) or "see pagewalk --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the table, importing nothing."""
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, line) in section.items()])


@click.command(
    cls=Lazy, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="pagewalk")
@click.pass_context
def pagewalk(context: click.Context) -> None:
    """Tell what reaching kernel memory through the TLB costs, and what larger pages would change.

    pagewalk COMMAND --help tells each command's options, with examples.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _asked_to_end(number: int, _: object) -> None:
    """End as ^C does, so that nothing half-written is left."""
    sys.exit(128 + number)


def _without_output() -> None:
    """Let what could not be written out go, so that Python does not try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_and_end(line: str) -> None:
    print(f"pagewalk: {line}", file=sys.stderr)
    sys.exit(2)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the line of code that it came from."""
    return f"pagewalk: {message}\n"


def main() -> None:
    """Run the command line; exit 0 done, 2 bad input (one line), 1 a fault of ours."""
    if sys.stdout is None or sys.stderr is None:
        nowhere = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _asked_to_end)
    warnings.formatwarning = _one_line
    output = sys.stdout
    try:
        for word in sys.argv[1:]:
            word.encode()
        pagewalk.main(prog_name="pagewalk", standalone_mode=False)
        sys.stdout.flush()
    except BadInput as error:
        _say_and_end(str(error))
    except UnicodeEncodeError as error:
        name = " ".join(os.fsencode(error.object).decode(errors="replace").split())
        _say_and_end(f"{name}: is no UTF-8, as the names in a result must be; rename it")
    except click.ClickException as error:
        line = " ".join(error.format_message().split()).rstrip(".")
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "pagewalk"
        _say_and_end(f"{line}; see {command} --help")
    except (KeyboardInterrupt, click.Abort):
        print("pagewalk: interrupted; nothing half-written was left", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _without_output()
    except SystemExit as error:
        # When the reader goes away, rich ends with 1, and click with 1 and another standard output.
        if output is sys.stdout and not isinstance(error.__context__, BrokenPipeError):
            raise
        _without_output()
    except OSError as error:
        if not error.filename:
            _without_output()
        where = error.filename or "standard output, temporary folder or cache folder"
        mend = "name another" if error.filename else "free space, or name others (TMPDIR, PAGEWALK_CACHE_DIR)"
        _say_and_end(f"{where}: {error.strerror or error}; {mend}")
