"""The data section of a project: where the click log lies and what its columns mean.

    path: logs/*.parquet            # a file, directory, glob, or a list of these
    label: click                    # 0 or 1
    dense: {age: standard, price: log}
    categorical:
      user: {hash_rows: 1000000}  # no vocabulary
      tags: {bag: true, separator: "|", pooling: mean, weights: tag_scores}
    min_count: 2
    split: {last: {by: time, valid: 0.1, test: 0.1}}

Relative paths start at the folder of the YAML file.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Limit
from pydantic import SerializerFunctionWrapHandler, model_serializer

from autoembed.config import ConfigError, Section, load

Format = Literal["criteo", "csv", "parquet"]
Transform = Literal["log", "standard", "none"]
Pooling = Literal["sum", "mean"]
Listed = str | int | bool  # what stands in a column that says the split

CRITEO_LABEL = "label"
CRITEO_DENSE = tuple(f"I{number}" for number in range(1, 14))
CRITEO_CATEGORICAL = tuple(f"C{number}" for number in range(1, 27))


class Categorical(Section):
    """One categorical column. Missing values read the out-of-vocabulary row 0.

    `bag`: several ids in one example, in text joined by `separator`, in Parquet a list column.
    `weights`: the column that holds a weight for every id of a bag, written as the bag is.
    `bucketize`: a numeric column whose ids are 2 + floor(ln(x)^2) for x > 2 and floor(x) otherwise.
    `min_count`: ids seen less often in train read row 0; None takes the data's `min_count`.
    `hash_rows`: no vocabulary; ids are hashed to so many rows behind row 0, and `min_count` does not apply.
    """

    bag: bool = False
    pooling: Pooling = "sum"
    separator: str = Limit(default="|", min_length=1)
    bucketize: bool = False
    min_count: int | None = Limit(default=None, ge=1)
    weights: str | None = None
    hash_rows: int | None = Limit(default=None, ge=1, le=2**31 - 2)

    @model_serializer(mode="wrap")
    def _dumped(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without keys that came later where they are not set: data prepared before them stays the same."""
        dumped: dict[str, Any] = handler(self)
        return {k: v for k, v in dumped.items() if v is not None or k not in ("weights", "hash_rows")}


class ColumnSplit(Section):
    """The split is a column of the data; values in no list are an error, those in `ignore` are left out.

    Whole numbers may be written as 1.0 in the data, truth values as text in any of YAML's ways or as 1 and 0.
    """

    column: str
    train: tuple[Listed, ...] = ("train",)
    valid: tuple[Listed, ...] = ("valid", "validation", "val")
    test: tuple[Listed, ...] = ("test",)
    ignore: tuple[Listed, ...] = ()


class RandomSplit(Section):
    """Every row is drawn by itself: a pure function of the seed and the row's number."""

    valid: float = Limit(default=0.1, gt=0, lt=1)
    test: float = Limit(default=0.1, gt=0, lt=1)
    seed: int = Limit(default=0, ge=0, lt=2**63)


class LastSplit(Section):
    """The last share of the rows is test, the share before it valid.

    `by`: `order` of the rows in the files, or the name of a numeric or time column (ties by order).
    """

    by: str = "order"
    valid: float = Limit(default=0.1, gt=0, lt=1)
    test: float = Limit(default=0.1, gt=0, lt=1)


class Split(Section):
    """Exactly one of the three, or the short form `column` with its lists."""

    column: str | None = None
    train: tuple[Listed, ...] = ("train",)
    valid: tuple[Listed, ...] = ("valid", "validation", "val")
    test: tuple[Listed, ...] = ("test",)
    ignore: tuple[Listed, ...] = ()
    random: RandomSplit | None = None
    last: LastSplit | None = None

    @property
    def chosen(self) -> ColumnSplit | RandomSplit | LastSplit:
        """The one way that was asked for."""
        if self.random is not None:
            return self.random
        if self.last is not None:
            return self.last
        assert self.column is not None
        return ColumnSplit(
            column=self.column, train=self.train, valid=self.valid, test=self.test, ignore=self.ignore
        )


