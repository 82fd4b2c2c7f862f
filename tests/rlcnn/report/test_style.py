"""How arms look in figures."""

from __future__ import annotations

from rlcnn.report.style import elided, looks


def test_no_two_arms_look_alike_and_the_control_is_grey() -> None:
    arms = [f"arm {number}" for number in range(20)]
    given = looks(arms, "arm 3")
    assert list(given) == arms
    assert len(set(given.values())) == 20
    greys = [arm for arm, look in given.items() if look.colour[1:3] == look.colour[3:5]]
    assert greys == ["arm 3"]


def test_an_arm_keeps_its_look_whatever_is_drawn() -> None:
    assert looks(["a", "b", "c"], "a")["b"] == looks(["a", "b"], "a")["b"]


def test_long_names_lose_their_middle() -> None:
    assert elided("scratch", 10) == "scratch"
    short = elided("finetune:resnet18:layer2,pooling=mean@best", 20)
    assert len(short) == 20
    assert short.startswith("finetune:res")
    assert short.endswith("@best")
