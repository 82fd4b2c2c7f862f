"""Zips of ``save`` pickle classes by their modules; here modules keep their former names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FORMER_NAMES = {  # former name: present name
    "agents.policies": "agents.networks.policies",
    "agents.replay": "agents.storage.replay",
    "agents.rollout": "agents.storage.rollout",
    "rlcnn.encoders.sb3": "rlcnn.sb3",
}


@contextmanager
def former_names() -> Iterator[None]:
    """Lets zips be read that were saved under former module names."""
    sys.modules.update({old: importlib.import_module(new) for old, new in FORMER_NAMES.items()})
    try:
        yield
    finally:
        for old in FORMER_NAMES:
            del sys.modules[old]
