"""Memory that is left where a container is limited, from folders as Linux lays them out."""

from pathlib import Path

import pytest

from autoembed.data.memory import free_bytes, free_in_cgroup

MIB = 1 << 20


def group(folder: Path, limit: str, used: int, cache: int, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
    limit_name, used_name, key = names.get(version, ("memory.max", "memory.current", "inactive_file"))
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / used_name).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{key} {cache}\n")


def test_a_group_of_version_2_is_found_at_its_path_or_at_the_root(tmp_path: Path) -> None:
    group(tmp_path / "a/b", str(100 * MIB), 60 * MIB, 10 * MIB, 2)
    assert free_in_cgroup("0::/a/b\n", tmp_path) == 50 * MIB
    group(tmp_path, str(30 * MIB), 10 * MIB, 0, 2)  # as a container sees its own
    assert free_in_cgroup("0::/a/b\n", tmp_path) == 20 * MIB
    assert free_in_cgroup("0::/../elsewhere\n", tmp_path) == 20 * MIB


def test_a_group_around_counts_where_it_has_less(tmp_path: Path) -> None:
    group(tmp_path / "a", str(40 * MIB), 30 * MIB, 0, 2)
    group(tmp_path / "a/b", "max", 20 * MIB, 0, 2)
    assert free_in_cgroup("0::/a/b\n", tmp_path) == 10 * MIB


def test_version_1_has_a_folder_of_its_own(tmp_path: Path) -> None:
    group(tmp_path / "memory/docker/1", str(100 * MIB), 90 * MIB, 5 * MIB, 1)
    lines = "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1\n"
    assert free_in_cgroup(lines, tmp_path) == 15 * MIB


def test_more_taken_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    group(tmp_path, str(MIB), 2 * MIB, 0, 2)
    assert free_in_cgroup("0::/\n", tmp_path) == 0


@pytest.mark.parametrize("limit", ["max", "no number"])
def test_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    assert free_in_cgroup("0::/a\n", tmp_path) is None
    group(tmp_path / "a", limit, MIB, 0, 2)
    assert free_in_cgroup("0::/a\n", tmp_path) is None


def test_this_process_has_some() -> None:
    free = free_bytes()
    assert free is None or free > 0
