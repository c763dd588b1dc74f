"""What a verb says while it runs, and what it did."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from thawmap.config import Config, EngineSettings
from thawmap.engine import run as engine

if TYPE_CHECKING:
    import pandas as pd


class Named(Hashable, Protocol):
    """Anything that work is done on: a scene, a training."""

    @property
    def id(self) -> str:
        """What it is called in messages."""
        ...


Item = TypeVar("Item", bound=Named)
Value = TypeVar("Value")


class Progress(Protocol):
    """Is told what happens while a verb runs."""

    def say(self, message: str) -> None:
        """One line."""
        ...

    def step(self, title: str, done: int, total: int) -> None:
        """One item of ``total`` is done."""
        ...


class Silence:
    """Progress that says nothing."""

    def say(self, message: str) -> None:
        """Nothing."""

    def step(self, title: str, done: int, total: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a verb did.

    Attributes:
        lines: What to tell the user: what was made, and where it is.
        done: Number of items that were worked on.
        skipped: Number of items that were finished before.
        failed: Item to the sentence that says why it failed.
        rows: What was found, for verbs that list: column to value, the same columns in each.
    """

    lines: tuple[str, ...] = ()
    done: int = 0
    skipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def table(self) -> "pd.DataFrame":
        """The rows as a table; empty for verbs that list nothing."""
        import pandas as pd  # noqa: PLC0415 - verbs on one scene are quicker without

        return pd.DataFrame(list(self.rows))


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows of a table, as a `Summary` has them."""
    return cast("list[dict[str, Any]]", table.to_dict("records"))


def run_all(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    config: Config | None,
    progress: Progress | None,
    title: str,
    *,
    here: bool = False,
) -> tuple[list[Value], dict[str, str]]:
    """What came of the items, in their order, and the failures by id.

    ``here`` keeps quick work in this process, where others would take longer to begin than it takes; so does no
    configuration.
    """
    progress, order = progress or Silence(), {item: number for number, item in enumerate(items)}
    values: dict[int, Value] = {}
    failed: dict[str, str] = {}
    settings = EngineSettings() if here or config is None else config.engine
    workers = min(settings.workers, len(items))
    with engine.executor(workers, settings.address) as executor:
        for done, outcome in enumerate(engine.run(work, items, executor, ahead=2 * workers + 2), start=1):
            if outcome.ok:
                values[order[outcome.item]] = cast("Value", outcome.value)
            else:
                failed[outcome.item.id] = str(outcome.error)
            progress.step(title, done, len(items))
    return [values[number] for number in sorted(values)], failed


def still_due(
    is_due: Callable[[Item], bool], items: Sequence[Item], config: Config | None
) -> tuple[list[Item], dict[str, str]]:
    """The items that are still to be worked on, in their order, and why it cannot be told of others, by id."""
    answers, failed = run_all(lambda item: (item, is_due(item)), items, config, None, "", here=True)
    return [item for item, due in answers if due], failed
