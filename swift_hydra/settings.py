"""Settings and bad input: a dataclass becomes ``--flags`` with ``-h``, a mistake becomes one line.

A setting is declared once, by :func:`setting` in a dataclass: its default, its help text and its
bounds. :func:`parse_config` makes a script's command line from such classes, :func:`check_settings`
refuses values out of bounds. Anything a user can get wrong raises :class:`InputError`;
:func:`run_main` prints it on stderr and exits with code 2, without a traceback. The imports before
it take seconds and can fail too: :func:`guard_imports` treats their errors in the same way.
"""

import argparse
import contextlib
import dataclasses
import errno
import gc
import numbers
import os
import re
import signal
import sys
import traceback
import typing
import warnings
from collections.abc import Collection

DEBUG = "--debug"
GIVEN_FLAGS = "_given"  # {flag: value} in the namespace, see :class:`_Once`
# Flags that some programs take several times. Of the others the last one counts, as is usual.
ONCE = {"drop_columns", "missing", "label_column", "group_column", "id_column", "data"}
GIVEN = object()  # any value but the default
# In the messages of torch on a CPU, of torch on a GPU, and of C++ libraries.
OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory", "bad_alloc")
LONGEST = 4000  # characters of a message: a column's name in a file may have millions
LISTED = 10  # most columns or values listed in a message
LISTED_CHARACTERS = 100  # most of each
# New objects between two collections of garbage. Each row of a file is an object until the rows
# become an array, and with Python's 700 the collector takes a quarter of the time to read a file.
GARBAGE = 100_000
# Modules that a warning passes over to reach the line of the user's code.
INNER = ("swift_hydra", "contextlib")


def tell(message):
    """Warn, with the line outside of this package that called it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


class InputError(ValueError):
    """A mistake in the user's input; one line names the place, the value and the remedy."""


def _given(text):
    """The text of a flag; an empty one is refused, since it usually is an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: give a value, or leave it out")
    return text


class Place(str):
    """Annotates a file or folder; ``~`` is expanded in ``--out=~/runs`` too, unlike in shells."""

    def __new__(cls, text):
        return place_of(_given(text))


def place_of(given):
    """The text of a path that a user gave in any of Python's types for one; ``~`` is home.

    Only for what comes from outside: of a path made from this text a folder named ``~`` may be a
    part, which a second call would take for home.

    Raises:
        InputError: it is no path, or none that a file here can have.
    """
    try:
        text = os.fsdecode(given)
    except TypeError:
        raise InputError(f"{given!r} is no path: give the name of a file as a text") from None
    try:
        usable = text and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise InputError(f"{given!r} is no name that a file can have: check the path")
    return os.path.expanduser(text)  # pathlib's own fails for unknown users


class AnyText(str):
    """Annotates a text that may be empty."""

    def __new__(cls, text):
        return str(text)


def setting(
    default,
    help,
    *,
    choices=None,
    low=None,
    high=None,
    positional=False,
    short=None,
    flag=True,
):
    """A dataclass field that carries its own ``-h`` text and bounds.

    Args:
        default: the default value; its annotated type parses the flag.
        help: unit, meaning and, where it matters, the reason for the default.
        choices: the allowed values, or None.
        low: the smallest allowed number, or None for no check.
        high: the largest allowed number.
        positional: True for an optional positional argument (the dataset path).
        short: a second, short flag such as ``-v``, or None.
        flag: False for a setting that is not on the command line.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "low": low,
        "high": high,
        "positional": positional,
        "short": short,
        "flag": flag,
    }
    return dataclasses.field(default=default, metadata=metadata)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class _Once(argparse.Action):
    """Stores a flag's value; a second, different one is refused in place of taking its place."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = vars(namespace).setdefault(GIVEN_FLAGS, {})
        if given.setdefault(self.dest, values) != values:
            parser.error(
                f"argument {option_string}: is given twice, {given[self.dest]!r} and {values!r}: "
                "give it once (a list is separated by commas)"
            )
        setattr(namespace, self.dest, values)


class _OneLineParser(argparse.ArgumentParser):
    def _get_values(self, action, arg_strings):
        # In --missing=-- argparse would take the value for the end of the flags and drop it.
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def error(self, message):
        self.exit(2, printable(f"{self.prog}: error: {message} (see {self.prog} -h)") + "\n")


def printable(text):
    """Untrusted text made safe for a terminal: control and formatting characters are escaped."""
    return "".join(
        c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in str(text)
    )


def one_line(text):
    """A printable message on one line; a very long one is cut in the middle, not at the remedy."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def listed(values):
    """The first values, separated by commas, and the number of all if there are more."""
    values = list(values)
    shown = (
        s if len(s) <= LISTED_CHARACTERS else s[: LISTED_CHARACTERS - 3] + "..."
        for s in map(str, values[:LISTED])
    )
    return ", ".join(shown) + (f", ... ({len(values)} in all)" if len(values) > LISTED else "")


