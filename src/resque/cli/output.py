"""Files that commands append to."""

from pathlib import Path

from resque.errors import SettingError

__all__ = ["append"]


def append(page: Path | None, text: str) -> None:
    """Append text to a Markdown page; nothing without one.

    Raises:
        SettingError: The page cannot be written.
    """
    if page is None:
        return
    try:
        with page.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"cannot write {str(page)!r}: {error.strerror}; name another with --summary") from error
