"""Every stage killed with -9 on its way, in a process of its own: the end is the same, bit for bit. See kill.py."""

import kill
import pytest


@pytest.mark.parametrize("stage", kill.STAGES)
def test_kill_9_changes_nothing(kills, stage):
    _, said = kills
    (line,) = (line for line in said if line.startswith(f"{stage}: "))
    assert "killed at" in line and line.endswith("identical"), line


def test_the_comparison_finds_one_changed_bit(kills, tmp_path):
    folder, _ = kills
    unet = folder / "straight" / "phantom-smoke" / "subset-0" / "unet"
    copy = tmp_path / "unet"
    kill.shutil.copytree(unet, copy)
    assert kill.differences(unet, copy) == []
    (copy / ".a.part").mkdir()
    (copy / ".a.part" / ".tmp1").touch()
    weights = copy / "checkpoint.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert kill.differences(unet, copy) == [
        "only in one: .a.part/.tmp1",
        "left behind: .a.part/.tmp1",
        "differs: checkpoint.safetensors",
    ]
