"""Runs an entry point under Hydra so that a user's mistake ends in one clear line.

Only light modules are imported here, so that errors and ``--help`` answer at once.
"""

import argparse
import functools
import logging
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Never

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from recsys.core.threads import sleep_while_waiting
from recsys.errors import InputError
from recsys.overrides import HYDRA_VERSION, check_overrides, quoted

_INSTALLED = Path(__file__).with_name("configs")
CONFIG_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "configs"
"""Inside the package where that is installed, at the top of a checkout else."""
_USAGE_ERROR = 2


def run(
    main: Callable[[DictConfig], Any],
    config_name: str,
    config_dir: Path = CONFIG_DIR,
    comma_lists: Sequence[str] = (),
    conditions: Sequence[str] = (),
    expand: Callable[[Sequence[str]], list[str]] | None = None,
) -> None:
    """Call ``main`` with the config that the command line asks for; once per job with ``-m``.

    An ``InputError``, from the command line or from ``main``, is printed as one line and ends the
    process with status 2; any other exception keeps its traceback.

    Args:
        main: the entry point; imports what is heavy inside itself.
        config_name: the primary config in ``config_dir``, without its suffix.
        comma_lists: keys whose value ``a,b,c`` is one string outside a multirun; Hydra would take
            it for a sweep.
        conditions: keys whose value, such as ``rating >= 4``, has signs that Hydra has no use for.
        expand: makes overrides of those that are given; not for a multirun.
    """
    sleep_while_waiting()
    parser = get_args_parser()
    parser.error = _fail  # type: ignore[method-assign]
    args = parser.parse_args()
    if not args.multirun:
        given = [_quoted(text, comma_lists, ",") for text in sys.argv[1:]]
        sys.argv[1:] = [_quoted(text, conditions, "<>=!") for text in given]
        args = parser.parse_args()
    if _composes(args):
        try:
            if expand is not None and not args.multirun:
                others = [one for one in sys.argv[1:] if one not in args.overrides]
                sys.argv[1:] = [*others, *expand(args.overrides)]
                args = parser.parse_args()
            check_overrides(
                config_dir,
                args.config_name or config_name,
                args.overrides,
                multirun=args.multirun,
                complete=not (args.help or args.cfg),
            )
        except InputError as error:
            _fail(str(error))

    @functools.wraps(main)
    def one_job(config: DictConfig) -> Any:
        configure_logging()
        try:
            return main(config)
        except InputError as error:
            _fail(str(error))
        except InstantiationException as error:
            found = input_error_below(error)
            if found is None:
                raise
            _fail(str(found))

    decorate = hydra.main(
        config_path=str(config_dir), config_name=config_name, version_base=HYDRA_VERSION
    )
    decorate(one_job)()


def _quoted(text: str, keys: Sequence[str], signs: str) -> str:
    """An override of one of the keys as one string for Hydra, where its value has such signs."""
    key, _, value = text.partition("=")
    if key not in keys or not set(signs) & set(value) or value[0] in "['\"":
        return text
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def as_override(key: str, value: str) -> str:
    """``key=value``, quoted as far as Hydra and a shell need it."""
    if re.fullmatch(r"[\w./-]+", value, re.ASCII):
        return f"{key}={value}"
    return shlex.quote(f"{key}={quoted(value)}")


def _composes(args: argparse.Namespace) -> bool:
    """Whether Hydra will compose our config: not for its own help, nor for completion."""
    own = (args.hydra_help, args.shell_completion, args.info, args.experimental_rerun)
    return not any([*own, args.config_path, args.config_dir])


def configure_logging() -> None:
    """Our own progress lines, and others' warnings, on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("recsys", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)


def input_error_below(error: BaseException) -> InputError | None:
    """The ``InputError`` that ``instantiate`` has wrapped in its own, if there is one."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    return cause


def _fail(message: str) -> Never:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(_USAGE_ERROR)
