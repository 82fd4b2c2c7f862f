"""Pictures of a film: the game, and beside it what an agent sees and how it decides.

Drawn with OpenCV, which takes a millisecond where matplotlib takes a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rlcnn.visualize.heat import full_strength, heat_over

HEIGHT = 540  # of a picture, in pixels
_MARGIN, _GAP = 16, 8
_HEADER = 40  # height of the line with score and step
_LABEL = 22  # height of a panel's title
_GAME_HEIGHT, _GAME_WIDTH = 440, 480  # the most that the game takes
_PANELS = 560  # width of the panels
_TILE = 132  # the largest side of an observed frame
_MOST_TILES = 8
_MOST_BARS = 18
_HISTORY = 300  # decisions in the curve of values

# Colours of Okabe and Ito 2008, in RGB.
_INK, _FAINT, _GRID = (26, 26, 26), (120, 120, 120), (225, 225, 225)
_BLUE, _VERMILION = (0, 114, 178), (213, 94, 0)

# Standard deviation of a Gaussian, as a share of an observed frame's height: single pixels, and the
# grid that the stride of a first convolution leaves in gradients, would hide the places.
_BLUR = 1 / 50


@dataclass(frozen=True)
class DecisionView:
    """An agent's decision, as panels show it.

    Attributes:
        frames: what it saw, uint8 (frames, height, width) or (frames, height, width, 3), oldest
            first.
        saliency: float32 (frames, height, width), at least 0.
        scores: float (actions,): probabilities or Q values.
        score_name: what these are, in the plural.
        most: the score of a bar of full length; None takes the largest so far.
        explained: the quantity whose saliency is shown, such as "log p(LEFT)".
        action: index of the chosen action.
    """

    frames: np.ndarray
    saliency: np.ndarray
    scores: np.ndarray
    score_name: str
    most: float | None
    explained: str
    action: int


class FilmPanels:
    """Draws a film's pictures. Panels are drawn once per decision, and the game at every picture.

    All pictures have the size of the first one.
    """

    def __init__(self, action_names: Sequence[str], title: str) -> None:
        """``title`` stands above the game."""
        self._names, self._title = action_names, title
        self._values: list[float] = []
        self._decisions = 0
        self._panels = _paper(HEIGHT - _HEADER, _PANELS)
        self._largest = 1e-6  # absolute score so far
        _text(self._panels, "no decision yet: the game's opening", 0, 15, colour=_FAINT)

    def decide(self, decision: DecisionView, value: float) -> None:
        """Draws the panels of the next decision; ``value`` is the agent's estimated return."""
        self._decisions += 1
        self._values.append(value)
        canvas = _paper(*self._panels.shape[:2])
        shown = min(len(decision.frames), _MOST_TILES)
        side = min(_TILE, (_PANELS - (shown - 1) * _GAP) // shown)
        seen, saliency = decision.frames[-shown:], decision.saliency[-shown:]
        height, width = seen.shape[1:3]
        last = f", the last {shown}" if shown < len(decision.frames) else ""
        _text(canvas, f"what the agent sees: {height}x{width}, oldest first{last}", 0, 15)
        top = _LABEL
        _row(canvas, [_as_rgb(frame) for frame in seen], top, side)
        top += side + _GAP
        _text(canvas, f"what its choice depends on: gradient of {decision.explained}", 0, top + 15)
        top += _LABEL
        blur = max(0.5, _BLUR * height)
        blurred = [cv2.GaussianBlur(one, (0, 0), blur) for one in saliency.astype(np.float32)]
        full = full_strength(np.stack(blurred))
        heated = [heat_over(*pair, full) for pair in zip(seen, blurred, strict=True)]
        _row(canvas, heated, top, side)
        top += side + _GAP
        middle = _PANELS // 2 - _GAP
        self._draw_bars(canvas[top:, :middle], decision)
        self._draw_values(canvas[top:, middle + 2 * _GAP :])
        self._panels = canvas

    def draw(self, picture: np.ndarray, score: float) -> np.ndarray:
        """A picture of the film from one of the game, uint8 RGB (height, width, 3)."""
        game = _fitted(picture)
        height, width = game.shape[:2]
        canvas = _paper(HEIGHT, _even(width + 3 * _MARGIN + _PANELS))
        top = _HEADER + _LABEL
        canvas[top : top + height, _MARGIN : _MARGIN + width] = game
        _text(canvas, _shortened(self._title, width), _MARGIN, _HEADER + 15)
        line = f"score {score:g}    step {self._decisions:,}"
        _text(canvas, line, _MARGIN, 27, size=0.65, thickness=2)
        left = width + 2 * _MARGIN
        canvas[_HEADER:, left : left + _PANELS] = self._panels
        return canvas

    def _draw_bars(self, canvas: np.ndarray, decision: DecisionView) -> None:
        """A bar for each action, the chosen one in another colour."""
        scores = np.asarray(decision.scores, float)
        order = list(range(len(scores)))
        which = f" of {len(scores)} actions, the best {_MOST_BARS}" * (len(scores) > _MOST_BARS)
        if which:
            order = sorted(np.argsort(-scores, kind="stable")[:_MOST_BARS].tolist())
        _text(canvas, decision.score_name + which, 0, 15)
        self._largest = max(self._largest, float(np.abs(scores).max()))
        full = decision.most or self._largest
        pitch = min(24.0, (canvas.shape[0] - _LABEL - _GAP) / len(order))
        size = min(0.42, pitch / 28)
        names = [_shortened(self._names[i], 100, size) for i in order]
        left = max(_width(name, size) for name in names) + _GAP
        right = canvas.shape[1] - 50
        signed = bool((scores < 0).any())
        zero = (left + right) // 2 if signed else left
        for row, (index, name) in enumerate(zip(order, names, strict=True)):
            middle = round(_LABEL + (row + 0.5) * pitch)
            chosen = index == decision.action
            half = max(1, round(0.36 * pitch))
            length = round(scores[index] / full * (right - zero))
            ends = sorted((zero, zero + length))
            colour = _VERMILION if chosen else _BLUE
            cv2.rectangle(canvas, (ends[0], middle - half), (ends[1], middle + half), colour, -1)
            base = middle + round(9 * size / 0.42) // 2
            ink = _VERMILION if chosen else _INK
            _text(canvas, name, 0, base, ink, size)
            number = f"{scores[index]:.2f}" if decision.most else f"{scores[index]:#.3g}"
            _text(canvas, number, right + 4, base, ink, size)
        bottom = round(_LABEL + len(order) * pitch)
        cv2.line(canvas, (zero, _LABEL), (zero, bottom), _FAINT, 1)

    def _draw_values(self, canvas: np.ndarray) -> None:
        """The curve of the last values, with its range."""
        values = np.array(self._values[-_HISTORY:])
        _text(canvas, f"value, last {_HISTORY} steps: {values[-1]:.2f}", 0, 15)
        left, right = 44, canvas.shape[1] - 6
        top, bottom = _LABEL + 6, canvas.shape[0] - _MARGIN - 8
        least, most = _round_range(float(values.min()), float(values.max()))
        for level in (least, (least + most) / 2, most):
            y = round(bottom - (level - least) / (most - least) * (bottom - top))
            cv2.line(canvas, (left, y), (right, y), _GRID, 1)
            _text(canvas, f"{level:.3g}", 0, y + 4, _FAINT, 0.38)
        xs = left + np.arange(len(values)) * (right - left) / (_HISTORY - 1)
        ys = bottom - (values - least) / (most - least) * (bottom - top)
        points = np.rint(np.stack([xs, ys], axis=1)).astype(np.int32)
        cv2.polylines(canvas, [points], False, _BLUE, 2, cv2.LINE_AA)
        cv2.circle(canvas, tuple(map(int, points[-1])), 4, _VERMILION, -1, cv2.LINE_AA)


def captioned(picture: np.ndarray, lines: Sequence[str], height: int) -> np.ndarray:
    """A picture of a game enlarged to ``height`` pixels, with lines of text above it.

    Args:
        picture: uint8 RGB (height, width, 3).
        lines: of text, cut where they are wider than the picture.
        height: of the game in the result, approximately: pictures are enlarged by whole factors.
    """
    game = _fitted(picture, height, 2 * height)
    canvas = _paper(game.shape[0] + _LABEL * len(lines) + _GAP, game.shape[1])
    canvas[-game.shape[0] :] = game
    for number, line in enumerate(lines):
        _text(canvas, _shortened(line, game.shape[1] - 4), 2, 16 + number * _LABEL)
    return canvas


def faded(picture: np.ndarray) -> np.ndarray:
    """A paler picture, as of a game that is over."""
    return 255 - (255 - picture) // 3


def tiled(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures, uint8 RGB, in rows of ``columns``, on white; sides of the result are even."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    high = [max(picture.shape[0] for picture in row) for row in rows]
    wide = max(sum(p.shape[1] + _MARGIN for p in row) for row in rows) + _MARGIN
    canvas = _paper(_even(sum(high) + _MARGIN * (len(rows) + 1)), _even(wide))
    y = _MARGIN
    for row, height in zip(rows, high, strict=True):
        x = _MARGIN
        for picture in row:
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
            x += picture.shape[1] + _MARGIN
        y += height + _MARGIN
    return canvas


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _row(canvas: np.ndarray, tiles: Sequence[np.ndarray], top: int, side: int) -> None:
    for number, tile in enumerate(tiles):
        left = number * (side + _GAP)
        enlarged = cv2.resize(tile, (side, side), interpolation=_interpolation(tile, side))
        canvas[top : top + side, left : left + side] = enlarged


def _interpolation(image: np.ndarray, side: int) -> int:
    return cv2.INTER_NEAREST if side >= image.shape[0] else cv2.INTER_AREA


def _fitted(
    picture: np.ndarray, height: int = _GAME_HEIGHT, width: int = _GAME_WIDTH
) -> np.ndarray:
    """The picture enlarged by a whole factor, or reduced, to at most ``height`` and ``width``."""
    factor = min(height / picture.shape[0], width / picture.shape[1])
    if factor >= 1:
        factor = math.floor(factor)
    size = tuple(max(1, round(side * factor)) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=_interpolation(picture, size[1]))


def _as_rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _round_range(least: float, most: float) -> tuple[float, float]:
    """A range with some room around, also for equal ends."""
    room = max(0.05 * (most - least), 1e-3 * max(abs(least), abs(most)), 1e-3)
    return least - room, most + room


def _even(side: int) -> int:
    return side + side % 2


def _width(text: str, size: float) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]


def _shortened(text: str, width: int, size: float = 0.45) -> str:
    """The text, without its beginning where it is wider than ``width`` pixels."""
    # OpenCV's letters are ASCII.
    text = text.encode("ascii", "replace").decode()
    if _width(text, size) <= width:
        return text
    while text and _width(f"..{text}", size) > width:
        text = text[1:]
    return f"..{text}"


def _text(
    canvas: np.ndarray,
    text: str,
    x: int,
    y: int,
    colour: tuple[int, int, int] = _INK,
    size: float = 0.45,
    thickness: int = 1,
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, text, (x, y), font, size, colour, thickness, cv2.LINE_AA)
