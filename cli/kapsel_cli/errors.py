"""What the command line cannot go on from; each is one sentence for the person and one next step.

CliError
├── PostgresError      the embedded Postgres cannot be prepared or started
├── DataInUseError     another instance, or what it left behind, holds the data directory
├── ManifestsError     the manifests have problems; one line each
├── PortTakenError     somebody else listens on a port that is needed
├── ChildError         a component did not become ready
├── UnreachableError   no console answers
└── RefusedError       the console does not do what it was asked
"""

from collections.abc import Sequence


class CliError(Exception):
    """Base of all errors of this package: what is wrong, and what to do next."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(f"{problem}. {next_step}.")
        self.problem = problem
        self.next_step = next_step


class PostgresError(CliError):
    """The embedded Postgres cannot be prepared or started."""


class DataInUseError(CliError):
    """Another instance, or what it left behind, holds the data directory or the database."""


class ManifestsError(CliError):
    """The manifests have problems; `lines` names each with its file and line."""

    def __init__(self, lines: Sequence[str]) -> None:
        count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
        super().__init__(f"the manifests have {count}", "Correct what the lines above name")
        self.lines = tuple(lines)


class PortTakenError(CliError):
    """Somebody else listens on a port that is needed."""


class ChildError(CliError):
    """A component did not become ready."""


class UnreachableError(CliError):
    """No console answers, or what answers is none."""


class RefusedError(CliError):
    """The console does not do what it was asked; `code` is its stable name for why."""

    def __init__(self, problem: str, next_step: str, *, code: str, temporary: bool = False) -> None:
        super().__init__(problem, next_step)
        self.code = code
        self.temporary = temporary  # whether the same request may pass later
