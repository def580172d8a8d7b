"""What can go wrong in the store.

StoreError
├── ImpossibleTransitionError   an event that the state table does not allow
├── SchemaError                 the database's schema is not the one this code needs
│   ├── NewerSchemaError        a newer version has migrated it
│   ├── EditedMigrationError    a migration has other content than when it was applied
│   ├── OldServerError          the server is too old for it
│   └── BusySchemaError         others hold what a migration must lock
├── SealingError                a sealed secret cannot be opened with the keys at hand
├── StaleConfigurationError     another writer has applied a configuration meanwhile
├── StaleTreeError              another sequencer moved the tree
├── ErasedMeanwhileError        attempts wait for no leaf any more
├── PartlyStoredError           some events of a batch are stored, and the database failed at the others
└── DatabaseURLError            the database URL cannot be used
"""


class StoreError(Exception):
    """Base of all errors of this package."""


class ImpossibleTransitionError(StoreError):
    """A delivery in `state` cannot take `event`."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__(f"a delivery that is {state} cannot take the event {event}")
        self.state = state
        self.event = event


class SchemaError(StoreError):
    """The schema is not the one this code needs, and was not made so."""


class NewerSchemaError(SchemaError):
    """The schema has a migration that this code does not know."""


class EditedMigrationError(SchemaError):
    """A migration was applied with other content than this code has for it."""


class OldServerError(SchemaError):
    """The server is older than the oldest that kapsel works with."""


class BusySchemaError(SchemaError):
    """Others have held for too long what a migration must lock; those before it are applied."""


class SealingError(StoreError):
    """A sealed secret cannot be opened: its key is absent, or its bytes were changed."""


class StaleConfigurationError(StoreError):
    """The configuration has another generation than the one that was planned on: another writer is at work."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"the configuration was planned on generation {expected}, and {found} runs")
        self.expected = expected
        self.found = found


class StaleTreeError(StoreError):
    """The log has another size than the sequencer expected: another one is at work."""

    def __init__(self, origin: str, expected: int, found: int) -> None:
        super().__init__(f"log {origin}: expected tree size {expected}, found {found}")
        self.origin = origin
        self.expected = expected
        self.found = found


class ErasedMeanwhileError(StoreError):
    """Some of the attempts wait for a leaf no more: they were erased after they were read."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} attempts wait for a leaf no more")
        self.count = count


class PartlyStoredError(StoreError):
    """Some events of a batch are durable; then `failed` came, and what became of the others nobody can say."""

    def __init__(self, failed: Exception) -> None:
        super().__init__(f"some of a batch is stored, and then the database failed: {failed}")
        self.failed = failed


class DatabaseURLError(StoreError):
    """The database URL cannot be parsed."""
