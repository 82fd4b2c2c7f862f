"""Options of a report, apart from what writes it: ``--help`` needs no libraries of reports."""

from __future__ import annotations

from typing import Literal

Films = Literal["linked", "embedded", "strips"]
"""How the page shows films: strips of pictures with a link to each film, strips with the films
themselves if they are small enough, or strips alone."""