class DataConfig(Section):
    """How to read a click log. `format` follows from the file names where it is left out.

    `dense`: a list takes `log` (sign(x) * ln(1 + |x|), missing = 0) for all; `standard` subtracts the mean
    of train and divides by its standard deviation (missing = 0 after it); `none` keeps values (missing = 0).
    `max_bad_share`: rows that cannot be read are left out and counted; above this share preparing fails.
    CSV: `delimiter`, `header: false` with `columns` naming all columns in order. A value may be quoted but
    may not hold a line break. An empty value is missing.
    Criteo, also where `format` is left out and names end in .tsv or .txt: tab-separated, no header: label,
    I1..I13, C1..C26; dense and categorical default to these.
    """

    path: str | tuple[str, ...]
    format: Format | None = None
    label: str = CRITEO_LABEL
    dense: tuple[str, ...] | dict[str, Transform] | None = None
    categorical: tuple[str, ...] | dict[str, Categorical | None] | None = None
    min_count: int = Limit(default=1, ge=1)
    split: Split
    max_bad_share: float = Limit(default=0.0, ge=0, le=1)
    delimiter: str = Limit(default=",", min_length=1, max_length=1)
    header: bool = True
    columns: tuple[str, ...] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def categorical_columns(self, format: Format) -> dict[str, Categorical]:
        """Name -> settings of every field, in order."""
        chosen = self.categorical
        if chosen is None:
            taken = set(self.dense_columns(format))
            chosen = tuple(name for name in CRITEO_CATEGORICAL if name not in taken)
            chosen = chosen if format == "criteo" else ()
        if isinstance(chosen, dict):
            return {name: settings or Categorical() for name, settings in chosen.items()}
        return {name: Categorical() for name in chosen}

    def dense_columns(self, format: Format) -> dict[str, Transform]:
        """Name -> transform of every dense column, in order."""
        chosen = self.dense
        if chosen is None:
            taken = set(self.categorical or ())
            chosen = tuple(name for name in CRITEO_DENSE if name not in taken) if format == "criteo" else ()
        return chosen if isinstance(chosen, dict) else dict.fromkeys(chosen, "log")


def load_data_config(path: Path) -> DataConfig:
    """Read a data YAML; relative paths in it start at its folder. Raises ConfigError."""
    config = load(DataConfig, path)
    check(config, str(path))
    folder = path.resolve().parent
    return config.model_copy(update={"path": tuple(str(folder / entry) for entry in config.paths)})


def check(config: DataConfig, source: str = "data") -> None:
    """Raise ConfigError where keys contradict one another; `source` names the file in the message."""
    split = config.split
    ways = [name for name in ("column", "random", "last") if getattr(split, name) is not None]
    if len(ways) != 1:
        found = " and ".join(ways) or "none of them"
        raise ConfigError(f"{source}: key 'split' needs exactly one of column, random, last; found {found}")
    chosen = split.chosen
    if not isinstance(chosen, ColumnSplit) and chosen.valid + chosen.test >= 1:
        raise ConfigError(
            f"{source}: key 'split': valid {chosen.valid} + test {chosen.test} leave nothing to train on; "
            "their sum must be below 1"
        )
    if isinstance(chosen, ColumnSplit):
        _check_lists(chosen, source)
    if len(config.paths) == 0:
        raise ConfigError(f"{source}: key 'path' is empty; name a file, a directory or a glob")
    if not config.header and config.columns is None and config.format == "csv":
        raise ConfigError(f"{source}: with 'header: false' the key 'columns' must name all columns in order")
    if not config.delimiter.isascii() or config.delimiter in '"\r\n\0':
        raise ConfigError(
            f"{source}: key 'delimiter': expected one ASCII character, no quote and no line break, "
            f"found {config.delimiter!r}"
        )
    check_columns(config, config.format, source)


def texts_of(value: Listed) -> tuple[str, ...]:
    """How a value of a column that says the split may be written."""
    if isinstance(value, bool):
        return ("True", "true", "TRUE", "1") if value else ("False", "false", "FALSE", "0")
    return (str(value),)


