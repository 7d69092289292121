"""What the commands share: results to stdout, mistakes to stderr, exit codes, a look at folders before work.

Exit codes: 0 done, 1 the recipe's budget is broken, 2 the user's mistake (no traceback), 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from edgeav.doctor import extra_of
from edgeav.errors import EdgeavError, needs

EXIT_BUDGET_BROKEN = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; the same command continues where this one stopped"
KEPT = "What is finished is kept; then run the same command again."


def run(command: Callable[[], object]) -> None:
    """Call a command; a user's mistake becomes a message on stderr and exit code 2. Bugs keep a traceback."""
    try:
        command()
    except KeyboardInterrupt:
        fail(INTERRUPTED, EXIT_INTERRUPTED)
    except SystemExit as done:  # typer turns the interrupt into an exit, without a word
        if done.code == EXIT_INTERRUPTED:
            fail(INTERRUPTED, EXIT_INTERRUPTED)
        raise
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        fail(message, EXIT_USER_ERROR)


def fail(message: str, code: int) -> None:
    """End the process with a message on stderr."""
    print("\n".join(f"edgeav: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(code)


def user_message(error: BaseException) -> str | None:
    """What to tell the user when `error` is not a bug: a mistake, a missing extra, a disk; None for a bug."""
    for cause in _chain(error):
        if isinstance(cause, EdgeavError):
            return str(cause)
        if isinstance(cause, ValidationError):
            where = (".".join(map(str, detail["loc"])) for detail in cause.errors())
            details = zip(where, cause.errors(), strict=True)
            return "\n".join(f"{cause.title}: {path}: {detail['msg']}" for path, detail in details)
        if isinstance(cause, ModuleNotFoundError) and (extra := extra_of(cause.name or "")):
            return str(needs(extra, cause.name or ""))
        if message := _disk_message(cause):
            return message
    return None


def check_writable(folder: Path, option: str) -> None:
    """EdgeavError when nothing can be written into `folder` (it need not exist yet). Leaves no trace."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise EdgeavError(f"{existing}: is a file, so {folder} cannot be a folder; choose another with {option}")
    try:
        # Really tried: permission bits lie for root and on read-only mounts.
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        message = f"{existing}: cannot be written to: {error.strerror}; choose another folder with {option}"
        raise EdgeavError(message) from None


def check_files(paths: Sequence[Path]) -> None:
    """EdgeavError names every path that is not a readable file, all at once."""
    problems = [f"{path}: {_why_not_a_file(path)}" for path in paths if not path.is_file()]
    if problems:
        raise EdgeavError("\n".join(problems))


def print_json(data: Any) -> None:
    """A result for programs, on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def write_json(path: Path, data: Any) -> None:
    """A result for programs, in a file: whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """A result for people, on stdout; one row of words per dict."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("–" if row.get(column) is None else str(row[column]) for column in columns))
    Console(highlight=False, markup=False).print(table)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    current: BaseException | None = error
    for _ in range(20):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _disk_message(error: BaseException) -> str | None:
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    # torch and safetensors raise errors of their own, with the system's words in them.
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return f"{where}the disk is full. Free some space, or choose another folder with --run-dir. {KEPT}"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = "the file system is read-only" if number == errno.EROFS else "permission denied"
        return f"{where}{why}. Allow it, or choose another folder with --run-dir or --out. {KEPT}"
    if number in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP) and isinstance(error, OSError):
        return f"{where}{error.strerror}. Choose another path."
    return None


def _why_not_a_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder; expected a file"
    return "is not a regular file" if path.exists() else "no such file"
