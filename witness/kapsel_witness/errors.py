"""Why a witness does not start, or does not answer.

WitnessError
├── KeyFileError   the key file cannot be made, read or used
└── StateError     what the witness has cosigned is not known for sure: it must not cosign
"""


class WitnessError(Exception):
    """Base of all errors of this package; the message says what to do."""


class KeyFileError(WitnessError):
    """The key file cannot be made, read or used."""


class StateError(WitnessError):
    """The state is missing, damaged, of another witness, or cannot be written."""
