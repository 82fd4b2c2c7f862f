"""Measurements from the command line, and refused options."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.script_runs import command, environment, read, run_script

from envs.errors import UserError
from rlcnn.encoders import list_encoders

# Of seconds: what is measured so shortly says nothing of speed.
TINY = [
    *("--num-envs", "1", "--num-threads", "1", "--obs-size", "44", "--precision", "fp32"),
    *("--compile", "off", "--ppo.n-steps", "16", "--ppo.batch-size", "16", "--ppo.n-epochs", "2"),
    *("--rounds", "2", "--seconds", "0.01", "--encoder-batch", "1"),
]


@pytest.mark.slow
def test_ours_is_measured_beside_its_throughput_bound(tmp_path: Path) -> None:
    written = tmp_path / "speed.json"
    # Last, since it would take all that follows it for peers.
    done = run_script(
        "benchmark", *TINY, "--parts", "ceilings", "ppo", "--json", written, "--peers"
    )
    assert done.returncode == 0, done.stderr
    (ppo,) = read(written)["algorithms"].values()
    assert set(ppo["agents"]) == {"ours"}
    assert ppo["speedup"] == {}
    pairs = zip(*(ppo[key]["samples"] for key in ("efficiency", "permitted")), strict=True)
    ours = ppo["agents"]["ours"]["rate"]["samples"]
    assert [efficiency * bound for efficiency, bound in pairs] == pytest.approx(ours)


@pytest.mark.slow
def test_one_command_measures_prints_and_writes(tmp_path: Path) -> None:
    written, drawn = tmp_path / "speed.json", tmp_path / "speed.svg"
    # Last, since it would take all that follows it for networks.
    files = ("--json", written, "--plot", drawn, "--image-models")
    done = run_script("benchmark", *TINY, "--parts", "ceilings", "ppo", "encoders", *files)
    assert done.returncode == 0, done.stderr
    for row in (
        "environment alone",
        "throughput bound",
        "ours",
        "sb3",
        "efficiency",
        "speedup",
        "impala",
    ):
        assert row in done.stdout
    assert "round 2 of 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert drawn.stat().st_size

    printed = read(written)
    assert printed["settings"]["rounds"] == 2
    assert printed["provenance"]["cores"] >= 1
    (ppo,) = printed["algorithms"].values()
    assert ppo["config"]["ppo"]["n_steps"] == 16
    assert set(ppo["ceilings"]) == {"environment", "inference", "update", "AtariVecEnv"}
    ours, sb3 = ppo["agents"]["ours"], ppo["agents"]["sb3"]
    assert set(sb3["trials"]) == {"DummyVecEnv, 1 thread", "SubprocVecEnv, 1 thread"}
    assert sb3["variant"] == max(sb3["trials"], key=sb3["trials"].get)
    assert ours["peak_host_bytes"] > 0

    # What follows from the figures follows from those of the same round.
    for number in range(2):
        environment, inference, update = (
            ppo["ceilings"][part]["rate"]["samples"][number]
            for part in ("environment", "inference", "update")
        )
        bound = 1 / (1 / environment + 1 / inference + 2 / update)
        rate = ours["rate"]["samples"][number]
        assert ppo["permitted"]["samples"][number] == pytest.approx(bound)
        assert ppo["efficiency"]["samples"][number] == pytest.approx(rate / bound)
        speedup = rate / sb3["rate"]["samples"][number]
        assert ppo["speedup"]["sb3"]["samples"][number] == pytest.approx(speedup)
    assert {row["name"] for row in printed["encoders"]} == set(list_encoders())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--parts ceiling", '--parts "ceiling" is unknown.* Did you mean "ceilings"'),
        (
            "--peers sb4",
            '--peers "sb4" is unknown: expected one of sb3, uncached. Did you mean "sb3"',
        ),
        ("--env ALE/Pogn-v5", 'unknown Atari game "ALE/Pogn-v5".* Did you mean "ALE/Pong-v5"'),
        ("--weights nothing.pth", '"nothing.pth" does not exist'),
        ("--ppo.batch-size 7", "batch_size 7 does not divide the rollout of 16 steps"),
        ("--rounds 0", "--rounds 0 must be at least 1"),
        ("--rounds few", '--rounds "few" is not a whole number'),
        ("--seconds -1", "--seconds -1.0 must be more than 0"),
        ("--plot speed.jpg", "must end in one of .png, .svg, .pdf"),
        ("--preset zoo2", 'Did you mean "zoo"'),
        ("--preset pqn --parts dqn", "--parts dqn cannot be measured: --preset pqn is for pqn"),
        ("--encoder natur", 'Did you mean "nature"'),
        ("--ppo.batch-size 7 --parts ppo", "batch_size 7 does not divide"),
        ("--eval-every 3", "eval-every"),
        ("--device gpu", 'unknown device "gpu"'),
        ("--round 3", 'unknown option "--round". Did you mean "--rounds"'),
        ("--suite tpu", '--suite "tpu" is unknown'),
        ("--suite gpu --suite-scale huge", '--suite-scale "huge" is unknown'),
        ("--suite gpu --parts ppo", "--parts is not for --suite gpu"),
        ("--suite gpu --image_models", "--image-models is not for --suite gpu"),
        ("--suite gpu --cuda-graphs off", "--cuda-graphs is not for --suite gpu"),
        ("--suite gpu --overlap=on", "--overlap is not for --suite gpu"),
        ("--minutes 3", "--minutes is for --suite gpu alone"),
        ("--suite gpu --minutes 0", "--minutes 0.0 must be finite and more than 0"),
        ("--suite gpu --minutes nan", "--minutes nan must be finite"),
        ("--suite gpu --device cpu --obs rgb", "use --obs grey"),
        ("--suite gpu --device cpu --env ALE/Pogn-v5", 'unknown Atari game "ALE/Pogn-v5"'),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: str,
    message: str,
    benchmark: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match=message) as error:
        # Small, because environments are made before some errors are found.
        benchmark(*(() if "--suite" in arguments else TINY), *arguments.split())
    assert "\n" not in str(error.value)
    assert "the fastest of" not in capsys.readouterr().err, "refused before anything is measured"


def test_results_are_refused_before_anything_is_measured(
    benchmark: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no such directory; mkdir -p"):
        benchmark("--parts", "encoders", "--json", tmp_path / "nowhere" / "speed.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_suite_is_refused_where_there_is_no_gpu(benchmark: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=r'^device "cuda" is not there.*try "cpu"$'):
        benchmark("--suite", "gpu")


@pytest.mark.slow
def test_the_whole_suite_runs_on_a_cpu(tmp_path: Path) -> None:
    written = tmp_path / "speed.json"
    suite = ("--suite", "gpu", "--suite-scale", "tiny", "--device", "cpu", "--minutes", "5")
    done = run_script("benchmark", *suite, "--json", written)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    result = read(written)
    assert result["ended"]
    for row in result["rows"]:
        expected = "not measured on a CPU" if "graphs" in row["name"] else "measured"
        assert (row["name"], row["status"]) == (row["name"], expected), row["reason"]
        assert f"{row['name']}: " in done.stdout
    shares = {row["name"]: row["share"] for row in result["rows"]}
    assert shares["PPO, nature, eager"] > 0


@pytest.mark.slow
def test_a_killed_suite_leaves_the_rows_it_printed(tmp_path: Path) -> None:
    written = tmp_path / "speed.json"
    suite = ("--suite", "gpu", "--suite-scale", "tiny", "--device", "cpu", "--minutes", "5")
    printed = []
    with subprocess.Popen(
        command("benchmark", *suite, "--json", written),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.startswith("environments alone"):
                process.kill()
                break
    (row,) = read(written)["rows"]
    assert printed[-1].startswith(f"{row['name']}: ")
