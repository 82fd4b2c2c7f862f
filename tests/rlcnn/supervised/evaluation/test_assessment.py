"""Classifiers assessed on images whose right answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from envs.errors import UserError
from rlcnn.data.crops import CropTransform
from rlcnn.data.images import UNKNOWN, StoredImages, Task
from rlcnn.supervised.evaluation.assessment import Assessment, assess, class_indices
from rlcnn.supervised.evaluation.networks import Network

CLASSES = ("dark", "grey", "bright")


class Brightness(nn.Module):
    """Tells how bright an image is, between three answers."""

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        mean = images.float().mean(dim=(1, 2, 3))
        return (-self.sharpness * (mean[:, None] - torch.tensor([40.0, 120, 200])).abs(),)


def network(sharpness: float = 1.0, classes: tuple[str, ...] = CLASSES) -> Network:
    tasks = (Task("class", classes),)
    return Network(
        f"sharp {sharpness}", Brightness(sharpness), tasks, 1, CropTransform(8, 8), {}, ""
    )


def images(
    labels: list[int], classes: tuple[str, ...] = CLASSES, channels: int = 1
) -> StoredImages:
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(-10, 10, (len(labels), channels, 8, 8), generator=random)
    levels = torch.tensor([40 + 80 * CLASSES.index(classes[max(0, label)]) for label in labels])
    pixels = (levels[:, None, None, None] + noise).to(torch.uint8)
    return StoredImages(pixels, torch.tensor(labels), [Task("class", classes)])


def test_every_image_is_evaluated_and_counted() -> None:
    counts: list[int] = []
    assessment = assess([network()], images([0, 1, 2, 1, 0]), batch_size=2, on_images=counts.append)
    assert assessment.together.figures()["top1"] == 1.0
    assert assessment.together.labels.tolist() == [0, 1, 2, 1, 0]
    assert counts == [2, 2, 1]
    assert assessment.to_json()["top1"] == 1.0
    assert "members" not in assessment.to_json()


def test_classes_go_by_name_whatever_their_order() -> None:
    order = ("bright", "dark", "grey")
    assessment = assess([network()], images([0, 1, 2, 2], order))
    assert assessment.together.figures()["top1"] == 1.0
    assert assessment.together.labels.tolist() == [2, 0, 1, 1]
    some = assess([network()], images([0, 1], ("bright", "dark")))
    assert some.together.figures()["top1"] == 1.0


def test_images_of_unknown_class_are_left_out() -> None:
    assessment = assess([network()], images([UNKNOWN, 1, UNKNOWN, 2]))
    assert assessment.indices == [1, 3]
    assert assessment.together.figures()["top1"] == 1.0
    with pytest.raises(UserError, match="no image has a known label"):
        assess([network()], images([UNKNOWN]))


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    data = images([0, 1, 2])
    alone = [assess([network(s)], data).together.probabilities for s in (0.01, 0.1)]
    assessment = assess([network(0.01), network(0.1)], data)
    assert torch.equal(assessment.together.probabilities, (alone[0] + alone[1]) / 2)
    assert torch.equal(assessment.members[1].probabilities, alone[1])
    assert len(assessment.to_json()["members"]) == 2


def test_ten_crops_are_the_mean_over_crops() -> None:
    data, one = images([0, 1, 2]), network(0.02)
    assessment = assess([one], data, crops=10, batch_size=4)
    for image, found in zip(data.images, assessment.together.probabilities, strict=True):
        expected = one.probabilities(one.transform.ten(image), 0).mean(dim=0)
        torch.testing.assert_close(found, expected)
    assert assessment.to_json()["crops"] == 10


def test_batches_make_no_difference() -> None:
    data = images([0, 1, 2, 0, 1])

    def assessed(batch_size: int) -> Assessment:
        return assess([network(0.02)], data, batch_size=batch_size, crops=10)

    one_by_one, together = (assessed(size).together.probabilities for size in (1, 64))
    torch.testing.assert_close(one_by_one, together)


def test_networks_and_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"images have 3 channels \(RGB\), but .* --channels 1"):
        assess([network()], images([0, 1], channels=3))
    rgb = replace(network(), channels=3)
    with pytest.raises(UserError, match=r"images have 1 channel \(grey\), but .* --channels 3"):
        assess([rgb], images([0, 1]))
    other = network(2.0, ("dark", "grey", "light"))
    with pytest.raises(UserError, match="are not an ensemble"):
        assess([network(), other], images([0, 1]))
    with pytest.raises(UserError, match=r'knows no class "bright".*Did you mean "light"'):
        assess([other], images([0, 2]))


def test_images_with_several_tasks_need_a_choice() -> None:
    tasks = [Task("class", CLASSES), Task("lives", ("0", "1"))]
    pixels = images([0, 1]).images
    several = StoredImages(pixels, torch.tensor([[0, 0], [1, 1]]), tasks)
    with pytest.raises(UserError, match="several tasks: give --task class or lives"):
        assess([network()], several)
    with pytest.raises(UserError, match=r'--task "lifes" is unknown.*Did you mean "lives"'):
        assess([network()], several, task="lifes")
    with pytest.raises(UserError, match='was not trained for "lives", but for class'):
        assess([network()], several, task="lives")
    assert assess([network()], several, task="class").together.figures()["top1"] == 1.0


def test_folders_may_be_named_by_index_or_by_wordnet_number() -> None:
    assert class_indices(Task("class", ("2", "0")), CLASSES, "it") == [2, 0]
    assert class_indices(Task("class", ("n00000003", "n00000007", "n00000009")), CLASSES, "it") == [
        0,
        1,
        2,
    ]
    for names in (("3", "0"), ("n00000003", "n00000007")):
        with pytest.raises(UserError, match="knows no class"):
            class_indices(Task("class", names), CLASSES, "it")


def test_numbers_are_no_indices_of_classes_that_are_numbers() -> None:
    """As of a variable in RAM, of which other games show other values."""
    values = ("0", "4", "7")
    assert class_indices(Task("lives", ("4", "7")), values, "it") == [1, 2]
    with pytest.raises(UserError, match='knows no class "2"'):
        class_indices(Task("lives", ("0", "2")), values, "it")
