"""Messages of a running verb, its summary, and running it over many items."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from thawmap.config import Config, EngineSettings
from thawmap.engine import run as engine

if TYPE_CHECKING:
    import pandas as pd


class Named(Hashable, Protocol):
    """An item of work with a name: a scene, a training."""

    @property
    def id(self) -> str:
        """Name of the item in messages."""
        ...


Item = TypeVar("Item", bound=Named)
Value = TypeVar("Value")


class Progress(Protocol):
    """The receiver of a running verb's messages, such as a terminal."""

    def say(self, message: str) -> None:
        """Show one line of text."""
        ...

    def step(self, title: str, done: int, total: int, *, detail: str = "") -> None:
        """Show that ``done`` of ``total`` of the work called ``title`` are done, or a detail in their place."""
        ...


class Silence:
    """Progress that shows nothing."""

    def say(self, message: str) -> None:
        """Drop a line of text."""

    def step(self, title: str, done: int, total: int, *, detail: str = "") -> None:
        """Drop a count of items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The outcome of a verb: lines for the user, numbers of items, failures and rows.

    Attributes:
        lines: Sentences for the user: what was made, and where it is.
        done: Number of items that were worked on.
        skipped: Number of items that were finished before.
        failed: Id of each failed item to the sentence that says why it failed.
        left: Sentence on what is left for a rerun, because a service was busy until patience ended; empty: nothing.
        rows: Rows of a table, for verbs that list: column to value, the same columns in each.
    """

    lines: tuple[str, ...] = ()
    done: int = 0
    skipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    left: str = ""
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def table(self) -> "pd.DataFrame":
        """DataFrame of the rows; empty for verbs that list nothing."""
        import pandas as pd  # noqa: PLC0415 - verbs on one scene are quicker without

        return pd.DataFrame(list(self.rows))


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a DataFrame's rows as a list of dicts from column to value."""
    return cast("list[dict[str, Any]]", table.to_dict("records"))


def run_all(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    config: Config | None,
    progress: Progress | None,
    title: str,
    *,
    in_process: bool = False,
) -> tuple[list[Value], dict[str, str]]:
    """Call a function on every item; return values, and messages of failures by id.

    The values are in the order of the items, without those that failed. One that fails does not stop the others.

    Args:
        work: Function of one item; what it raises becomes the message of that item.
        items: The items, all different.
        config: The configuration whose engine runs the work; None: this process.
        progress: Is told after each item.
        title: Name of the work in messages.
        in_process: Run in this process all the same: for quick work, which others would take longer to begin.
    """
    progress, order = progress or Silence(), {item: number for number, item in enumerate(items)}
    values: dict[int, Value] = {}
    failed: dict[str, str] = {}
    settings = EngineSettings() if in_process or config is None else config.engine
    workers = min(settings.workers, len(items))
    with engine.executor(workers, settings.address) as executor:
        # outcomes come as they end, in any order; a queue of twice the workers keeps all of them busy
        for done, outcome in enumerate(engine.run(work, items, executor, ahead=2 * workers + 2), start=1):
            if outcome.ok:
                values[order[outcome.item]] = cast("Value", outcome.value)
            else:
                failed[outcome.item.id] = str(outcome.error)
            progress.step(title, done, len(items))
    return [values[number] for number in sorted(values)], failed


def still_due(is_due: Callable[[Item], bool], items: Sequence[Item]) -> tuple[list[Item], dict[str, str]]:
    """Return the items for which ``is_due`` is true, and messages of errors by id.

    The items are in their order. ``is_due`` says whether one item is still to be worked on; what it raises becomes the
    message of that item, which is not in the list then.
    """
    answers, failed = run_all(lambda item: (item, is_due(item)), items, None, None, "")
    return [item for item, due in answers if due], failed
