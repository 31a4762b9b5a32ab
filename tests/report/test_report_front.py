"""Tables by equality, pictures by being written: what they show is decided in the record."""

import io
import itertools
import math
import random
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from rich.console import Console

from autoembed.front import FrontRecord, from_json, front_record, to_json
from autoembed.record import TrialRecord
from autoembed.report.byte_axis import powers_of_two
from autoembed.report.front import (
    answer_table,
    front_notes,
    front_table,
    plot_front,
    print_front,
    summary_markdown,
)
from autoembed.report.front_plot import draw_front


def study(candidates: int = 6, seeds: int = 3, seed: int = 0) -> list[TrialRecord]:
    """Made-up trials: a reference, two baselines, searched candidates; one of them collapsed."""
    generator = random.Random(seed)
    plans = [
        ("full_precision", {}, 1_000_000, 0.80, "reference"),
        ("uniform", {"bits": 4}, 125_800, 0.79, "baseline"),
    ]
    plans += [("uniform", {"bits": 2}, 63_300, 0.55, "baseline")]
    plans += [
        ("mpe", {"groups": 128, "strength": 10.0**-i}, 400_000 // 2**i, 0.80 - 0.001 * i**1.5, "search")
        for i in range(candidates)
    ]
    records = []
    for method, parameters, total, auc, role in plans:
        for repeat in range(seeds):
            valid, test = (auc + generator.gauss(0, 0.0003) for _ in range(2))
            records.append(
                TrialRecord(
                    number=len(records),
                    candidate=f"{method} {parameters}",
                    method=method,
                    parameters=parameters,
                    seed=repeat,
                    role=role if repeat == 0 else "repeat",
                    state="complete",
                    bytes={
                        "payload": total - 800,
                        "scales": 100,
                        "index": 300,
                        "header": 400,
                        "total": total,
                    },
                    valid_auc=valid,
                    valid_logloss=1.2 - valid,
                    test_auc=test,
                    test_logloss=1.2 - test,
                    seconds=12.0,
                )
            )
    return records


def record_of(objective="auc", budgets=(50_000, 200_000), **shape) -> FrontRecord:
    return front_record(study(**shape), budgets, objective)


def text_of(record: FrontRecord, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    print_front(record, console)
    return console.file.getvalue()


def test_a_row_holds_what_the_record_says():
    rows = front_table(front_record(study(1, 1), [], "auc"))
    assert [row.size for row in rows] == ["61.82 KiB", "122.9 KiB", "390.6 KiB", "976.6 KiB"]
    assert [row.ratio for row in rows] == ["15.8x", "7.95x", "2.5x", "1x"]
    reference, uniform = study(1, 1)[:2]
    assert rows[1].candidate == "uniform bits=4" and "baseline" in rows[1].marks
    assert rows[1].test_auc == f"{uniform.test_auc:.5f}"
    assert rows[1].auc_loss == f"{reference.test_auc - uniform.test_auc:.5f}"
    assert rows[1].valid == f"{uniform.valid_auc:.5f}" and rows[1].fte == "1.00"
    assert (rows[3].auc_loss, rows[3].seeds) == ("-", "1") and "reference" in rows[3].marks


def test_the_interval_over_seeds_stands_beside_the_mean():
    point = record_of().point("mpe {'groups': 128, 'strength': 1.0}")
    interval = point.metrics["test_auc"]
    row = next(row for row in front_table(record_of()) if row.candidate == "mpe groups=128 strength=1")
    assert row.test_auc == f"{interval.mean:.5f} ± {(interval.high - interval.low) / 2:.5f}"


def test_dominated_candidates_are_counted_but_not_listed():
    # below the collapsed baseline and no smaller
    records = [
        replace(r, valid_auc=0.5, bytes={"total": 700_000}) if r.method == "mpe" else r for r in study()
    ]
    record = front_record(records, [], "auc")
    assert {row.candidate.split()[0] for row in front_table(record)} == {"full_precision", "uniform"}
    assert len(front_table(record, everything=True)) == len(record.points)
    assert "6 dominated candidates are not shown" in text_of(record, 160)


def test_every_question_has_a_row_and_an_answer():
    record = record_of(budgets=[1_000, 200_000])
    rows = answer_table(record)
    assert [row.question for row in rows] == [
        "budget 1000 B", "budget 195.3 KiB", "knee",
        *(f"valid AUC loss <= {drop}" for drop in ("0.0002", "0.0005", "0.001", "0.002")),
        *(f"{ratio}x smaller" for ratio in (4, 16, 64, 256)),
    ]  # fmt: skip
    assert "needs 12500 bytes" in rows[0].candidate and rows[0].trial == ""
    assert rows[1].trial == str(record.budgets[1].pick.trial)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_fits_the_terminal_and_keeps_the_candidates(width):
    text = text_of(record_of(), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("uniform bits=4", "976.6 KiB", "test AUC", "0.79"))


@pytest.mark.parametrize("objective", ["auc", "logloss"])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_the_study_asked_for_is_the_last_to_go(objective, width):
    text = text_of(record_of(objective), width)
    assert {"auc": "test AUC", "logloss": "test logloss"}[objective] in text.partition("Picks")[0]
    wide = text_of(record_of(objective), 200).partition("Picks")[2]
    assert {"auc": "test AUC loss", "logloss": "test logloss loss"}[objective] in wide
    rows = [row for row in answer_table(record_of(objective)) if row.trial]
    point = next(p for p in record_of(objective).points if p.label == rows[0].candidate)
    assert rows[0].loss.startswith(f"{point.losses[f'test_{objective}'].mean:.5f}")


def test_a_very_narrow_terminal_keeps_names_in_words():
    text = text_of(record_of(), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "uniform" in text and len(text.splitlines()) < 120
    assert all(f"{drop}" in text.replace("\n", "") for drop in (0.0002, 0.0005))


def test_a_wide_terminal_shows_every_column():
    head = text_of(record_of(), 200)
    assert all(name in head for name in ("ratio", "valid", "AUC loss", "test logloss", "seeds", "FTE"))


def test_notes_state_the_reference_point_and_the_cost():
    notes = "\n".join(front_notes(record_of()))
    assert "reference point 976.6 KiB, auc 0.7" in notes and "box 3 decades x 0.01" in notes
    assert "pessimistic" in notes and "27 trials (27 complete" in notes and "27.0 full-training" in notes


def test_markdown_tables_are_well_formed_and_split_the_bytes():
    record = record_of(budgets=[1_000, 200_000])
    tables = [block.splitlines() for block in summary_markdown(record).split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1, "equal cells in every line"
    budgets = tables[0]
    assert budgets[2].startswith(
        "| full precision | full_precision | 1,000,000 | 99.9 % | 0.0 % | 0.1 % | 1x |"
    )
    assert "no candidate fits 1000 bytes" in budgets[3]
    assert "| 195.3 KiB | mpe groups=128 strength=0.1 | 200,000 |" in budgets[4]


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("split", ["test", "valid"])
@pytest.mark.parametrize("objective", ["auc", "logloss"])
def test_pictures_are_written(tmp_path, objective, split, suffix):
    path = tmp_path / f"front.{suffix}"
    plot_front(record_of(objective), path, split=split, error_bars="range" if split == "valid" else "t")
    if suffix == "png":
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    else:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    "records",
    [
        study(seeds=1),
        study()[:3],
        study()[:1],
        [r for r in study() if r.method == "mpe"],
        [replace(r, role="baseline") for r in study(1, 1)],
        [replace(r, test_auc=None) if r.role != "baseline" else r for r in study(1, 1)],
    ],
    ids=["one seed", "the reference alone", "one trial", "no reference", "baselines alone", "untested"],
)
def test_small_studies_are_printed_and_drawn_too(tmp_path, records):
    record = front_record(records, [300_000], "auc")
    plot_front(record, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert "Picks" in text_of(record, 120)
    assert summary_markdown(record).startswith("| budget")


def test_a_picture_can_be_drawn_from_the_file_alone_and_is_the_same(tmp_path):
    record = record_of()
    plot_front(record, tmp_path / "one.svg")
    plot_front(from_json(to_json(record)), tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_an_empty_study_says_so(tmp_path):
    record = front_record([], [1_000], "auc")
    assert "no complete trial" in text_of(record, 120)
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_front(record, tmp_path / "front.png")


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        plot_front(record_of(), tmp_path / "front.pdf")


@pytest.mark.parametrize("objective", ["auc", "logloss"])
def test_no_point_lies_above_the_picture(objective):
    """The best value on test may belong to a dominated candidate, far above all others."""
    lucky = replace(study()[-1], candidate="lucky", number=99, valid_auc=0.6, valid_logloss=0.6)
    lucky = replace(lucky, test_auc=0.9, test_logloss=0.3)
    record = front_record([*study(), lucky], [], objective)
    assert "lucky" not in record.front
    low, high = sorted(draw_front(record).axes[0].get_ylim())
    assert low < record.point("lucky").value("test", objective) < high


def test_of_crowded_points_below_the_picture_the_front_has_its_value_written():
    reference, *_ = study(1, 1)
    made = [
        *(("uniform", "baseline", 50_000, 0.55), ("joint", "search", 51_000, 0.60)),
        *(("uniform b", "baseline", 52_000, 0.56), ("joint b", "search", 400_000, 0.80)),
    ]
    others = [
        replace(
            reference, number=n, candidate=name, method=name, role=role, bytes={"total": size},
            valid_auc=auc, test_auc=auc - 0.001,
        )
        for n, (name, role, size, auc) in enumerate(made, 1)
    ]  # fmt: skip
    record = front_record([reference, *others], [], "auc")
    assert {"joint", "uniform"} < set(record.front)
    texts = [text.get_text() for text in draw_front(record).axes[0].texts]
    assert "0.599" in texts and "0.549" not in texts and "0.559" not in texts


def test_a_title_and_names_are_drawn_as_written(tmp_path):
    own = [replace(record, method="_$^$") for record in study()[1:]]
    plot_front(front_record([study()[0], *own], [], "auc"), tmp_path / "front.svg", title="clicks of $^$")
    drawn = (tmp_path / "front.svg").read_text()
    assert "<!-- clicks of $^$ -->" in drawn and "<!-- _$^$ -->" in drawn


def test_drawing_leaves_no_trace_in_matplotlib(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_front(record_of(), tmp_path / "front.svg")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("low", "high"), [(3, 5), (1000, 70_000), (1, 1e12), (0.2, 300), (5, 6)])
def test_ticks_are_powers_of_two_inside_the_axis(low, high):
    ticks = powers_of_two(low, high, most=9)
    assert all(low <= tick <= high and math.log2(tick).is_integer() for tick in ticks)
    assert len(ticks) <= 9 and (ticks or high < 2 * low)
    assert len({b / a for a, b in itertools.pairwise(ticks)}) <= 1, "evenly spaced"
