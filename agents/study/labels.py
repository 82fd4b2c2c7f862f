"""Labels of arms: how tables, figures and pages name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agents.study.arms import Arm
from envs.errors import UserError

LONGEST_LABEL = 40
"""Characters of a label that a user gives."""

LONG = 24
"""Arms get short labels if one of them has a longer name."""

LONGEST_SHORT = 32
"""Characters beyond which a short label leaves out what does not tell the arms apart."""

# The values of these options say what they are without the options' names.
_PLAIN = ("preset", "algo")


def check_labels(labels: Sequence[str], arms: int) -> None:
    """Checks the labels that a user gave for ``arms`` arms; none at all is valid.

    Raises:
        UserError: their number is wrong, or one is empty, given twice, too long or not printable.
    """
    if labels and len(labels) != arms:
        raise UserError(
            f"--arm-labels names {len(labels)} for {arms} arms: expected one label for each arm, in"
            ' the order of --arms, with quotes around a label of several words: "IQN, large"'
        )
    for label, count in Counter(labels).items():
        shown = f'--arm-labels "{label[: LONGEST_LABEL + 20]}"'
        if not label.strip():
            raise UserError(f"{shown} is empty: expected a label for each arm")
        if label != label.strip() or not label.isprintable():
            raise UserError(
                f"--arm-labels {label!r}: expected a label of one line, without spaces at its ends"
            )
        if len(label) > LONGEST_LABEL:
            raise UserError(
                f"{shown} has {len(label)} characters: expected at most {LONGEST_LABEL}"
            )
        if count > 1:
            raise UserError(f"{shown} is given twice: expected another label for each arm")


def short_labels(arms: Sequence[Arm], names: Sequence[str]) -> list[str]:
    """A label for each of ``arms``: its name, or a shorter one if any name is long.

    ``names`` are unique and name the arms in full. A short label leaves out what all arms share
    and, while it is long, what does not tell the arms apart. No two are equal.
    """
    if not names or max(map(len, names)) <= LONG:
        return list(names)
    parts = [_parts(arm) for arm in arms]
    shared = set(parts[0]).intersection(*parts[1:])
    own = [[part for part in each if part not in shared] or each for each in parts]
    labels = [_joined(_needed(each, own)) for each in own]
    counts = Counter(labels)
    # Arms whose weights have one name in several directories, for example.
    return [
        label if counts[label] == 1 and label not in (*names[:place], *names[place + 1 :]) else name
        for place, (label, name) in enumerate(zip(labels, names, strict=True))
    ]


_Part = tuple[str, str]
"""What a part of an arm says, such as "weights", and its text."""


def _parts(arm: Arm) -> list[_Part]:
    """What an arm names, the most telling first."""
    named = [(name, arm.options.get(name, "")) for name in _PLAIN]
    rest = {**arm.encoder_options, **{n: v for n, v in arm.options.items() if n not in _PLAIN}}
    parts = [
        ("kind", arm.kind),
        *named,
        ("encoder", arm.encoder),
        ("weights", arm.weights_name),
        *((name, f"{name.rpartition('.')[2]}={value}") for name, value in rest.items()),
    ]
    return [(what, text) for what, text in parts if text]


def _needed(parts: Sequence[_Part], arms: Sequence[Sequence[_Part]]) -> list[_Part]:
    """``parts`` without some, as long as they are long and no other arm has all that is left.

    The parts that most arms have go first, and the last of several; the kind never goes.
    """
    needed = list(parts)
    others = [set(arm) for arm in arms if arm is not parts]

    def arms_with(part: _Part) -> int:
        return sum(part in other for other in others)

    for part in sorted(parts, key=lambda part: (-arms_with(part), -parts.index(part))):
        rest = [each for each in needed if each != part]
        if len(_joined(needed)) <= LONGEST_SHORT:
            break
        if rest and part[0] != "kind" and not any(other >= set(rest) for other in others):
            needed = rest
    return needed


def _joined(parts: Sequence[_Part]) -> str:
    """Kind and weights as arms are written, ``frozen:pong``, and a comma between other parts."""
    text = ""
    for before, (what, shown) in zip([("", ""), *parts], parts, strict=False):
        between = ":" if (before[0], what) == ("kind", "weights") else ", "
        text += (between if text else "") + shown
    return text
