"""Names of labelled images, apart from what loads them: ``--help`` needs no torch."""

from __future__ import annotations

from pathlib import Path

from envs.errors import UserError, nearest

FOLDER, ATARI = "folder:", "atari:"
PUBLISHED = ("mnist", "fashion_mnist", "cifar10")


def check_data_name(name: str) -> None:
    """Refuses a name that :func:`rlcnn.data.by_name.load_data` does not know.

    Raises:
        UserError: the name is unknown; the message names the nearest.
    """
    kind, colon, rest = name.partition(":")
    known = {name: name for name in PUBLISHED} | {
        FOLDER: "folder:DIR",
        ATARI: "atari:GAME[,GAME...]",
    }
    parts = {FOLDER: [rest], ATARI: rest.split(",")}.get(kind + colon)
    if name in PUBLISHED or (parts and all(part.strip() for part in parts)):
        return
    if parts:
        raise UserError(f'--data "{name}" is unknown: expected {known[kind + colon]}')
    if name and Path(name).is_dir():
        raise UserError(f'--data "{name}" is a folder: give it as --data "{FOLDER}{name}"')
    near = nearest(kind + colon, (FOLDER, ATARI)) if colon else nearest(name, known.values())
    expected = ", ".join(known.values())
    raise UserError(f'--data "{name}" is unknown: expected one of {expected}.{near}')
