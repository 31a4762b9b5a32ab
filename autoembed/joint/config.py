"""The `joint` section of a study file: how the search behind `search_space: joint` spends its time."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from autoembed.config import Section

# what searches do that were begun before the key was there
UNWRITTEN: dict[str, object] = {"order": "frequency", "max_drop": None}


class JointConfig(Section):
    """The `joint` section of a study file. One training is the trunk's, counted in its steps."""

    tune: Annotated[
        Literal["off"] | Annotated[float, Field(gt=0.0, le=100.0)],
        Field(description="trainings spent on the settings of the full-precision trunk, or off"),
    ] = "off"
    order: Annotated[
        Literal["learned", "frequency"],
        Field(description="rows as the vocabulary lists them: by what they hold, or by look-ups alone"),
    ] = "learned"
    fine_tune: Annotated[
        float, Field(ge=0.0, le=100.0, description="trainings spent on fine-tuning all points together")
    ] = 1.4
    teacher: Annotated[
        Literal["auto"] | Annotated[float, Field(ge=0.0, le=1.0)],
        Field(description="weight of the trunk's predictions; the labels get the rest; auto tries some"),
    ] = "auto"
    rate: Annotated[
        float, Field(gt=0.0, le=10.0, description="fine-tuning's learning rates, of the trunk's; falls to 0")
    ] = 0.3
    step_rate: Annotated[
        float, Field(gt=0.0, le=0.1, description="relative rate of learned quantization steps; falls to 0")
    ] = 0.002
    l2: Annotated[
        float, Field(ge=0.0, le=10.0, description="fine-tuning's penalty on rows, of the trunk's")
    ] = 0.3
    dropout: Annotated[bool, Field(description="whether fine-tuning keeps the network's dropout")] = True
    recipes: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="walks of the first seed, each with other settings of fine-tuning",
        ),
    ] = 1
    tolerance: Annotated[
        float,
        Field(
            ge=0.0,
            le=0.1,
            description="valid AUC below the trunk's or the best point's up to which no fine-tuning is spent",
        ),
    ] = 0.0001

    max_drop: Annotated[
        Annotated[float, Field(gt=0.0, le=0.5)] | None,
        Field(
            description="what the smallest model may lose of the objective; steps go where that is decided"
        ),
    ] = None

    @model_validator(mode="after")
    def _has_one_aim(self) -> "JointConfig":
        if self.max_drop is not None and self.recipes > 1:
            raise ValueError("recipes are compared over all budgets; with max_drop leave recipes at 1")
        return self

    @field_validator("teacher", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("write a number from 0 to 1, or auto")
        return value

    @field_validator("tune", mode="before")
    @classmethod
    def _off_is_no_truth_value(cls, value: object) -> object:
        """YAML 1.1 reads `off` as false and `on` as true."""
        if value is True:
            raise ValueError("on is no number; write the trainings to spend, such as 2.0, or off")
        return "off" if value is False else value
