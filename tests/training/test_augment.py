"""What the discriminator sees is augmented, as much as it overfits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sc_layers.training import resume_training, training_step
from sc_layers.training.augment import ADJUST_INTERVAL, Augmentation
from sc_layers.training.processes import Processes
from sc_layers.training.snapshots import save_checkpoint
from tests.training.tiny import TINY, tiny_state

pytest.importorskip("kornia")

CPU = torch.device("cpu")
ADA = TINY.replace(augment="ada", augment_probability=0.5, augment_kimg=0.5)


def pictures(count: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def batch(number: int) -> torch.Tensor:
    return torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation("ada"), Augmentation("fixed", 0.0)])
def test_with_probability_0_images_stay_as_they_are(augmentation: Augmentation) -> None:
    assert torch.equal(augmentation(pictures()), pictures())


@pytest.mark.parametrize("channels", [1, 3])
def test_with_probability_1_every_image_changes_and_gradients_flow(channels: int) -> None:
    images = pictures(channels=channels).requires_grad_()
    changed = Augmentation("fixed", 1.0)(images)
    assert changed.shape == images.shape
    assert ((changed - images).abs().amax((1, 2, 3)) > 0.05).all()
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()


def test_each_change_acts_on_its_share_of_the_images() -> None:
    images = pictures(4000)
    untouched = (Augmentation("fixed", 0.1)(images) == images).all(3).all(2).all(1).float().mean()
    assert 0.9**9 - 0.02 < untouched < 0.9**8 + 0.06  # nine changes, of which some change nothing at times


def test_a_quarter_turn_is_exact() -> None:
    images = pictures(200)
    changed = Augmentation("fixed", 0.15)(images)
    turned = [torch.rot90(images, turns, (2, 3)) for turns in (1, 2, 3)]
    found = [((changed - other).abs().amax((1, 2, 3)) < 1e-5).sum() for other in turned]
    assert all(count > 0 for count in found)


def test_the_probability_follows_how_sure_the_discriminator_is_of_real_images() -> None:
    augmentation = Augmentation("ada", 0.0, target=0.6, kimg=1.0)
    for updates in range(1, 3 * ADJUST_INTERVAL + 1):
        augmentation.observe(torch.tensor([[2.0], [0.5]]))
        augmentation.adjust(updates, 10, Processes())
    assert augmentation.probability.item() == pytest.approx(3 * ADJUST_INTERVAL * 10 / 1000)
    for updates in range(1, 4 * ADJUST_INTERVAL + 1):
        augmentation.observe(torch.tensor([[2.0], [-0.5]]))
        augmentation.adjust(updates, 10, Processes())
    assert augmentation.probability == 0


def test_a_fixed_probability_stays() -> None:
    augmentation = Augmentation("fixed", 0.3)
    augmentation.observe(torch.ones(4, 1))
    augmentation.adjust(ADJUST_INTERVAL, 1000, Processes())
    assert augmentation.probability.item() == pytest.approx(0.3)


def test_the_recogniser_sees_images_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    state = tiny_state(ADA.replace(augment="fixed", augment_probability=1.0))
    seen: dict[str, list[torch.Tensor]] = {"D": [], "Q": []}
    for name in seen:
        network = getattr(state, name)
        network.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].detach()))
    made: list[torch.Tensor] = []
    state.G.register_forward_hook(lambda _, inputs, images: made.append(images.detach()))
    training_step(state, batch(0))
    for images in seen["Q"]:
        assert any(torch.equal(images[: len(other)], other) for other in made)
    for images in seen["D"]:
        assert not any(torch.equal(images[:1], other[:1]) for other in [*made, batch(0), batch(0)[4:]])


def test_a_training_with_augmentation_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tiny_state(ADA), tiny_state(ADA)
    for number in range(6):
        losses = training_step(whole, batch(number))
    for number in range(3):
        training_step(cut, batch(number))
    save_checkpoint(tmp_path, cut, {}, keep=1)
    resumed = resume_training(tmp_path, CPU).state
    for number in range(3, 6):
        training_step(resumed, batch(number))
    assert torch.equal(resumed.augmentation.probability, whole.augmentation.probability)
    assert whole.augmentation.probability != ADA.augment_probability
    assert losses["augment/probability"] == whole.augmentation.probability
    for name in ("G", "D", "Q"):
        for ours, theirs in zip(getattr(resumed, name).parameters(), getattr(whole, name).parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_augmentation_can_begin_in_a_run_without_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny_state(), {}, keep=1)
    resumed = resume_training(tmp_path, CPU, {"augment": "fixed", "augment_probability": 0.4})
    assert resumed.messages == ["augment none -> fixed", "augment_probability 0.0 -> 0.4"]
    assert resumed.state.augmentation.probability.item() == pytest.approx(0.4)


def test_frozen_blocks_of_the_discriminator_keep_their_weights() -> None:
    state = tiny_state(TINY.replace(freeze_d=1))
    before = {name: parameter.clone() for name, parameter in state.D.named_parameters()}
    for number in range(2):
        training_step(state, batch(number))
    kept = {name for name, parameter in state.D.named_parameters() if torch.equal(parameter, before[name])}
    assert kept == {name for name in before if name.startswith(("from_rgb.", "blocks.0."))}
    with pytest.raises(ValueError, match="the discriminator has 3 blocks, got 9"):
        tiny_state(TINY.replace(freeze_d=9))


def test_blocks_are_frozen_when_a_run_goes_on(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny_state(), {}, keep=1)
    resumed = resume_training(tmp_path, CPU, {"freeze_d": 2})
    assert resumed.messages == ["freeze_d 0 -> 2", "the discriminator's optimiser starts afresh: other weights learn"]
    assert not any(parameter.requires_grad for parameter in resumed.state.D.blocks[:2].parameters())
    assert all(parameter.requires_grad for parameter in resumed.state.D.blocks[2:].parameters())
    training_step(resumed.state, batch(0))
    save_checkpoint(tmp_path, resumed.state, {}, keep=1)
    assert resume_training(tmp_path, CPU).messages == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"augment": "much"}, "augment must be one of none, ada, fixed, got 'much'"),
        ({"augment_probability": 1.5}, "augment_probability must be from 0 to 1, got 1.5"),
        ({"augment_kimg": 0.0}, "augment_kimg must be positive"),
        ({"freeze_d": -1}, "freeze_d must be at least 0, got -1"),
    ],
)
def test_wrong_settings_are_named(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TINY.replace(**setting)
