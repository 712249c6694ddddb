"""Settings and bad input: a dataclass becomes ``--flags`` with ``-h``, a mistake becomes one line
and exit code 2.

Every script of the suite has one dataclass of settings; :func:`parse_config` builds its command
line from it, so that the help text, the types and the defaults have a single source. Anything a
user can get wrong raises :class:`InputError`; :func:`run_main` prints it as one line on stderr and
exits with code 2, without a traceback.
"""

import argparse
import contextlib
import dataclasses
import numbers
import os
import sys
import typing
import warnings

import torch


class InputError(ValueError):
    """A mistake in what the user gave: the message is one line that names the place, the value and
    the remedy.
    """


def setting(default, help, *, choices=None, positional=False, short=None):
    """A dataclass field that carries its own ``-h`` text.

    Args:
        default: the default value; its annotated type parses the flag.
        help: unit, meaning and, where it matters, the reason for the default.
        choices: the allowed values, or None.
        positional: True for an optional positional argument (the dataset path).
        short: a second, short flag such as ``-v``, or None.
    """
    metadata = {"help": help, "choices": choices, "positional": positional, "short": short}
    return dataclasses.field(default=default, metadata=metadata)


def _parser_type(annotation):
    """``int | None`` parses as ``int``; anything else parses as itself."""
    args = [a for a in typing.get_args(annotation) if a is not type(None)]
    return args[0] if args else annotation


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} -h)\n")


def parse_config(cls, description, argv=None, prog=None):
    """Build a settings dataclass from the command line.

    Args:
        cls: a dataclass whose fields are made with :func:`setting`.
        description: the first paragraph of ``-h``.
        argv: arguments without the program name; None reads ``sys.argv``.
        prog: the program name in messages; None takes the script's own.

    Returns:
        An instance of ``cls``. Unknown flags and values end the process with one line and exit code
        2.
    """
    parser = _OneLineParser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=_Help,
    )
    for field in dataclasses.fields(cls):
        text, choices = field.metadata["help"], field.metadata["choices"]
        if field.metadata["positional"]:
            parser.add_argument(field.name, nargs="?", default=field.default, help=text)
        elif isinstance(field.default, bool):
            parser.add_argument(
                *_flags(field),
                default=field.default,
                action=argparse.BooleanOptionalAction,
                help=text,
            )
        else:
            kind = _parser_type(field.type)
            parser.add_argument(
                *_flags(field), type=kind, default=field.default, choices=choices, help=text
            )
    return cls(**vars(parser.parse_args(argv)))


def _flags(field):
    short = field.metadata["short"]
    return [*([short] if short else []), "--" + field.name.replace("_", "-")]


def check_choice(name, value, choices):
    """Refuse a value outside ``choices`` with the list of what is allowed.

    Raises:
        InputError: naming the setting, the value and the choices.
    """
    if value not in choices:
        raise InputError(
            f"{name}={value!r} is unknown: choose one of {', '.join(map(repr, choices))}"
        )


def check_range(name, value, low, high, whole=True):
    """Refuse a value that is not a number (an integer when ``whole``) from ``low`` to ``high``.

    Raises:
        InputError: naming the setting, the value and the range.
    """
    kind = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
        what = "an integer" if whole else "a number"
        raise InputError(f"{name}={value!r} is not usable: give {what} from {low} to {high}")


def run_main(main):
    """Call ``main()``; a warning, :class:`InputError` or system error is one line on stderr, errors
    exit with 2.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {' '.join(str(message).split())}\n"
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        what = str(error) or "what was finished is on disk, the same command does the rest"
        print(f"interrupted: {what}", file=sys.stderr)
        sys.exit(130)
    except (
        OSError
    ) as error:  # such as a full disk that the output goes to; files say it where they are written
        with contextlib.suppress(
            OSError, ValueError
        ):  # Python writes once more to stdout when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(
            f"error: {error.filename or 'output'}: {error.strerror or error}: free space or check the permissions",
            file=sys.stderr,
        )
        sys.exit(2)


def resolve_device(name):
    """The torch device of a setting. Raises :class:`config.InputError` for one that cannot be used
    here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"device={name!r} cannot be used here: choose auto or cpu") from None
    return device
