"""The RAM table against what the screen shows, to the pixel."""

import csv
from pathlib import Path

import ale_py
import numpy as np
import pytest
from ale_py import roms

from rlcnn.data.atari.ram import LEFT_OUT, RAM_VARIABLES


def play(rom: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Screens, as the console's colours (steps, 210, 160), and RAM, four frames apart."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(roms.get_rom_path(rom))
    actions = ale.getMinimalActionSet()
    rng = np.random.default_rng(0)
    screens, ram = [], []
    action = actions[0]
    for _ in range(steps):
        if rng.random() < 0.3:
            action = actions[int(rng.integers(len(actions)))]
        for _ in range(4):
            ale.act(action)
        if ale.game_over():
            ale.reset_game()
        screens.append(ale.getScreen().copy())
        ram.append(ale.getRAM().copy())
    return np.array(screens), np.array(ram).astype(int)


def left_and_top(screens, colour, rows, columns, width, height):
    """Corner of the one thing of that colour and size in a region; which screens show just that."""
    corners, shown = [], []
    for screen in screens:
        y, x = np.nonzero(screen[slice(*rows), slice(*columns)] == colour)
        alone = len(x) > 0 and np.ptp(x) + 1 == width and np.ptp(y) + 1 == height
        shown.append(alone)
        corners.append((x.min() + columns[0], y.min() + rows[0]) if alone else (0, 0))
    shown = np.array(shown)
    assert shown.sum() > 100
    return np.array(corners).T, shown


# Colour, region and size of a thing on the screen; what the screen shows of a variable, within so
# many pixels: the RAM may already be that of the next frame.
@pytest.mark.parametrize(
    ("rom", "thing", "left", "top"),
    [
        ("pong", (14, (34, 194), (0, 160), 2, 4), ("ball_x", -49, 0), ("ball_y", -14, 1)),
        ("breakout", (70, (93, 188), (8, 152), 2, 4), ("ball_x", -49, 1), ("ball_y", 9, 3)),
        ("breakout", (70, (189, 193), (9, 151), 16, 4), ("player_x", -47, 0), None),
        ("space_invaders", (196, (185, 195), (0, 160), 7, 10), ("player_x", -1, 0), None),
    ],
)
def test_positions(rom, thing, left, top):
    screens, ram = play(rom, 400)
    corners, shown = left_and_top(screens, *thing)
    for found, expected in zip(corners, (left, top), strict=True):
        if expected is not None:
            variable, offset, tolerance = expected
            said = ram[:, RAM_VARIABLES[rom][variable]] + offset
            assert abs(said - found)[shown].max() <= tolerance
            assert len(np.unique(said[shown])) > 10


def test_the_herd_of_invaders():
    screens, ram = play("space_invaders", 400)
    herd = (screens[:, 20:185] == 20).any(axis=1)
    edges = herd.argmax(axis=1)
    # The variable is the column that the herd began with: shooting it away moves the edge alone.
    whole = ram[:, RAM_VARIABLES["space_invaders"]["invaders_left_count"]] >= 30
    assert (ram[whole, RAM_VARIABLES["space_invaders"]["enemies_x"]] - 1 == edges[whole]).all()


def test_each_of_freeways_lanes_has_its_car():
    screens, ram = play("freeway", 200)
    for lane in range(10):
        found = []
        for screen in screens:
            strip = screen[24 + 16 * lane : 39 + 16 * lane]
            # Neither road, lines, nor a chicken.
            x = np.nonzero(~np.isin(strip, (0, 4, 6, 8, 12, 14, 30)))[1]
            whole = len(x) > 20 and x.min() > 8 and 5 < np.ptp(x) < 16
            found.append(x.min() if whole else -1)
        found = np.array(found)
        car = ram[:, RAM_VARIABLES["freeway"][f"enemy_car_x_{lane}"]]
        shown = found >= 0
        assert shown.sum() > 100
        # Counted from either side; the RAM may be a step ahead of the screen.
        assert min(np.ptp((found + sign * car)[shown]) for sign in (1, -1)) <= 1


def test_scores_and_lives_are_the_emulators():
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    for rom, lives, offset in (("space_invaders", 73, 0), ("seaquest", 59, 1)):
        assert RAM_VARIABLES[rom]["num_lives"] == lives
        ale = ale_py.ALEInterface()
        ale.setInt("random_seed", 0)
        ale.loadROM(roms.get_rom_path(rom))
        for _ in range(100):
            ale.act(0)
        assert ale.lives() == ale.getRAM()[lives] + offset


def test_bytes_are_bytes_of_the_ram_and_roms_are_there():
    for rom, variables in RAM_VARIABLES.items():
        assert roms.get_rom_path(rom) is not None
        assert all(0 <= byte < 128 for byte in variables.values())
        assert len(set(variables.values())) == len(variables)


def test_the_table_is_the_published_one(real_data: Path):
    published: dict[str, dict[str, int]] = {}
    with (real_data / "atari-ram-labels.csv").open() as file:
        for row in csv.DictReader(file):
            published.setdefault(row["game"], {})[row["variable"]] = int(row["ram_index"])
    for rom, variables in LEFT_OUT.items():
        for variable in variables:
            del published[rom][variable]
    assert published == RAM_VARIABLES
