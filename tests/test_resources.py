"""What rules ask of a cluster, from what they have taken."""

import re
from pathlib import Path

import pytest
import yaml

import resources

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
HEADER = "s\th:m:s\tmax_rss\tcpu_time"


def write_benchmark(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{seconds}\t0:00:01\t{memory}\t1.0" for seconds, memory in rows]
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


@pytest.fixture
def benchmarks(tmp_path):
    folder = tmp_path / "benchmarks"
    write_benchmark(folder / "features" / "soap_3" / "0.tsv", (30.0, 1000.0))
    write_benchmark(folder / "features" / "lode2" / "1.tsv", (90.5, 812.5))
    write_benchmark(folder / "water" / "source.tsv", (0.1, "-"))
    write_benchmark(folder / "fig1.tsv", (2.0, "NA"))
    return folder


def test_every_rule_with_a_benchmark_is_known():
    patterns = resources.benchmark_patterns()
    text = "".join(file.read_text() for file in resources.RULES.glob("*.smk"))
    assert len(patterns) == len(re.findall(r"^ +benchmark:$", text, re.MULTILINE))
    assert patterns["features"] == "features/{curve}/{chunk}.tsv"


def test_rules_ask_for_their_largest_and_longest_job_with_a_margin(benchmarks):
    taken = resources.measured(benchmarks, resources.benchmark_patterns())
    assert taken == {
        "features": (1000.0, 90.5),
        "fig1": (0.0, 2.0),
        "water_source": (0.0, 0.1),
    }
    asked = resources.requests(taken)
    assert asked["features"]["mem_mb"] == 1000 * resources.MEMORY_FACTOR
    assert asked["features"]["runtime"] * 60 >= 90.5 * resources.TIME_FACTOR
    least = {"mem_mb": resources.LEAST_MEMORY, "runtime": resources.LEAST_TIME}
    assert asked["water_source"] == asked["fig1"] == least


def test_only_the_resources_of_the_profile_change(benchmarks, tmp_path):
    profile = tmp_path / "config.yaml"
    profile.write_text(PROFILE.read_text(encoding="utf-8"), encoding="utf-8")
    before = yaml.safe_load(profile.read_text(encoding="utf-8"))
    resources.main([str(benchmarks), str(profile)])
    after = yaml.safe_load(profile.read_text(encoding="utf-8"))
    renewed, known = after.pop("set-resources"), before.pop("set-resources")
    asked = resources.requests({"features": (1000.0, 90.5)})
    assert renewed["features"] == asked["features"]
    assert renewed["water_kernel"] == known["water_kernel"]
    assert after == before


def test_resources_written_twice_are_the_same(benchmarks, tmp_path):
    profile = tmp_path / "config.yaml"
    profile.write_text("jobs: 3\n\nset-resources:\n", encoding="utf-8")
    resources.main([str(benchmarks), str(profile)])
    first = profile.read_text(encoding="utf-8")
    resources.main([str(benchmarks), str(profile)])
    assert profile.read_text(encoding="utf-8") == first


def test_a_rule_that_was_not_measured_keeps_what_it_has(benchmarks, tmp_path):
    profile = tmp_path / "config.yaml"
    known = "fig2: {mem_mb: 7700, runtime: 9}"
    profile.write_text(f"jobs: 3\n\nset-resources:\n  {known}\n", encoding="utf-8")
    resources.main([str(benchmarks), str(profile)])
    assert f"  {known}\n" in profile.read_text(encoding="utf-8")
    assert len(yaml.safe_load(profile.read_text(encoding="utf-8"))["set-resources"]) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "whole benchmark file"), (f"{HEADER}\n1.0\t0", "whole benchmark file")],
)
def test_a_benchmark_that_is_not_whole_is_refused(benchmarks, text, message):
    path = benchmarks / "gas" / "0.tsv"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        resources.measured(benchmarks, resources.benchmark_patterns())


def test_folders_and_profiles_without_what_is_needed_are_refused(benchmarks, tmp_path):
    with pytest.raises(ValueError, match="must hold benchmark files .*, got none"):
        resources.measured(tmp_path / "nothing", resources.benchmark_patterns())
    profile = tmp_path / "config.yaml"
    profile.write_text("jobs: 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must have one line 'set-resources:'"):
        resources.main([str(benchmarks), str(profile)])
    assert profile.read_text(encoding="utf-8") == "jobs: 3\n"


def test_the_profile_names_rules_of_the_workflow_and_asks_for_whole_numbers():
    profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    rules = resources.benchmark_patterns()
    assert profile["executor"] == "slurm"
    assert set(profile["groups"]) <= set(rules)
    assert set(profile["group-components"]) == set(profile["groups"].values())
    assert profile["set-resources"]
    for rule, asked in profile["set-resources"].items():
        assert rule in rules
        assert asked["mem_mb"] >= resources.LEAST_MEMORY
        assert asked["runtime"] >= resources.LEAST_TIME


def test_the_profile_holds_what_the_default_one_does():
    default = ROOT / "profiles" / "default" / "config.yaml"
    own, known = (
        yaml.safe_load(p.read_text(encoding="utf-8")) for p in (PROFILE, default)
    )
    del known["cores"]
    assert known.items() <= own.items()
