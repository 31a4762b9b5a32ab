from pathlib import Path

import pytest
import yaml
from search_study import make_study, write_clicks

from autoembed.config import ConfigError
from autoembed.search.study import load_study, parse_duration, read_config, write_config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("30m", 1800), ("1h30m", 5400), ("45s", 45), ("1d", 86400), (90, 90), ("0.5 h", 1800)],
)
def test_durations_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2 weeks", "-3h", 0, "h", True, float("inf"), "nan"])
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_paths_start_at_the_study_file(clicks: Path) -> None:
    config = make_study(clicks, search_space="spaces/mine.yaml")
    assert config.data == str(clicks / "clicks.yaml")
    assert config.search_space == str(clicks / "spaces" / "mine.yaml")


def test_a_study_in_a_run_folder_reads_back_equal(clicks: Path, tmp_path: Path) -> None:
    for keys in (
        {"search_space": "smoke", "time_limit": "1h30m"},
        {"search_space": "spaces/mine.yaml", "patience_trials": 5, "objective": "logloss"},
        {"budgets": None, "byte_range": {"low": "1KiB", "high": "1/2"}},
    ):
        config = make_study(clicks, **keys)
        write_config(config, tmp_path / "config.yaml")
        assert read_config(tmp_path) == config


def test_epochs_are_chosen_by_the_objective_unless_the_file_says_otherwise(clicks: Path) -> None:
    assert make_study(clicks, objective="logloss").training.metric == "logloss"
    explicit = make_study(clicks, objective="logloss", training={"metric": "auc"})
    assert explicit.training.metric == "auc"


def test_overrides_replace_keys_and_make_sections(clicks: Path) -> None:
    make_study(clicks, training=None)
    config = load_study(
        clicks / "study.yaml", ["training.epochs=7", "budgets=[1/4, 9KiB]", "model.dropout=0.5"]
    )
    assert (config.training.epochs, config.model.dropout, config.model.dim) == (7, 0.5, 16)
    assert config.budgets == ("1/4", "9KiB")


def test_a_trunk_is_not_tuned_where_the_file_says_off(clicks: Path, tmp_path: Path) -> None:
    """YAML 1.1 reads off, no and false as one value, on, yes and true as the other."""
    make_study(clicks)
    for written, meant in (("off", "off"), ("'off'", "off"), ("no", "off"), ("2", 2.0), ("0.5", 0.5)):
        config = load_study(clicks / "study.yaml", [f"joint.tune={written}"])
        assert config.joint.tune == meant
        write_config(config, tmp_path / "config.yaml")
        assert read_config(tmp_path).joint.tune == meant
    for written in ("on", "true"):
        with pytest.raises(ConfigError, match=r"joint\.tune.*on is no number; write the trainings to spend"):
            load_study(clicks / "study.yaml", [f"joint.tune={written}"])
        with pytest.raises(ConfigError, match=r"joint\.teacher.*write a number from 0 to 1, or auto"):
            load_study(clicks / "study.yaml", [f"joint.teacher={written}"])
    for written, share in (("auto", "auto"), ("0", 0.0), ("1", 1.0), ("0.5", 0.5)):
        assert load_study(clicks / "study.yaml", [f"joint.teacher={written}"]).joint.teacher == share


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "write KEY=VALUE"),
        ("training.epoch=3", "unknown key 'training.epoch'; did you mean 'epochs'"),
        ("trials.x=3", "'trials' in .* is a value, not a section"),
        ("trials=many", "key 'trials'"),
        ("profile=gpu", "profiles: packed"),
        ("budgets=[64 XB]", "cannot read '64 XB' as a size"),
        ("budgets=[0.25]", "got 0.25; or write a share of full precision, 1/16 or 16x"),
        ("budgets=[true]", "got True; or write"),
        ("budgets=[]", "exactly one of the keys 'budgets'"),
        ("time_limit=soon", "cannot read 'soon' as a duration"),
        ("time_limit=12:30", "cannot read '12:30' as a duration"),
        ("budgets=[1:16]", "cannot read '1:16' as a size"),
        ("training={epochs: 1, epochs: 2}", "the value is not YAML"),
        ("data=nowhere.yaml", "key 'data': there is nothing at"),
        ("joint.max_drop=0", r"joint\.max_drop.*greater than 0"),
        ("joint={max_drop: 0.001, recipes: 3}", "with max_drop leave recipes at 1"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_cure(clicks: Path, override: str, message: str) -> None:
    make_study(clicks)
    with pytest.raises(ConfigError, match=message):
        load_study(clicks / "study.yaml", [override])


def test_a_drop_of_what_models_are_not_chosen_by_is_refused(clicks: Path) -> None:
    def asks(**other: object) -> None:
        make_study(clicks, search_space="joint", joint={"max_drop": 0.001}, **other)

    asks(objective="logloss")
    for other in (
        {"objective": "logloss", "training": {"metric": "auc"}},
        {"training": {"metric": "logloss"}},
    ):
        with pytest.raises(ConfigError, match=r"give training\.metric and objective the same"):
            asks(**other)


def test_a_byte_range_asks_for_halves_of_its_top(clicks: Path) -> None:
    config = make_study(clicks, budgets=None, byte_range={"low": 100, "high": "1/2"})
    assert config.budgets_bytes(2000) == (1000, 500, 250, 125)
    assert config.range_bytes(2000) == (100, 1000)


def test_a_reversed_byte_range_is_refused(clicks: Path) -> None:
    config = make_study(clicks, budgets=None, byte_range={"low": "1/2", "high": "1/4"})
    with pytest.raises(ConfigError, match="low is 1000 bytes, above high, 500 bytes"):
        config.range_bytes(2000)


def test_batches_of_one_row_are_refused_where_they_would_be_normalised(clicks: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"study.yaml: a batch of one row has no batch_norm; raise batch_size"
    ):
        make_study(clicks, model={"name": "dnn", "batch_norm": True}, training={"batch_size": 1})


def test_a_budget_of_less_than_a_byte_is_told_with_its_key(clicks: Path) -> None:
    with pytest.raises(ConfigError, match="key 'budgets': the budget '1/9999' of the 2000 bytes"):
        make_study(clicks, budgets=["1/9999"]).budgets_bytes(2000)
    with pytest.raises(ConfigError, match=r"key 'byte_range\.low': the budget '1/9999'"):
        make_study(clicks, budgets=None, byte_range={"low": "1/9999", "high": "1/2"}).budgets_bytes(2000)


def test_budgets_are_ordered_and_counted_once(clicks: Path) -> None:
    config = make_study(clicks, budgets=["1/16", 500, "1/4", "4x"])
    assert config.budgets_bytes(2000) == (500, 125)


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the folder of a search"):
        read_config(tmp_path)


def test_every_key_of_a_study_file_is_explained_in_the_documentation(tmp_path: Path) -> None:
    write_clicks(tmp_path, rows=20)
    page = Path(__file__).parents[2] / "docs" / "study.md"
    text = page.read_text(encoding="utf-8")
    config = make_study(tmp_path)
    sections = {"": type(config), "model.": type(config.model), "training.": type(config.training)}
    for prefix, section in sections.items():
        for key in section.model_fields:
            assert f"`{prefix}{key}`" in text, f"docs/study.md does not explain {prefix}{key}"


def test_the_example_in_the_documentation_is_a_study(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "study.md"
    example = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    content = yaml.safe_load(example)
    write_clicks(tmp_path, rows=20)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**content, "data": "clicks.yaml"}))
    assert load_study(tmp_path / "study.yaml").budgets