def _check_lists(split: ColumnSplit, source: str) -> None:
    groups = (split.train, split.valid, split.test, split.ignore)
    listed = [text for group in groups for value in group for text in texts_of(value)]
    twice = sorted({value for value in listed if listed.count(value) > 1})
    if twice:
        raise ConfigError(f"{source}: key 'split' lists the value {twice[0]!r} twice; list each value once")


def check_columns(config: DataConfig, format: Format | None, source: str = "data") -> None:
    """`check` of what depends on the format of the files; None = not known yet."""
    if format == "criteo":
        _check_criteo(config, source)
    dense = config.dense_columns(format or "csv")
    categorical = config.categorical_columns(format or "csv")
    lists = {"dense": config.dense, "categorical": config.categorical, "columns": config.columns}
    for key, given in lists.items():
        if isinstance(given, tuple) and len(set(given)) < len(given):
            twice = next(name for name in given if given.count(name) > 1)
            raise ConfigError(f"{source}: key {key!r} names the column {twice!r} twice")
    for name in (*dense, *categorical):
        if name == config.label:
            raise ConfigError(f"{source}: the label {name!r} is also a feature; remove it from the features")
    for name in dense:
        if name in categorical:
            raise ConfigError(f"{source}: column {name!r} is both dense and categorical; keep one")
    if format is not None and not categorical:
        raise ConfigError(f"{source}: key 'categorical' is missing; name at least one categorical column")
    for name, settings in categorical.items():
        if settings.bag and settings.bucketize:
            raise ConfigError(f"{source}: column {name!r} cannot be a bag and bucketized; keep one")
        if settings.min_count is not None and settings.hash_rows is not None:
            raise ConfigError(
                f"{source}: column {name!r} has both min_count and hash_rows, but hashed ids are not counted "
                "one by one; keep min_count to have a vocabulary, hash_rows to have none"
            )
        of_bags = [key for key in ("weights", "separator", "pooling") if _is_given(settings, key)]
        if of_bags and not settings.bag:
            raise ConfigError(
                f"{source}: column {name!r} has {of_bags[0]} but is no bag; set 'bag: true' for it"
            )
        if settings.weights in (config.label, *dense, *categorical):
            raise ConfigError(
                f"{source}: {settings.weights!r} weighs {name!r} and is the label or a feature; keep one"
            )


def _is_given(settings: Categorical, key: str) -> bool:
    """Whether a key is not what it is by default."""
    return bool(getattr(settings, key) != Categorical.model_fields[key].default)


def _check_criteo(config: DataConfig, source: str) -> None:
    """Criteo's columns are fixed, and keys about CSV would not be heeded."""
    chosen = config.split.chosen
    fields = config.categorical_columns("criteo")
    used = {config.label, *config.dense_columns("criteo"), *fields}
    used |= {settings.weights for settings in fields.values() if settings.weights is not None}
    if isinstance(chosen, ColumnSplit):
        used.add(chosen.column)
    elif isinstance(chosen, LastSplit) and chosen.by != "order":
        used.add(chosen.by)
    unknown = sorted(used - {CRITEO_LABEL, *CRITEO_DENSE, *CRITEO_CATEGORICAL})
    # that it is tab-separated and has no header may be said where Criteo was asked for
    by_suffix = config.format is None
    unheeded = [
        key
        for key, is_given in {
            "delimiter": config.delimiter not in (",", "," if by_suffix else "\t"),
            "header": not config.header and by_suffix,
            "columns": config.columns is not None,
        }.items()
        if is_given
    ]
    if unknown or unheeded:
        what = f"has no column {unknown[0]!r}" if unknown else f"heeds no key {unheeded[0]!r}"
        why = ", as which .tsv and .txt are read by their suffix," if by_suffix else ""
        raise ConfigError(
            f"{source}: Criteo's format{why} {what}: it is tab-separated without a header, label, I1 to I13, "
            "C1 to C26; for other text set 'format: csv' and 'delimiter'"
        )
