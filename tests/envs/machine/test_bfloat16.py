"""Which processors compute in bfloat16 by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.machine.bfloat16 import has_fast_bfloat16


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("GenuineIntel", "fpu avx512_bf16 amx_bf16 amx_tile", True),
        ("AuthenticAMD", "fpu avx512f avx512_bf16", True),
        # Sapphire Rapids without AMX.
        ("GenuineIntel", "fpu avx512f avx512_bf16 avx512_fp16", False),
        ("GenuineIntel", "fpu avx512f avx512_vnni", False),
        ("AuthenticAMD", "fpu avx2 avx512_bf16_like", False),
    ],
)
def test_it_needs_amx_or_amds_avx512(vendor: str, flags: str, fast: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    processor = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n"
    cpuinfo.write_text(processor + "processor\t: 1\nflags\t\t: fpu amx_bf16\n")
    assert has_fast_bfloat16(cpuinfo) == fast


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: fp asimd bf16\n", None])
def test_an_unknown_processor_is_not_fast(text: str | None, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    assert not has_fast_bfloat16(cpuinfo)
