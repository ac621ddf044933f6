"""What a user's mistake looks like, and how every command ends: one clear line, exit status not 0."""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class UserError(ValueError):
    """A mistake of the input or the command line; the message is one line: expected, came, what to do."""


def run_command(body: Callable[[], None], *, debug: bool = False) -> NoReturn:
    """Run a command's body and leave the process with its exit status.

    Args:
        body: The command's work, its options already parsed.
        debug: Show the traceback above the one line.

    Raises:
        SystemExit: Always (a defect of ours propagates instead); 0 when `body` returned, 2 for bad input, a missing
            file or a full disk, 130 when interrupted.
    """
    try:
        body()
    except KeyboardInterrupt:
        _leave("interrupted; the same command continues where it stopped.", EXIT_INTERRUPTED, debug)
    except (UserError, FileNotFoundError) as error:
        _leave(" ".join(str(error).split()), EXIT_BAD_INPUT, debug)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _leave(f"the disk is full{where}; free some space, then run the same command again.", EXIT_BAD_INPUT, debug)
    sys.exit(0)


def configure_logging(level: int = logging.INFO) -> None:
    """Send the library's log lines to stderr, one plain line each (commands call this once)."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)


def _leave(message: str, status: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
