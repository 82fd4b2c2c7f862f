"""Atomic writes, plain JSON, and disk errors in one line."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envs.errors import UserError, in_shell

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the allowed file size",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "there is no such directory",
    errno.ENOTDIR: "a part of that path is a file, not a directory",
    errno.EISDIR: "that is a directory",
    errno.EEXIST: "something of that name is in the way",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn disk errors inside the block into one line that names ``path``.

    Raises:
        UserError: The disk is full or over quota, a file grew too large, or the place cannot be
            written. Any other exception passes through unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {os.fspath(path)}: {reason}") from error


def _refusal(error: Exception) -> str | None:
    """The reason of a disk error, if ``error`` or an exception behind it is one."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in chain:
        if isinstance(cause, OSError):
            code = cause.errno
        else:
            # safetensors reports from Rust, with the error number only in the text.
            found = re.search(r"\(os error (\d+)\)", str(cause))
            code = int(found[1]) if found else None
        if code in _REASONS:
            return _REASONS[code]
    # torch.save, given a path, reports only where in its C++ the writing failed.
    if any("inline_container" in str(cause) for cause in chain):
        return "writing failed; is the disk full?"
    return None


def fsync(path: Path) -> None:
    """Wait until a file's contents, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replace a file so that a reader, or a crash, sees the old contents or the new, never a part.

    Args:
        path: The file; its directory must exist.
        content: Bytes, or text to be stored as UTF-8.

    Raises:
        UserError: The disk is full or the place cannot be written; the old file is untouched.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            with open(scratch, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        fsync(path.parent)


def check_writable(option: str, file: Path) -> None:
    """Checks, before work begins, whether its result can be written to a file.

    Args:
        option: the option that names the file, such as ``--json``.
        file: the file, which need not exist.

    Raises:
        UserError: it cannot be written; the line says how to make a missing directory.
    """
    if not file.name or file.is_dir():
        raise UserError(f'{option} "{file}" is a directory, not a file')
    if file.name == "-":
        raise UserError(f'{option} "-" is not standard output here: expected the name of a file')
    directory = file.absolute().parent
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    refused = f'{option} "{file}" cannot be written'
    if not existing.is_dir():
        raise UserError(f'{refused}: "{existing}" is a file, not a directory')
    if not os.access(existing, os.W_OK):
        raise UserError(f'{refused}: "{existing}" may not be written to')
    if existing != directory:
        raise UserError(f"{refused}: no such directory; mkdir -p {in_shell(directory)} makes it")
    try:
        # Some file systems take no files from anyone, such as /proc.
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise UserError(f'{refused}: "{directory}" takes no files: {error.strerror}') from error


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """:func:`write_atomic` for JSON; see :func:`plain` for what may be written."""
    write_atomic(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The same value in JSON's own types.

    Mappings become objects, lists and tuples arrays, paths strings, and NumPy or PyTorch scalars
    numbers. NaN and the infinities have no JSON form and become null.

    Raises:
        TypeError: Something in ``value`` has no JSON form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(getattr(value, "item", None)):
        return plain(value.item())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: The file is missing, cannot be read, or does not hold one whole JSON object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is truncated or corrupted: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is corrupted: it holds no JSON object")
    return value
