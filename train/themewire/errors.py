"""The errors a user can meet: each is one line on standard error and an exit code."""


class ThemewireError(Exception):
    """Anything that stops a command; `exit_code` 3 unless a subclass says otherwise."""

    exit_code = 3


class InputRefused(ThemewireError):
    """Some input could not be used: an unreadable file, a bad record, a failed check."""

    exit_code = 1


class UsageError(ThemewireError):
    """The command, its configuration or its model cannot work as given."""

    exit_code = 2


class OutsideError(ThemewireError):
    """Something outside the program failed: a store that is gone, a full disk."""

    exit_code = 3


def missing_extra(extra: str, error: ImportError) -> UsageError:
    """The error for a command whose optional packages are not installed."""
    return UsageError(
        f"{error.name or error} is not installed; this command needs the extra '{extra}': "
        f"pip install 'themewire[{extra}]'"
    )
