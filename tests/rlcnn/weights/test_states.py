"""State dicts in files of torch.save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.weights import SHAPE, equal, refusal

from rlcnn.encoders import create_encoder
from rlcnn.weights.load import load_into
from rlcnn.weights.states import STATE_KEYS


@pytest.mark.parametrize(
    "inside, name",
    [
        *((key, "e.pth") for key in ("", *STATE_KEYS)),
        *(("", name) for name in ("e.bin", "e.pth.tar", "e.ckpt", "e.th", "e")),
    ],
)
def test_files_of_torch_load_like_any_other(inside: str, name: str, tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = source.state_dict()
    torch.save({inside: state, "epoch": 3} if inside else state, tmp_path / name)
    report = load_into(target, tmp_path / name)
    assert equal(source, target)
    assert report.loaded == tuple(state)


def test_a_file_of_torch_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    assert "holds no state_dict" in refusal(tmp_path / "list.pth")


def test_an_old_file_of_torch_and_safetensors_of_any_name_load(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = source.state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_into(target, tmp_path / "old.pth")
    assert equal(source, target)
    target = create_encoder("lenet", SHAPE)
    save_file(state, tmp_path / "weights.bin")
    load_into(target, tmp_path / "weights.bin")
    assert equal(source, target)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"network": s, "step": 1},
        lambda s: {"module": s, "optimizer": None},
        lambda s: {"checkpoint": {"model": s}, "epoch": 1},
        lambda s: {"run": {"kept": [{"best": s}, 3]}, "optimizer": {"state": {0: {"step": s}}}},
        lambda s: (s, {"epoch": 1}),
        lambda s: {"net": {"depth": 3}, "ema": s},
        lambda s: {"state_dict": {}, "model": s},
        lambda s: {"model": {**s, "version": 3}},
        lambda s: {**s, "_extra_state": None},
        lambda s: {n.replace("trunk.", "trunk._orig_mod."): t for n, t in s.items()},
        lambda s: {
            "_fsdp_wrapped_module." + n.replace("trunk.", "trunk._checkpoint_wrapped_module."): t
            for n, t in s.items()
        },
    ],
)
def test_weights_are_found_wherever_scripts_put_them(
    wrap: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    torch.save(wrap(source.state_dict()), tmp_path / "e.pt")
    load_into(target, tmp_path / "e.pt")
    assert equal(source, target)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: (t * 100).to(torch.int8), "torch.int8"),
        (lambda t: t.to(torch.complex64), "torch.complex64"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "no values"),
    ],
)
def test_tensors_without_plain_floats_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], said: str, tmp_path: Path
) -> None:
    state = create_encoder("lenet", SHAPE).state_dict()
    torch.save({name: change(tensor) for name, tensor in state.items()}, tmp_path / "e.pt")
    assert said in refusal(tmp_path / "e.pt", create_encoder("lenet", SHAPE))
