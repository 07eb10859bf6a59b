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
from pagewalk.errors import BadInput

COMMANDS = {
    "run": ("pagewalk.cli.replays", "the main job: a scenario or the packaged kernel trace, compared"),
    "replay": ("pagewalk.cli.replays", "replay a trace over mappings and machines"),
    "explain": ("pagewalk.cli.explain", "one access, step by step"),
    "sample": ("pagewalk.cli.sampling", "estimate misses from windows of a trace, with error bars"),
    "curve": ("pagewalk.cli.curve", "misses for every TLB size at once"),
    "sweep": ("pagewalk.cli.sweep", "a grid of machines, mappings and traces; resumable"),
    "machines": ("pagewalk.cli.machines", "the processors we know, each figure with its source"),
    "validate": ("pagewalk.cli.validate", "measured results beside the model's predictions"),
    "calibrate": ("pagewalk.cli.calibrate", "measure this machine and write a machine file"),
    "kernels": ("pagewalk.cli.kernels", "what each kernel release maps huge, each rule with its source"),
    "trace": ("pagewalk.cli.traces", "look at, convert, make and record traces"),
    "plan": ("pagewalk.cli.plan", "which areas of a machine could be huge, and whether that pays"),
    "report": ("pagewalk.cli.report", "results as one page to mail, print, or read on a phone"),
    "check": ("pagewalk.cli.check", "whether the model still says what the committed baseline says"),
    "doctor": ("pagewalk.cli.doctor", "versions, compiled kernels, what this machine can measure"),
}
"""Command -> module that defines it, and its line in the help."""


class Lazy(click.Group):
    """A group that imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=Lazy, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="pagewalk")
@click.pass_context
def pagewalk(context: click.Context) -> None:
    """Tell what reaching kernel memory through the TLB costs, and what larger pages would change."""
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
