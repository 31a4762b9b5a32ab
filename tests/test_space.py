from pathlib import Path
from typing import Any

import optuna
import pytest
from methods.settings import spec

from autoembed.config import ConfigError
from autoembed.methods import METHODS, make_method, method_parameters
from autoembed.space import PRESETS, Space, load_space, preset_names, preset_path


def space(*methods: dict[str, Any]) -> Space:
    return load_space({"methods": list(methods)})


class Recorder:
    """Answers like an optuna trial, always with the highest value, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.asked[name] = (low, high, log)
        return high

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked[name] = (low, high, log)
        return high

    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> Any:
        self.asked[name] = choices
        return choices[-1]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_samples_settings_that_exist(name: str) -> None:
    loaded = load_space(name)
    assert loaded.searched or loaded.baselines(spec(), ())
    if loaded.searched:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        for _ in range(10):
            method = loaded.suggest(study.ask())
            assert method.name in {entry.method for entry in loaded.searched}


# methods that are searched in a space of their own alone
NOT_IN_DEFAULT = {
    "alpt",
    "bebr",
    "cached_low_precision",
    "cafe",
    "cafe_offline",
    "dqrm",
    "fiited",
    "lma",
    "low_precision",
    "mixed_dimension",
    "mpe_budget",
    "pep",
    "quotient_remainder",
    "robe",
}


def test_every_method_has_its_preset_and_default_holds_all_others() -> None:
    compressing = set(METHODS) - {"full_precision"}
    assert {"default", "smoke", "baselines"} | compressing <= set(preset_names())
    for name in compressing:
        loaded = load_space(name)
        assert {e.method for e in loaded.searched} | {m.name for m in loaded.baselines(spec(), ())} == {name}
    default = load_space("default")
    held = {e.method for e in default.searched} | {m.name for m in default.baselines(spec(), ())}
    assert held == compressing - NOT_IN_DEFAULT


def test_presets_are_files_that_lie_in_the_checkout_or_in_the_package() -> None:
    assert PRESETS.is_dir()
    assert preset_path("default").read_text(encoding="utf-8")


def test_knobs_are_suggested_by_their_ordered_place_and_the_rest_keeps_its_default() -> None:
    trial = Recorder()
    found = space(
        {"method": "uniform", "knobs": {"bits": [8, 2, 4]}},
        {
            "method": "mpe",
            "knobs": {
                "penalty": {"low": 1e-6, "high": 1e-3},
                "groups": {"low": 16, "high": 64, "log": False},
            },
        },
    ).suggest(trial)
    assert found == make_method("mpe", {"penalty": 1e-3, "groups": 64})
    assert trial.asked == {
        "method": ("uniform", "mpe"),
        "mpe.penalty": (1e-6, 1e-3, True),
        "mpe.groups": (16, 64, False),
    }
    trial = Recorder()
    only = space({"method": "uniform", "knobs": {"bits": [8, 2, 4]}})
    assert only.suggest(trial) == make_method("uniform", {"bits": 8})
    assert trial.asked == {"uniform.bits": (0, 2, False)}


def test_one_value_is_fixed_and_all_takes_the_whole_domain() -> None:
    trial = Recorder()
    found = space({"method": "frequency_cut", "knobs": {"bits": 4, "keep": "all"}}).suggest(trial)
    assert found == make_method("frequency_cut", {"bits": 4, "keep": 1.0})
    assert trial.asked == {"frequency_cut.keep": (1e-4, 1.0, True)}


def _draws(knob: dict[str, Any]) -> list[float]:
    loaded = space({"method": "robe", "knobs": {"ratio": knob}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    return [method_parameters(loaded.suggest(study.ask()))["ratio"] for _ in range(200)]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.251, 0.254), (0.0999, 0.1001), (0.25, 0.28), (0.98, 1.0)])
def test_a_narrow_range_is_tried_at_ten_values_or_more(low: float, high: float, log: bool) -> None:
    draws = _draws({"low": low, "high": high, "log": log})
    assert all(low <= value <= high for value in draws)
    assert 10 <= len(set(draws)) <= 110


@pytest.mark.parametrize(("low", "high"), [(1e-4, 1.0), (0.002, 0.5), (0.1, 0.9), (0.9, 1.0)])
def test_a_range_is_tried_at_values_of_two_digits(low: float, high: float) -> None:
    draws = _draws({"low": low, "high": high})
    assert all(value == float(f"{value:.2g}") for value in draws)


def test_a_method_without_knobs_is_a_baseline_and_repeats_run_once() -> None:
    loaded = space(
        {"method": "fp16"},
        {"method": "uniform", "baselines": [{"bits": 8}, {"bits": 4}, {"bits": 8}]},
        {"method": "frequency_cut", "knobs": {"bits": 2}},
    )
    assert [str(method) for method in loaded.baselines(spec(), ())] == [
        "Fp16()",
        "Uniform(bits=8)",
        "Uniform(bits=4)",
        "FrequencyCut(keep=0.25, bits=2, grid='steps')",
    ]
    with pytest.raises(ConfigError, match="no method has knobs to search"):
        loaded.suggest(Recorder())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "unifrom"}, "no method 'unifrom'; did you mean 'uniform'"),
        ({"method": "uniform", "knobs": {"bit": [4]}}, "no knob 'bit'; did you mean 'bits'"),
        ({"method": "uniform", "knobs": {"bits": [4, 5]}}, r"uniform.bits takes 1, 2, 3, 4, 8; found \[5\]"),
        ({"method": "uniform", "knobs": {"bits": []}}, "an empty list"),
        ({"method": "uniform", "knobs": {"bits": {"low": 1, "high": 4}}}, "write a list"),
        ({"method": "mpe", "knobs": {"tau": {"low": 1e-9, "high": 1}}}, "must lie within"),
        ({"method": "mpe", "knobs": {"tau": {"low": 0.1, "high": 0.01}}}, "must lie within"),
        ({"method": "mpe", "knobs": {"groups": {"low": 1.5, "high": 8}}}, "must lie within"),
        (
            {"method": "mixed_dimension", "knobs": {"alpha": {"low": 0, "high": 1, "log": True}}},
            "mixed_dimension.alpha has no logarithm at 0; write a low above 0, or `log: false`",
        ),
        (
            {"method": "fiited", "knobs": {"schedule": {"low": 0, "high": 100, "log": True}}},
            "fiited.schedule has no logarithm at 0",
        ),
        ({"method": "mpe", "knobs": {"tau": {"lowest": 0.1}}}, "valid keys: high, log, low"),
        ({"method": "mpe", "knob": {}}, "did you mean 'knobs'"),
        (
            {"method": "uniform", "baselines": [{"bits": True}]},
            "takes 1, 2, 3, 4, 8, found True",
        ),
        ({"knobs": {}}, "'methods.0.method' is missing"),
    ],
)
def test_an_error_says_where_and_what_is_valid(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(entry)


def test_two_entries_of_one_method_must_be_joined() -> None:
    entry = {"method": "uniform", "knobs": {"bits": [2, 4]}}
    with pytest.raises(ConfigError, match="join them"):
        space(entry, entry)


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        space()


def test_a_space_comes_from_a_preset_a_file_or_its_content(tmp_path: Path) -> None:
    text = preset_path("smoke").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert load_space("mine.yaml", tmp_path).fingerprint == load_space("smoke").fingerprint
    assert load_space(tmp_path / "mine.yaml").suggest(Recorder()) == load_space("smoke").suggest(Recorder())
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        load_space("smok")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_space("absent.yaml", tmp_path)


def test_the_fingerprint_changes_with_what_is_searched_and_not_with_how_it_is_written() -> None:
    first = space({"method": "uniform", "knobs": {"bits": [2, 4]}})
    assert first.fingerprint == space({"method": "uniform", "knobs": {"bits": [4, 2]}}).fingerprint
    assert first.fingerprint != space({"method": "uniform", "knobs": {"bits": [2, 8]}}).fingerprint
    with_baseline = space({"method": "uniform", "knobs": {"bits": [2, 4]}, "baselines": [{"bits": 4}]})
    assert first.fingerprint != with_baseline.fingerprint


def test_a_sampler_repeats_its_settings_from_a_stored_trial() -> None:
    loaded = load_space("default")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    for _ in range(20):
        trial = study.ask()
        method = loaded.suggest(trial)
        study.tell(trial, 0.0)
        stored = optuna.trial.FixedTrial(trial.params)
        assert loaded.suggest(stored) == method