def in_words(error, most=160):
    """The beginning of an exception's type and text, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]


def parse_config(classes, description, argv=None, prog=None, **defaults):
    """Build settings dataclasses from the command line.

    Args:
        classes: dataclasses whose fields are made with :func:`setting`; a field that several
            classes share is one flag.
        description: the first paragraph of ``-h``.
        argv: arguments without the program name; None reads ``sys.argv``.
        prog: the program name in messages; None takes the script's own.
        **defaults: default values that replace those of the fields.

    Returns:
        A list with an instance of each class. Unknown flags and values end the process with one
        line and exit code 2.
    """
    parser = _OneLineParser(
        prog=prog, description=description, allow_abbrev=False, formatter_class=_Help
    )
    known = {field.name: field for cls in classes for field in _flagged(cls)}
    for field in known.values():
        _add_argument(parser, field, defaults.get(field.name, field.default))
    parser.add_argument(DEBUG, action="store_true", help="show where an error came from")
    values = vars(parser.parse_args(argv))
    return [cls(**{field.name: values[field.name] for field in _flagged(cls)}) for cls in classes]


def first_line(doc):
    """The first line of a docstring; "" for None, since ``python -OO`` removes docstrings."""
    return (doc or "").partition("\n")[0]


def flag_values(*configs):
    """The values of all flags of some configs, as one dict."""
    return {
        field.name: getattr(config, field.name) for config in configs for field in _flagged(config)
    }


def changed(config, names):
    """Yield (name, value) for those of the named settings that differ from their defaults."""
    for name in names:
        value = getattr(config, name)
        if value != getattr(type(config), name):
            yield name, value


def refuse_idle(table, *configs):
    """Refuse flags that were given but have no effect because of others.

    Args:
        table: rows (name, value, names): if the first setting has this value (``GIVEN``: any value
            but its default), the others have no effect.
        *configs: instances of the dataclasses of a command.

    Raises:
        InputError: names both flags.
    """
    values = flag_values(*configs)
    known = {field.name: field for config in configs for field in _flagged(config)}
    given = {name for name, value in values.items() if value != known[name].default}
    for name, value, idle in table:
        if values[name] == value or (value is GIVEN and name in given):
            beside, remedy = f"without {_as_flag(known[name])}", "give both, or neither"
            if name in given:
                beside = f"with {_as_flag(known[name], values[name])}"
                remedy = "leave one of them out"
            for other in idle:
                if other in given:
                    shown = _as_flag(known[other], values[other])
                    raise InputError(f"{shown} has no effect {beside}: {remedy}")


def _as_flag(field, value=True):
    """A flag and its value as they are written on a command line."""
    name = field.name.replace("_", "-")
    if field.metadata["positional"]:
        return f"{name} {value}"
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def _flagged(cls):
    return [field for field in dataclasses.fields(cls) if field.metadata["flag"]]


def _add_argument(parser, field, default):
    short = field.metadata["short"]
    name = "--" + field.name.replace("_", "-")
    names = [short, name] if short else [name]
    if isinstance(default, (os.PathLike, bytes)):  # set in a script; reports need a text
        default = os.fsdecode(default)
    options = {"default": default, "help": field.metadata["help"]}
    if field.metadata["positional"]:
        parser.add_argument(field.name, nargs="?", type=_parser_type(field.type), **options)
    elif isinstance(field.default, bool):
        parser.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
    else:
        kind = _parser_type(field.type)
        kind = _given if kind is str else kind
        options["action"] = _Once if field.name in ONCE else "store"
        parser.add_argument(*names, type=kind, choices=field.metadata["choices"], **options)


def _parser_type(annotation):
    """The type that parses a flag: ``int`` of ``int | None``, ``str`` of ``str | int``."""
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    return kinds[0] if kinds else annotation


def check_settings(config):
    """Refuse values outside the choices and bounds that the fields of a dataclass declare.

    Raises:
        InputError: names the setting, the value and what is allowed.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        bounds = field.metadata
        if value is None and field.default is None:
            continue
        if bounds["choices"] is not None:
            check_choice(field.name, value, bounds["choices"])
        # By name, which covers numpy's bool without importing numpy.
        if isinstance(field.default, bool) and type(value).__name__ not in ("bool", "bool_"):
            raise InputError(f"{field.name}={value!r} is not usable: give True or False")
        if field.type == dict | None and not isinstance(value, dict):
            raise InputError(f"{field.name}={value!r} is not usable: give a dict, or None")
        if bounds["low"] is not None:
            whole = _parser_type(field.type) is int
            check_range(field.name, value, bounds["low"], bounds["high"], whole)


