"""What can go wrong in the runtime.

KapselRuntimeError
└── SettingsError   the environment does not make valid settings
"""


class KapselRuntimeError(Exception):
    """Base of all errors of this package."""


class SettingsError(KapselRuntimeError):
    """A setting is unknown, missing or wrong; the message is one sentence for whoever starts the process."""

    def __init__(self, sentence: str, variable: str | None = None) -> None:
        super().__init__(sentence)
        self.variable = variable  # None if the settings are wrong together and not one by one
