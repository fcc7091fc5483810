"""Errors of the engines. The tree is drawn, together with the node's, in `dicomnode.errors`."""


class EngineError(Exception):
    """Something an engine refuses or fails at.

    `hint` says what a person does next; `transient` is True where trying again may help.
    """

    transient = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class EngineNotFoundError(EngineError):
    """No registered engine has the name asked for."""


class SettingError(EngineError):
    """A setting is unknown to the engine or outside its bounds."""


class EngineInputError(EngineError):
    """The inputs given are not the ones the card declares (name, kind, unit or shape)."""


class BundleError(EngineError):
    """An engine bundle is damaged, incomplete, unsigned where a signature is asked for, or not what it says it is."""


class RuntimeFailedError(EngineError):
    """A runtime is not installed, does not take a model, or failed at it."""

    transient = True
