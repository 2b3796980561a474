"""The base of every step kind: an id, the ways that lead on from it, and a row in the registry of kinds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import GetJsonSchemaHandler, PlainValidator
from pydantic_core import CoreSchema, PydanticCustomError

from distmark.journeys.expressions import Expression, Text, Texts
from distmark.journeys.field_types import Name, Words
from distmark.journeys.fields import DefinitionPart, problem, reference
from distmark.journeys.findings import closest
from distmark.journeys.model import Decision, IfHeld, StepVisit


@dataclass(frozen=True, slots=True)
class Path:
    """One arm of a split: how people call it, and its steps."""

    label: str
    steps: "tuple[Step, ...]"
    share: float | None = None
    name: Words | None = None

    def words(self, lang: str) -> str:
        """Return how people call the arm in `lang`."""
        return self.name.text(lang) if self.name is not None else self.label

    def first(self, after: str | None) -> str | None:
        """Return the id of the arm's first step, or of the step after the split when the arm is empty."""
        return self.steps[0].id if self.steps else after


@dataclass(frozen=True, slots=True)
class Defaults:
    """The journey's values for steps that give none."""

    transactional: bool = False
    if_held: IfHeld = IfHeld.hold


class Step(DefinitionPart):
    """A step of any kind. `pauses` is whether a visit always takes time, so that a loop through it comes to rest."""

    kind: ClassVar[str] = ""

    id: Name
    name: Words | None = None

    @property
    def pauses(self) -> bool:
        return False

    @property
    def time_inputs(self) -> frozenset[str]:
        """What the time at which a visit ends is computed from and may change during it: `zone`, `contact.birthday`, `best_hours` ..."""
        return frozenset()

    def paths(self) -> tuple[Path, ...]:
        """Return the arms of a split; most steps have none."""
        return ()

    def ways(self, after: str | None) -> tuple[str | None, ...]:
        """Return the ids of the steps that may come next; None is the end of the journey."""
        return (after,)

    def targets(self) -> tuple[tuple[str, str], ...]:
        """Return the step ids that the step names, each with the field that names it."""
        return ()

    def settled(self, defaults: Defaults) -> Self:
        """Return the step with what it leaves open taken from the journey."""
        return self


@dataclass(frozen=True, slots=True)
class StepKind:
    """A row of the registry: how a kind is read, decided and shown.

    `label` is per language, `icon` a lucide name, `colour` marks its nodes in pictures.
    """

    key: str
    model: type[Step]
    decide: Callable[[Any, StepVisit], Decision]
    describe: Callable[[Any, str], tuple[str, str]]
    label: Mapping[str, str]
    icon: str
    colour: str = "#52606d"


def read_step(value: object) -> Step:
    """Return the step that the mapping `value` writes, by its kind; raises a problem or pydantic's errors, placed in `value`."""
    # The registry imports every kind and a split reads steps itself: the circle is cut here.
    from distmark.journeys.steps import KINDS

    if isinstance(value, Step):
        return value
    if not isinstance(value, Mapping):
        raise problem("unknown-kind", allowed=", ".join(KINDS))
    named = [key for key in KINDS if key in value]
    if len(named) > 1:
        raise problem("two-kinds", kinds=", ".join(named))
    if not named:
        raise _no_kind(value, list(KINDS))
    return KINDS[named[0]].model.model_validate(value)


def _no_kind(value: Mapping[str, object], kinds: list[str]) -> PydanticCustomError:
    known = {"id", "name", "arms", "data", "outcome", "message", "editable", "if_held", "at_most"}
    near = [(str(key), kind) for key in value if key not in known and (kind := closest(str(key), kinds))]
    suggestion = {"suggestion": near[0][1], "field": near[0][0]} if near else {}
    return problem("unknown-kind", allowed=", ".join(kinds), **suggestion)


class _StepSchema:
    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return reference("Step")


AnyStep = Annotated[Step, PlainValidator(read_step), _StepSchema]
Steps = tuple[AnyStep, ...]
Readable = Expression | Text | Texts
