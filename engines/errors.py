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
