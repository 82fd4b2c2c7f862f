"""Words that a page explains: each becomes a button that opens its line, by tap or by keyboard."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup

MEANINGS: Mapping[str, tuple[str, str]] = {
    "human-normalised score": (
        r"human-normalised scores?",
        "A score on a scale where random play has 0 and a human tester has 1.",
    ),
    "deviations of random play": (
        r"deviations of random play",
        "A score above random play, counted in standard deviations of single random games.",
    ),
    "random play": (
        r"random play|(?:the )?random agent(?:'s)?|acts? at random|acting at random",
        "An agent that presses buttons at random. It is the zero of all comparisons.",
    ),
    "interquartile mean (IQM)": (
        r"IQM|interquartile mean",
        "The mean without the lowest and the highest quarter of the values.",
    ),
    "restricted mean": (
        r"restricted mean",
        "A mean of times in which a run that never arrives counts with the whole budget.",
    ),
    "probability of improvement": (
        r"probability of\s+improvement",
        "How probably a run of an arm scores more than a run of the control. 50% is no difference.",
    ),
    "performance profile": (
        r"performance profiles?",
        "For every score, the share of runs above it. The higher line is the better one.",
    ),
    "optimality gap": (
        r"optimality gap",
        "How far scores stay below a human's, on average. Less is better.",
    ),
    "area under the curve": (
        r"area under the\s+curve",
        "The gain in the mean score over the whole training, early and late together.",
    ),
    "jumpstart": (r"jumpstart", "The gain at the first evaluation."),
    "asymptotic gain": (r"asymptotic gain", "The gain at the end of the training."),
    "transfer ratio": (
        r"transfer ratio",
        "The gain over the whole training, as a share of the control's mean score.",
    ),
    "threshold": (
        r"threshold",
        "A score that was fixed beforehand. The table says how early runs reach it.",
    ),
    "smallest difference found": (
        r"smallest difference found 4 times in 5|found\s+four times in five",
        "The true difference that a study like this one finds in 4 of 5 cases. Smaller ones are"
        " often missed.",
    ),
    "p-value": (
        r"p-values?|least possible p|p, for this pair alone|p",
        "How often equal arms would differ at least as much as here, by chance alone. Small values"
        " speak against chance.",
    ),
    "permutation test": (
        r"permutation\s+test",
        "A test that deals the runs to the arms anew many times, and counts how often chance alone"
        " makes as large a difference.",
    ),
    "bootstrap": (
        r"(?:stratified )?(?:percentile )?bootstrap(?: intervals?)?",
        "A way to an interval: the same runs are drawn again and again, with repetitions.",
    ),
    "stratified": (r"stratified", "For each game separately, and then all together."),
    "Student's t": (
        r"Student's t|t interval",
        "The usual interval of a mean of few values. It assumes that they spread like a bell.",
    ),
    "Welch's interval": (
        r"Welch's",
        "The usual interval of a difference if two groups spread differently.",
    ),
    "Bonferroni": (
        r"Bonferroni|simultaneous",
        "A rule for several comparisons: each gets a wider interval, so that all of them hold"
        " together.",
    ),
    "coverage": (
        r"coverage|contain(?:s|ed)? the\s+true\s+difference",
        "The share of studies whose interval holds the true value.",
    ),
    "confidence interval": (
        r"confidence intervals?|intervals?",
        "A range that holds the true value, as far as the runs can tell: a 95% interval does so in"
        " 95 of 100 studies.",
    ),
    "standard deviation": (
        r"standard deviations?|variances?|spread",
        "How far values lie from their mean, typically. The variance is its square.",
    ),
    "score": (
        r"scores?|mean\s+returns?|returns?",
        "The points of games. The score of a run is the mean of whole games that its last agent"
        " played.",
    ),
    "mean": (r"means?", "The sum of all values, divided by their number: the average."),
    "median": (r"median|middle run", "The value in the middle: half of the values are below it."),
    "pair of runs": (r"pairs?", "A run of one arm, and a run of the other arm."),
    "control": (r"control", "The arm that every other arm is compared with."),
    "arm": (r"arms?", "One way of training, which the study compares with the others."),
    "run": (
        r"runs?",
        "One training of one arm in one game with one seed. Runs of an arm differ by chance alone.",
    ),
    "seed": (r"seeds?", "The number that sets all chance of a run."),
    "agent steps": (
        r"(?:agent )?steps",
        "Choices of an action. In Atari games a step is four pictures of the game.",
    ),
    "wall time": (r"wall time", "Time by the clock. It depends on the machine."),
}
"""Word -> the pattern of its forms, and what it means in one line; the first that fits counts."""

# Names and options such as pooling=mean are no words.
_WORD = re.compile(
    r"(?<![\w=:@/.&-])(?:"
    + "|".join(f"(?P<w{n}>{pattern})" for n, (pattern, _) in enumerate(MEANINGS.values()))
    + r")(?![\w=:@/]|-\w)"
)
_TAG = re.compile(r"(<[^>]*>)")
_OPENED = re.compile(r"<(\w+)")

# Text in these stays as it is: links, code, headings, and the content of tables.
_LEFT = frozenset(("a", "button", "code", "pre", "style", "h1", "h2", "td", "figcaption", "b"))


def word_id(word: str) -> str:
    """The identifier of the line that explains a word."""
    return f"word-{re.sub(r'[^a-z]+', '-', word.lower()).strip('-')}"


class Glossary:
    """Links words of a page to their meanings; ``used`` are those that the page has."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}

    def link(self, content: str) -> Markup:
        """HTML whose words are buttons: each word once in its text and once in heads of tables."""
        linked: set[tuple[bool, str]] = set()
        left, head = "", False
        pieces = []
        for piece in _TAG.split(content):
            if piece.startswith("<"):
                opened = _OPENED.match(piece)
                if not left and opened and (opened[1] in _LEFT or 'scope="row' in piece):
                    left = opened[1]
                elif left and piece == f"</{left}>":
                    left = ""
                elif piece in ("<thead>", "</thead>"):
                    head = piece == "<thead>"
            elif not left:
                piece = self._linked(piece, linked, head)
            pieces.append(piece)
        return Markup("".join(pieces))

    def _linked(self, text: str, linked: set[tuple[bool, str]], head: bool) -> str:
        def button(found: re.Match[str]) -> str:
            word = list(MEANINGS)[int(str(found.lastgroup)[1:])]
            if (head, word) in linked:
                return found[0]
            linked.add((head, word))
            self.used[word] = MEANINGS[word][1]
            opens = f'type="button" class="word" popovertarget="{word_id(word)}"'
            return f"<button {opens}>{found[0]}</button>"

        return _WORD.sub(button, text)
