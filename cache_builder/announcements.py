"""What a user should know of a build before it begins: the path it takes, and what its datasets do not allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cache_builder.plan import UnitPlan, defines_letter_or_word
from cache_builder.prompts.inputs import MUCH_UNKNOWN
from steerstats.errors import by_text

if TYPE_CHECKING:
    from cache_builder.prompts.settings import Renderer
    from cache_builder.session import Session


def announcements(session: Session) -> list[str]:
    """The plain path, a folded system role, what is odd about datasets, and tokens that the model does not know."""
    parity = session.engine.parity
    said = [str(parity)] if parity is not None and parity.path == "plain" else []
    said += of_prompts_and_data(session.builder.renderer, session.units, session.spec.controls.debiased)
    unknown = session.builder.survey.unknown if session.builder.survey else {}
    if unknown:
        worst, more = max(unknown, key=unknown.get), len(unknown) - 1
        others = f", and more than {MUCH_UNKNOWN:.0%} in {more} other{'s' * (more > 1)}" if more else ""
        said.append(
            f"the tokenizer does not know {unknown[worst]:.0%} of the tokens of {worst}'s inputs{others}: to the "
            "model, what differs in unknown words is the same"
        )
    return said


def of_prompts_and_data(renderer: Renderer, units: Sequence[UnitPlan], debiased: bool) -> list[str]:
    """What is known without the model's weights: oddities of its chat template, and of the datasets."""
    return [*renderer.notes, *by_text({unit.name: list(_of_unit(unit, debiased)) for unit in units}, always=True)]


def _of_unit(unit: UnitPlan, debiased: bool) -> Iterator[str]:
    data = unit.dataset
    if data.duplicates:
        yield (
            f"{data.duplicates} of {data.records} records repeat another one ({data.duplicates_exact} exactly); copies "
            "stay on one side of the split"
        )
    yield from data.notes
    if unit.split.overlap:
        yield overlap_note(unit)
    if debiased and not defines_letter_or_word(unit):
        yield "no debiased vector is made, since the training pairs define neither A/B nor Yes/No"


def overlap_note(unit: UnitPlan) -> str:
    """How many test pairs share their question with a training pair, where the split's rule lets them."""
    return f"{unit.split.overlap} test pairs share their question with a training pair ({unit.split.rule})"