def listed_names(text):
    """The names in a comma-separated list, without spaces around them."""
    return [name.strip() for name in text.split(",")]


def advised(error, own, words):
    """An error's text, with ``words`` added if it names flags that the command lacks.

    Args:
        error: the error.
        own: the command's flags.
        words: what to say of the other flags.
    """
    flags = re.findall(r"(?<![^\s(])--[a-z][a-z-]+", str(error))  # not within a name
    other = [flag for flag in flags if flag not in own]
    return f"{error} [{', '.join(dict.fromkeys(other))}: {words}]" if other else str(error)


def check_choice(name, value, choices):
    """Refuse a value outside ``choices`` with the list of what is allowed.

    Raises:
        InputError: names the setting, the value and the choices.
    """
    if value not in choices:
        raise InputError(
            f"{name}={value!r} is unknown: choose one of {', '.join(map(repr, choices))}"
        )


def check_range(name, value, low, high, whole=True):
    """Refuse a value that is not a number (an integer when ``whole``) from ``low`` to ``high``.

    Raises:
        InputError: names the setting, the value and the range.
    """
    kind = numbers.Integral if whole else numbers.Real
    # Compared with a float16, a bound beyond its range would become infinite, with a warning.
    number = getattr(value, "item", lambda: value)()
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= number <= high:
        what = "an integer" if whole else "a number"
        raise InputError(f"{name}={value!r} is not usable: give {what} from {low} to {high}")


def _some_of(value, names):
    """Is the value a collection, not empty, that holds only some of the names?"""
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return len(value) > 0 and all(isinstance(name, str) and name in names for name in value)


def check_options(name, given, rules):
    """Refuse unknown keys and unusable values of a setting that is a dict.

    Args:
        name: name of the setting.
        given: the dict, or None.
        rules: {key: rule}; a rule is (low, high, whole) for a number, a list of choices, or a set
            of names, some of which are given.

    Raises:
        InputError: names the setting, the key and the value.
    """
    for key, value in (given or {}).items():
        check_choice(f"{name}: key", key, sorted(rules))
        rule, which = rules[key], f"{name}: {key}"
        if isinstance(rule, tuple):
            check_range(which, value, *rule)
        elif isinstance(rule, list):
            check_choice(which, value, rule)
        elif not _some_of(value, rule):
            raise InputError(
                f"{which}={value!r} is not usable: give a tuple of {' or '.join(sorted(rule))}"
            )


def resolve_device(name):
    """The torch device of a setting: "auto", "cpu", "cuda", "cuda:1".

    Raises:
        InputError: the device is unknown or not usable on this machine.
    """
    import torch  # here: reading a table needs settings but not torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device such as meta makes tensors without values
    except (RuntimeError, AssertionError, TypeError):
        raise InputError(f"device={name!r} cannot be used here: choose auto or cpu") from None
    return device


