"""Bytes of the emulator's RAM that hold the state of a game.

The table is that of AtariARI (Anand et al. 2019, "Unsupervised State Representation Learning in
Atari", https://github.com/mila-iqia/atari-representation-learning, MIT licence), whose authors read
the bytes off commented disassemblies and source code of the games.

Checked against the screen under ale-py 0.12.1 in 1,500 to 3,000 steps of sticky-random play:

- to the pixel, or nearly (tests/rlcnn/data/atari/test_ram.py): Pong's ball, Breakout's ball and
  paddle, Space Invaders' player and herd, Freeway's ten cars;
- against the middle, or the number, of the pixels of some colour, with a correlation of at least
  0.96: the players of Berzerk (x), Bowling, Boxing, Freeway, Frostbite, Hero, Montezuma's Revenge,
  Ms. Pac-Man, Pitfall, Pong, Private Eye (x), Qbert, Seaquest, Skiing and Yars' Revenge; the
  opponents in Boxing and Pong; the ghosts of Ms. Pac-Man, the skull of Montezuma's Revenge, logs
  and scorpion of Pitfall; the balls of Tennis and Video Pinball (x); the meters of Hero and
  Seaquest; the number of Space Invaders, and of Breakout's blocks hit;
- against the emulator's own count, exactly: every ``num_lives``;
- against the return of the game so far, with a correlation of at least 0.96: the score (where it
  has several bytes, the one that changes most) of Asteroids, Bowling, Breakout, Freeway, Hero,
  Pong's opponent, Private Eye, Qbert and Video Pinball. A score is decimal, two digits a byte.

Some variables are correct but unusual. Horizontal positions in Asteroids and Demon Attack are the
console's code of coarse and fine motion, in which neighbours on the screen are not neighbours in
value. ``num_lives_direction`` of Asteroids is lives times 16 plus the direction. ``ball_y`` of
Tennis is the height of the ball and not its row on the screen. Pong's ``player_x`` and ``enemy_x``
never change, so every split leaves them out. Variables not named here were not checked: their
objects share a colour or flicker, or random play does not reach them.
"""

from __future__ import annotations

from collections.abc import Iterable


def _numbered(name: str, ram_bytes: Iterable[int]) -> dict[str, int]:
    return {f"{name}_{i}": byte for i, byte in enumerate(ram_bytes)}


