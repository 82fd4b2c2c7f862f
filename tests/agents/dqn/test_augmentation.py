"""Augmented replays, against a plain version that treats image by image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.dqn_agents import make_dqn
from support.pretend_gpu import PretendGPU
from torch.nn import functional

from envs.errors import UserError
from rlcnn.data.drq import drq

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(image: torch.Tensor, offset: tuple[int, int], normal: float) -> torch.Tensor:
    """One stack, padded, cropped and multiplied."""
    height, width = image.shape[1:]
    padded = functional.pad(image[None].float(), (4, 4, 4, 4), mode="replicate")[0]
    down, right = offset
    cropped = padded[:, down : down + height, right : right + width]
    return cropped * (1 + 0.05 * min(max(normal, -2.0), 2.0))


@pytest.mark.parametrize("shape", [(4, 84, 84), (1, 5, 9), (12, 3, 3)])
def test_it_equals_the_plain_version_image_by_image(shape: tuple[int, int, int]) -> None:
    images = torch.randint(256, (64, *shape), dtype=torch.uint8, generator=generator(1))
    augmented = drq(images, generator())
    draws = generator()
    downs, rights = torch.randint(9, (2, 64, 1), generator=draws).squeeze(2).tolist()
    normals = torch.randn((64, 1, 1, 1), generator=draws).flatten().tolist()
    offsets = list(zip(downs, rights, strict=True))
    assert len(set(offsets)) > 30
    expected = map(plain, images, offsets, normals)
    torch.testing.assert_close(augmented, torch.stack(list(expected)))


def test_draws_are_uniform_over_offsets_and_normal_in_intensity() -> None:
    # A ramp: its middle pixel says the offset, the intensity of a constant the factor.
    ramp = torch.arange(81, dtype=torch.uint8).view(1, 1, 9, 9).repeat(9000, 1, 1, 1)
    constant = torch.full_like(ramp, 100)
    augmented = drq(torch.cat([ramp, constant], dim=1), generator())
    factors = augmented[:, 1, 4, 4] / 100
    counts = (augmented[:, 0, 4, 4] / factors).round().int().bincount(minlength=81)
    # 111 draws each, standard deviation 10.5.
    assert (counts - 9000 / 81).abs().max() < 50
    assert factors.mean().item() == pytest.approx(1, abs=0.003)
    assert 0.899 < factors.min() < 0.9001
    assert 1.0999 < factors.max() < 1.101


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("encoder", ["nature", "impala"])
def test_networks_see_augmented_pixels_unrounded(precision: str, encoder: str) -> None:
    options = {"encoder": encoder, "encoder_options": {"features_dim": 8}}
    policy = {"features_extractor_kwargs": options, "precision": precision}
    model = make_dqn(depth=2, augment="drq", policy_kwargs=policy)
    shape = model.observation_space.shape
    assert shape is not None
    pixels = torch.randint(256, (6, *shape), dtype=torch.uint8, generator=generator())
    with torch.no_grad():
        as_bytes, as_floats = model.q_net(pixels), model.q_net(pixels.float())
        between = model.q_net(pixels.float() + 0.4)
    torch.testing.assert_close(as_floats, as_bytes)
    assert not torch.equal(between, as_bytes)
    floats = pixels.float()
    model.q_net(floats)
    assert torch.equal(floats, pixels.float())


def test_batches_are_augmented_and_replayed_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    model = make_dqn(depth=2, augment="drq", learning_starts=32).learn(40)
    learner, replay = model._learner, model.replay_buffer
    assert replay is not None
    sample = replay.sample

    def noted(*arguments: Any) -> Any:
        seen.append(sample(*arguments))
        return seen[-1]

    monkeypatch.setattr(replay, "sample", noted)
    _, _, observations, *_ = learner._sample(16)
    assert seen[0].observations.dtype == torch.uint8
    assert observations.dtype == torch.float32
    assert not torch.equal(observations, seen[0].observations.float())


def test_two_trainings_are_equal_and_differ_from_one_without() -> None:
    models = [make_dqn(augment=a, learning_starts=32).learn(120) for a in ("drq", "drq", "none")]
    one, other, without = (
        torch.cat([p.detach().flatten() for p in model.q_net.parameters()]) for model in models
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, without)


@pytest.mark.parametrize("overlap", [False, True])
def test_it_is_captured_with_the_draws_of_a_batch(overlap: bool, pretend_gpu: PretendGPU) -> None:
    trained = []
    for graphs in (True, False):
        options: dict[str, Any] = {"learning_rate": 2**-10, "learning_starts": 32}
        options |= {"exploration_initial_eps": 1.0, "exploration_final_eps": 1.0}
        options |= {"device": "cuda", "cuda_graphs": graphs, "overlap": overlap, "depth": 2}
        model = make_dqn(augment="drq", **options).learn(200)
        trained.append(torch.cat([p.detach().flatten() for p in model.q_net.parameters()]))
    assert pretend_gpu.replays
    assert torch.equal(*trained)


def test_stored_features_are_refused() -> None:
    lenet = {"encoder": "lenet", "encoder_options": {"features_dim": 16}, "frozen": True}
    model = make_dqn(augment="drq", policy_kwargs={"features_extractor_kwargs": lenet})
    with pytest.raises(UserError, match=r"^augment drq needs pixels") as error:
        model.learn(8)
    assert "\n" not in str(error.value)


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(UserError, match="augment"):
        make_dqn(augment="crop")