class _Forgiving:
    """A standard stream whose reader may disappear, or never existed.

    A run does not end because its terminal has closed. Other reasons why writing fails, such as a
    full disk, are still errors.
    """

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def _without(self, act):
        try:
            return act()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO, errno.EBADF):
                raise
            with contextlib.suppress(OSError, ValueError):  # Python writes once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def write(self, text):
        self._without(lambda: self._stream.write(text))
        return len(text)

    def flush(self):
        self._without(self._stream.flush)


def _open_streams():
    """Replace the standard streams by ones that accept any text and survive their reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Forgiving(stream))


def _end_tidily():
    """Let SIGTERM and SIGHUP unwind the stack, so that part-files are removed."""

    def end(number, frame):
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # A signal that is ignored, as under nohup, stays ignored.
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def run_main(main):
    """Call ``main()``, with warnings and errors as one line each on stderr.

    Any error ends the process with code 2, Ctrl-C with 130. ``--debug`` shows the traceback first.
    """
    threshold = gc.get_threshold()
    gc.set_threshold(GARBAGE)
    _open_streams()
    _end_tidily()
    if signal.getsignal(signal.SIGINT) == _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.formatwarning = lambda message, *_: f"warning: {one_line(message)}\n"
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_said(error))
    finally:  # for a caller that goes on
        gc.set_threshold(*threshold)


def guard_imports():
    """From now on, treat errors of imports as :func:`run_main` treats those of the program.

    A script calls it before its first import from outside the standard library, and only if it was
    started as the program.
    """

    def end(kind, error, trace):
        os._exit(_said(error))  # an uncaught exception would end with code 1

    sys.excepthook = end
    try:
        os.getcwd()
    except OSError as error:  # without it libraries do not find their own files
        raise InputError(f"the current folder ({error.strerror}): go to another one") from None
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number, frame):
    """Handle Ctrl-C during imports without an exception, which compiled code may not handle."""
    os._exit(_said(KeyboardInterrupt()))


def _said(error):
    """Print in one line what ended the program; returns its exit code."""
    if isinstance(error, KeyboardInterrupt):
        what = str(error) or "the same command does what is not done yet"
        code, line = 130, f"interrupted: {one_line(what)}"
    else:
        if DEBUG in sys.argv:
            traceback.print_exception(error)
        code, line = 2, f"error: {one_line(_explained(error))}"
    with contextlib.suppress(OSError, ValueError):  # on a full disk only the exit code tells
        print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    return code


def lacks_memory(error):
    """Is an error due to too little memory, whichever library raised it?"""
    said = str(error)
    # Loading an installed library can fail for lack of memory, sometimes without an errno.
    unmapped = isinstance(error, ImportError) and "map segment" in said
    unmapped |= isinstance(error, OSError) and not error.errno and "shared object" in said
    refused = isinstance(error, RuntimeError) and any(word in said for word in OUT_OF_MEMORY)
    unmapped |= getattr(error, "errno", None) == errno.ENOMEM
    return isinstance(error, MemoryError) or unmapped or refused


def want_of_memory(error):
    """The message for an error due to too little memory, else None."""
    if not lacks_memory(error):
        return None
    what = f" ({error})" if str(error) else ""
    return f"there is not enough memory{what}: allow more, or give fewer rows or columns"


def _explained(error):
    """An error's message, with a remedy."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error} in this Python, {sys.executable}: take the one in .venv that `make run` "
            "sets up, or install what the project needs: pip install -r requirements.txt"
        )
    memory = want_of_memory(error)
    if memory:
        return memory
    if isinstance(error, OSError):  # of the output, such as a full disk; files raise InputError
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = f"{error.filename or 'output'}: {error.strerror or error}"
        if error.errno == errno.ENAMETOOLONG:
            return f"{what}: give a shorter one"
        return f"{what}: free space or check the permissions"
    reason = f"{type(error).__name__}: {error}"[:300]
    return f"unexpected {reason}: the same command with {DEBUG} shows where it came from"
