"""What the picture of plans shows, read back from its bars."""

import pytest

from autoembed.report.explain_plot import FORMS, draw_plans, form
from autoembed.report.front import plot_plans


def plan(budget: int, *fields: tuple[str, list[tuple[int, str, int]]]) -> dict:
    return {
        "budget_bytes": budget,
        "dim": 16,
        "fields": [
            {
                "name": name,
                "bytes": sum(size for _, _, size in groups),
                "groups": [
                    {"start": 0, "stop": ids, "choice": choice, "bytes": size} for ids, choice, size in groups
                ],
            }
            for name, groups in fields
        ],
    }


PLANS = [
    plan(
        100, ("user", [(10, "own int4 d8", 60), (30, "zero", 0)]), ("item", [(20, "hashed 1/4 int8 d16", 20)])
    ),
    plan(800, ("user", [(40, "own fp32 d16", 600)]), ("item", [(20, "own int2 d16", 200)])),
]


def bars(axes) -> dict[str, list[float]]:
    return {str(c.get_label()): [bar.get_height() for bar in c.patches] for c in axes.containers}


def test_bars_are_shares_of_bytes_and_of_ids_from_the_largest_budget_down():
    above, below = draw_plans(PLANS, 3200).axes
    assert [label.get_text() for label in below.get_xticklabels()] == ["4x\n800 B", "32x\n100 B"]
    assert bars(above) == {"user": [0.75, 0.75], "item": [0.25, 0.25]}
    found = bars(below)
    assert found[form("own fp32 d16", 16)] == [pytest.approx(2 / 3), 0]
    assert found[form("zero", 16)] == [0, 0.5]
    assert found["fewer dimensions"] == [0, pytest.approx(1 / 6)]
    for place in (0, 1):
        assert sum(shares[place] for shares in found.values()) == pytest.approx(1)


def test_every_choice_has_a_form():
    names = ["own fp16 d16", "own int3 d16", "own int1 d16", "own int4 d4 + int1 d8", "own int8 d4"]
    names += ["codebook 2^4 int8 d16", "one int4 d16", "zero"]
    assert [form(name, 16) for name in names] == list(FORMS)


def test_many_fields_share_the_last_colour():
    crowd = plan(100, *((f"field {n}", [(1, "own int8 d16", 1 + n)]) for n in range(12)))
    shown = bars(draw_plans([crowd], 1000).axes[0])
    assert len(shown) == 8 and shown["other fields"][0] == pytest.approx(15 / 78)


def test_plans_of_equal_labels_stand_side_by_side():
    plans = [plan(budget, ("user", [(10, "own int4 d16", 60)])) for budget in (85357, 85356)]
    for axes in draw_plans(plans, 4 * 85357).axes:
        bars_of_user = axes.containers[0].patches
        assert [bar.get_x() + bar.get_width() / 2 for bar in bars_of_user] == [0, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4x\n83.36 KiB"] * 2


def test_fewer_dimensions_are_seen_where_no_plan_stores_them_all():
    (_, below) = draw_plans([plan(100, ("user", [(10, "own int2 d4", 60)]))], 1000).axes
    assert bars(below)["fewer dimensions"] == [1]


@pytest.mark.filterwarnings("error")
def test_every_name_of_a_field_is_in_the_legend_as_written(tmp_path):
    names = ["_user", "$^$", "$a$", "_nolegend_", "price in $"]
    one = plan(100, *((name, [(1, "own int8 d16", 9 - i)]) for i, name in enumerate(names)))
    legend = draw_plans([one], 1000).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names
    plot_plans([one], 1000, tmp_path / "plans.svg")
    written = (tmp_path / "plans.svg").read_text()
    assert all(f"<!-- {name} -->" in written for name in names)


def test_no_plan_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no plan to draw"):
        draw_plans([], 100)
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        plot_plans(PLANS, 3200, tmp_path / "plans.pdf")
    plot_plans(PLANS, 3200, tmp_path / "plans.svg")
    assert "<svg" in (tmp_path / "plans.svg").read_text()
