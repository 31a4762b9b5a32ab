import errno
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from search_study import SPACE

from autoembed.methods import make_method
from autoembed.search.folder import Assignment
from autoembed.search.proposals import Proposals, Verdict
from autoembed.space import load_space

Notices = list[str]


def open_proposals(
    journal: Path, notices: Notices | None = None, sampler: str = "tpe", seed: int = 0
) -> Proposals:
    say: Callable[[str], None] = (notices if notices is not None else []).append
    return Proposals(journal, load_space(SPACE), sampler, seed, maximize=True, notice=say)  # type: ignore[arg-type]


def run(proposals: Proposals, numbers: range) -> list[str]:
    methods = []
    for number in numbers:
        proposal = proposals.ask(number, 0)
        proposals.assign(proposal, number)
        proposals.tell(proposal, Verdict(0.5 + 0.01 * number, 1000 + number, excess_bytes=number - 3))
        methods.append(str(proposal.method))
    return methods


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_the_same_seed_proposes_the_same_also_after_reopening(tmp_path: Path, sampler: str) -> None:
    once = run(open_proposals(tmp_path / "a", sampler=sampler), range(14))
    first = run(open_proposals(tmp_path / "b", sampler=sampler), range(6))
    assert first + run(open_proposals(tmp_path / "b", sampler=sampler), range(6, 14)) == once
    assert run(open_proposals(tmp_path / "c", sampler=sampler, seed=1), range(14)) != once


def test_bytes_beyond_the_budget_are_stored_as_a_constraint(tmp_path: Path) -> None:
    run(open_proposals(tmp_path / "journal"), range(6))
    trials = load(tmp_path / "journal").trials
    assert [trial.constraints["bytes"] for trial in trials] == [-3, -2, -1, 0, 1, 2]
    assert [trial.values for trial in trials][1] == [0.51, pytest.approx(3.00043, abs=1e-5)]
    assert all(trial.number < 4 for trial in load(tmp_path / "journal").best_trials)


def test_a_full_disk_is_told_with_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposals = open_proposals(tmp_path / "journal")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(optuna.storages.journal.JournalFileBackend, "append_logs", full)
    with pytest.raises(OSError, match=f"{tmp_path / 'journal'}: No space left on device; free space there"):
        proposals.ask(0, 0)


def load(journal: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.load_study(study_name="autoembed", storage=optuna.storages.JournalStorage(backend))


def test_a_journal_with_a_torn_tail_is_repaired_and_said(tmp_path: Path) -> None:
    journal, notices = tmp_path / "journal", list[str]()
    run(open_proposals(journal), range(3))
    journal.write_bytes(journal.read_bytes()[:-5])
    proposals = open_proposals(journal, notices)
    assert "cut" in notices[0]
    assert proposals.told() == {0, 1}
    run(proposals, range(3, 5))
    assert open_proposals(journal).told() == {0, 1, 3, 4}


def test_a_damaged_journal_is_kept_aside_and_begun_again(tmp_path: Path) -> None:
    journal, notices = tmp_path / "journal", list[str]()
    run(open_proposals(journal), range(3))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], b"{]\n", *lines[5:]]))
    assert open_proposals(journal, notices).told() == set()
    assert "made again from the trials" in notices[0]
    assert (tmp_path / "journal.broken").exists()


def test_a_lock_that_a_killed_process_left_does_not_hold_up(tmp_path: Path) -> None:
    run(open_proposals(tmp_path / "journal"), range(1))
    (tmp_path / "journal.lock").symlink_to(tmp_path / "journal")
    assert open_proposals(tmp_path / "journal").told() == {0}


def test_a_proposal_that_no_session_finished_is_not_left_running(tmp_path: Path) -> None:
    open_proposals(tmp_path / "journal").ask(0, 0)
    assert open_proposals(tmp_path / "journal").told() == set()
    assert [trial.state.name for trial in load(tmp_path / "journal").trials] == ["FAIL"]


def test_an_outcome_of_an_earlier_session_teaches_the_sampler(tmp_path: Path) -> None:
    proposals = open_proposals(tmp_path / "journal")
    proposal = proposals.ask(0, 0)
    assignment = Assignment(0, "x", "x", {}, 0, "search", proposal.content)
    again = open_proposals(tmp_path / "journal")
    again.add(assignment, Verdict(0.7, 100, -5))
    (trial,) = [trial for trial in load(tmp_path / "journal").trials if trial.state.name == "COMPLETE"]
    assert trial.params == proposal.content["params"]
    assert trial.constraints == {"bytes": -5.0, "failed": 0.0}
    assert again.told() == {0}


def test_a_method_of_the_space_has_the_parameters_that_propose_it(tmp_path: Path) -> None:
    proposals = open_proposals(tmp_path / "journal")
    for number in range(8):
        proposal = proposals.ask(number, 0)
        content = proposals.content_of(proposal.method)
        assert content is not None
        assert content["distributions"] == proposal.content["distributions"]
        for name, proposed in proposal.content["params"].items():
            # the method's real numbers are rounded to two digits, what the sampler proposed is not
            expected = pytest.approx(proposed, rel=0.05) if isinstance(proposed, float) else proposed
            assert content["params"][name] == expected
        proposals.drop(proposal)
    assert proposals.content_of(make_method("uniform", {"bits": 8})) is not None
    assert proposals.content_of(make_method("fp16", {})) is None
    assert proposals.content_of(make_method("frequency_cut", {"keep": 0.05, "bits": 8})) is None
    assert proposals.told() == set()
