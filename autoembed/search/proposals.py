"""Where candidates come from: Optuna, asked and told by us. No other file imports it.

Two objectives, the validation metric and log10(bytes), and two constraints: bytes beyond the budget, and
whether the training failed. A candidate that is refused is told with finite values and a violated
constraint: a pruned one would teach the sampler nothing, and it would come back.

The journal is the sampler's memory, not the truth: what it lost is made again from the trials.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState, create_trial

from autoembed.files import writing
from autoembed.methods import method_parameters
from autoembed.methods.base import Choice, Method
from autoembed.search.folder import Assignment, cut_torn_line
from autoembed.space import Space

SamplerName = Literal["tpe", "random", "nsga2"]
STUDY_NAME = "autoembed"


@dataclass(frozen=True)
class Proposal:
    """A candidate that the sampler wants to know about. `content` is what `Assignment.proposal` keeps."""

    method: Method
    content: dict[str, Any]
    trial: Trial


@dataclass(frozen=True)
class Verdict:
    """What the sampler is told: the objective's value, bytes, and how far beyond the limits they are.

    `excess_bytes` <= 0 fits the budget. `failed` marks a training that gave no model; its value is a
    stand-in.
    """

    value: float
    bytes: int
    excess_bytes: int
    failed: bool = False


class Proposals:
    """The sampler with its journal. Every proposal is a function of the seed and of what was told.

    `notice` is called with a sentence where the journal had to be repaired.
    """

    def __init__(
        self,
        journal: Path,
        space: Space,
        sampler: SamplerName,
        seed: int,
        maximize: bool,
        notice: Callable[[str], None],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if maximize else "minimize",
            "minimize",
        ]
        self._journal = journal
        self._study = self._open(journal, notice)

    def ask(self, number: int, attempt: int, explore: bool = False) -> Proposal:
        """A proposal for trial `number`; `attempt` counts proposals for it that were not worth training.

        explore: draw at random, as a way out of what the sampler keeps repeating.
        """
        draw = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
        self._study.sampler = _sampler("random" if explore else self._sampler, draw)
        with writing(self._journal):
            trial = self._study.ask()
            method = self._space.suggest(trial)
        return Proposal(method, _content(trial), trial)

    def content_of(self, method: Method) -> dict[str, Any] | None:
        """What `Proposal.content` would be had the sampler proposed `method`; None where it could not.

        So the sampler learns from baselines that lie in its space.
        """
        for entry in self._space.searched:
            values = method_parameters(method) if entry.method == method.name else {}
            if values and all(values[knob] in domain for knob, domain in entry.knobs):
                params = {
                    f"{entry.method}.{knob}": domain.values.index(values[knob])
                    if isinstance(domain, Choice)
                    else values[knob]
                    for knob, domain in entry.knobs
                }
                trial = optuna.trial.FixedTrial({"method": entry.method, **params})
                if self._space.suggest(trial) == method:
                    return _content(trial)
        return None

    def assign(self, proposal: Proposal, number: int) -> None:
        """Note which trial of the run folder trains this proposal."""
        with writing(self._journal):
            proposal.trial.set_user_attr("number", number)

    def tell(self, proposal: Proposal, verdict: Verdict) -> None:
        """The outcome of a proposal of this session."""
        with writing(self._journal):
            for name, value in _constraints(verdict).items():
                proposal.trial.set_constraint(name, value)
            self._study.tell(proposal.trial, _values(verdict))

    def drop(self, proposal: Proposal) -> None:
        """Forget a proposal that the sampler has been told, or will be."""
        with writing(self._journal):
            self._study.tell(proposal.trial, state=TrialState.FAIL)

    def told(self) -> set[int]:
        """The trials of the run folder whose outcome the sampler knows."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return {trial.user_attrs["number"] for trial in trials if "number" in trial.user_attrs}

    def add(self, assignment: Assignment, verdict: Verdict) -> None:
        """The outcome of a trial that an earlier session proposed."""
        assert assignment.proposal is not None
        content = assignment.proposal
        self._study.add_trial(
            create_trial(
                params=content["params"],
                distributions={
                    name: json_to_distribution(text) for name, text in content["distributions"].items()
                },
                values=_values(verdict),
                constraints=_constraints(verdict),
                user_attrs={"number": assignment.number},
            )
        )

    def _open(self, journal: Path, notice: Callable[[str], None]) -> optuna.Study:
        cut = cut_torn_line(journal)
        if cut:
            notice(f"{journal.name}: cut {cut} bytes of a line that an earlier run could not finish")
        # the run folder is ours alone, so a lock that is still there belongs to a process that was killed
        Path(f"{journal}.lock").unlink(missing_ok=True)
        try:
            study = self._load(journal)
        except Exception as error:  # whatever is wrong with it, the trials hold the truth
            broken = journal.with_name(f"{journal.name}.broken")
            journal.replace(broken)
            notice(
                f"{journal.name} cannot be read ({type(error).__name__}: {error}); "
                f"kept as {broken.name} and made again from the trials"
            )
            study = self._load(journal)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            # its session is gone; `add` tells its outcome once the trial has run again
            study.tell(trial.number, state=TrialState.FAIL)
        return study

    def _load(self, journal: Path) -> optuna.Study:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=STUDY_NAME,
            directions=self._directions,
            load_if_exists=True,
        )


def _content(trial: Trial | optuna.trial.FixedTrial) -> dict[str, Any]:
    distributions = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
    return {"params": trial.params, "distributions": distributions}


def _sampler(name: SamplerName, seed: int) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _values(verdict: Verdict) -> list[float]:
    # the logarithm, else the large end would dominate every comparison
    return [verdict.value, math.log10(max(verdict.bytes, 1))]


def _constraints(verdict: Verdict) -> dict[str, float]:
    return {"bytes": float(verdict.excess_bytes), "failed": float(verdict.failed)}
