"""Whether this processor computes faster in bfloat16 than in float32."""

from __future__ import annotations

from pathlib import Path


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True for processors with AMX, and for AMD's with AVX-512 bfloat16 instructions.

    Intel's AVX-512 instructions alone are not enough: on a Xeon of the Sapphire Rapids class whose
    AMX is not available, NatureCNN and IMPALA take 1.5 to 1.7 times as long in bfloat16 as in
    float32 (docs/lab/encoder-speed.md). Reads the Linux kernel's list, so that torch need not be
    loaded; False on other systems.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    # The first processor's; the others are alike.
    properties: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        properties.setdefault(name.strip(), value.strip())
    flags = properties.get("flags", "").split()
    is_amd = properties.get("vendor_id") == "AuthenticAMD"
    return "amx_bf16" in flags or (is_amd and "avx512_bf16" in flags)