# fmt: off
RAM_VARIABLES: dict[str, dict[str, int]] = {
    "asteroids": {
        "player_x": 73, "player_y": 74, "num_lives_direction": 60, "player_score_high": 61,
        "player_score_low": 62, "player_missile_x1": 83, "player_missile_x2": 84,
        "player_missile_y1": 86, "player_missile_y2": 87, "player_missile1_direction": 89,
        "player_missile2_direction": 90,
        **_numbered("enemy_asteroids_y", (*range(3, 10), *range(12, 20))),
        **_numbered("enemy_asteroids_x", (*range(21, 28), *range(30, 38))),
    },
    "battle_zone": {
        "blue_tank_facing_direction": 46, "blue_tank_size_y": 47, "blue_tank_x": 48,
        "blue_tank2_facing_direction": 52, "blue_tank2_size_y": 53, "blue_tank2_x": 54,
        "num_lives": 58, "missile_y": 105, "compass_needles_angle": 84, "angle_of_tank": 4,
        "left_tread_position": 59, "right_tread_position": 60, "crosshairs_color": 108, "score": 29,
    },
    "berzerk": {
        "player_x": 19, "player_y": 11, "player_direction": 14, "player_missile_x": 22,
        "player_missile_y": 23, "player_missile_direction": 21, "robot_missile_direction": 26,
        "robot_missile_x": 29, "robot_missile_y": 30, "num_lives": 90, "robots_killed_count": 91,
        "game_level": 92, "enemy_evilOtto_x": 46, **_numbered("enemy_robots_x", range(65, 73)),
        **_numbered("enemy_robots_y", range(56, 65)), **_numbered("player_score", range(93, 96)),
    },
    "bowling": {
        "ball_x": 30, "ball_y": 41, "player_x": 29, "player_y": 40, "frame_number_display": 36,
        "score": 33, **_numbered("pin_existence", range(57, 67)),
    },
    "boxing": {
        "player_x": 32, "player_y": 34, "enemy_x": 33, "enemy_y": 35, "enemy_score": 19,
        "clock": 17, "player_score": 18,
    },
    "breakout": {
        "ball_x": 99, "ball_y": 101, "player_x": 72, "blocks_hit_count": 77, "score": 84,
        **_numbered("block_bit_map", range(0, 30)),
    },
    "demon_attack": {
        "level": 62, "player_x": 22, "enemy_x1": 17, "enemy_x2": 18, "enemy_x3": 19,
        "missile_y": 21, "enemy_y1": 69, "enemy_y2": 70, "enemy_y3": 71, "num_lives": 114,
    },
    "freeway": {"player_y": 14, "score": 103, **_numbered("enemy_car_x", range(108, 118))},
    "frostbite": {
        "top_row_iceflow_x": 34, "second_row_iceflow_x": 33, "third_row_iceflow_x": 32,
        "fourth_row_iceflow_x": 31, "enemy_bear_x": 104, "num_lives": 76, "igloo_blocks_count": 77,
        "player_x": 102, "player_y": 100, "player_direction": 4,
        **_numbered("enemy_x", range(84, 88)), **_numbered("score", range(72, 75)),
    },
    "hero": {
        "player_x": 27, "player_y": 31, "power_meter": 43, "room_number": 28, "level_number": 117,
        "dynamite_count": 50, **_numbered("score", (56, 57)),
    },
    "montezuma_revenge": {
        "room_number": 3, "player_x": 42, "player_y": 43, "player_direction": 52,
        "enemy_skull_x": 47, "enemy_skull_y": 46, "key_monster_x": 44, "key_monster_y": 45,
        "level": 57, "num_lives": 58, "items_in_inventory_count": 61, "room_state": 62,
        **_numbered("score", range(19, 22)),
    },
    "ms_pacman": {
        "enemy_sue_x": 6, "enemy_inky_x": 7, "enemy_pinky_x": 8, "enemy_blinky_x": 9,
        "enemy_sue_y": 12, "enemy_inky_y": 13, "enemy_pinky_y": 14, "enemy_blinky_y": 15,
        "player_x": 10, "player_y": 16, "fruit_x": 11, "fruit_y": 17, "ghosts_count": 19,
        "player_direction": 56, "dots_eaten_count": 119, "player_score": 120, "num_lives": 123,
    },
    "pitfall": {
        "player_x": 97, "player_y": 105, "enemy_logs_x": 98, "enemy_scorpion_x": 99,
        "bottom_of_rope_y": 18, "clock_sec": 89, "clock_min": 88,
    },
    "pong": {
        "player_y": 51, "player_x": 46, "enemy_y": 50, "enemy_x": 45, "ball_x": 49, "ball_y": 54,
        "enemy_score": 13, "player_score": 14,
    },
    "private_eye": {
        "player_x": 63, "player_y": 86, "room_number": 92, "player_direction": 58, "dove_x": 48,
        "dove_y": 39, **_numbered("clock", (67, 69)), **_numbered("score", (73, 74)),
    },
    "qbert": {
        "player_x": 43, "player_y": 67, "player_column": 35, "red_enemy_column": 69,
        "green_enemy_column": 105, **_numbered("score", range(89, 92)),
        **_numbered("tile_color", (21, 52, 54, 83, 85, 87, 98, 100, 102, 104, 1, 3, 5, 7, 9, 32, 34,
            36, 38, 40, 42)),
    },
    "riverraid": {
        "player_x": 51, "missile_x": 117, "missile_y": 50, "fuel_meter_high": 55,
        "fuel_meter_low": 56,
    },
    "seaquest": {
        "player_x": 70, "player_y": 97, "player_direction": 86, "player_missile_direction": 87,
        "oxygen_meter_value": 102, "player_missile_x": 103, "num_lives": 59,
        "divers_collected_count": 62, **_numbered("enemy_obstacle_x", range(30, 34)),
        **_numbered("diver_or_enemy_missile_x", range(71, 75)), **_numbered("score", (57, 58)),
    },
    "skiing": {
        "player_x": 25, "clock_m": 104, "clock_s": 105, "clock_ms": 106, "score": 107,
        **_numbered("object_y", range(87, 94)),
    },
    "space_invaders": {
        "invaders_left_count": 17, "player_score": 104, "num_lives": 73, "player_x": 28,
        "enemies_x": 26, "missiles_y": 9, "enemies_y": 24,
    },
    "tennis": {
        "enemy_x": 27, "enemy_y": 25, "enemy_score": 70, "ball_x": 16, "ball_y": 17, "player_x": 26,
        "player_y": 24, "player_score": 69,
    },
    "venture": {
        "sprite0_y": 20, "sprite1_y": 21, "sprite2_y": 22, "sprite3_y": 23, "sprite4_y": 24,
        "sprite5_y": 25, "sprite0_x": 79, "sprite1_x": 80, "sprite2_x": 81, "sprite3_x": 82,
        "sprite4_x": 83, "sprite5_x": 84, "player_x": 85, "player_y": 26, "current_room": 90,
        "num_lives": 70, "score_1_2": 71, "score_3_4": 72,
    },
    "video_pinball": {
        "ball_x": 67, "ball_y": 68, "player_left_paddle_y": 98, "player_right_paddle_y": 102,
        "score_1": 48, "score_2": 50,
    },
    "yars_revenge": {
        "player_x": 32, "player_y": 31, "player_missile_x": 38, "player_missile_y": 37,
        "enemy_x": 43, "enemy_y": 42, "enemy_missile_x": 47, "enemy_missile_y": 46,
    },
}
# fmt: on
"""ROM -> state variable -> its byte, 0 to 127."""

LEFT_OUT: dict[str, dict[str, str]] = {
    "berzerk": {
        "enemy_evilOtto_y": "byte 89 changes once in each room, a few steps after it is entered, "
        "to the next of 0 to 4, and changing it moves nothing on the screen",
    },
}
"""ROM -> variable of the published table with a wrong name -> why it is left out."""
