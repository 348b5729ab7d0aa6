"""What can be a name: of a type of defect, a category, and so of a folder."""

from __future__ import annotations

import re

__all__ = ["COMBINED", "checked_category", "checked_name", "is_folder_name", "is_name"]

#: The type of an image whose defects are of several, as MVTec AD calls it.
COMBINED = "combined"

#: From U+00A0 on: all but what is invisible, gives a direction or is no character.
_BEYOND_ASCII = (
    "\u00a0-\u00ac\u00ae-\u200a\u2010-\u2027\u202f-\u205f\u2070-\ud7ff\ue000-\ufefe\uff00-\uffef"
    "\U00010000-\U0010ffff"
)
_NAME = re.compile(f"[A-Za-z0-9_{_BEYOND_ASCII}][A-Za-z0-9_ .+{_BEYOND_ASCII}-]{{0,99}}")

#: Names in OUT that are the program's own; in lower case, since some disks know no other.
_OWN = frozenset(
    {
        "coco",
        "coco-rle",
        "dropped.jsonl",
        "failed.jsonl",
        "folder.yaml",
        "healthy",
        "healthy.jsonl",
        "imagefolder",
        "job.json",
        "job.sqlite",
        "job.sqlite-shm",
        "job.sqlite-wal",
        "label-studio",
        "labelme",
        "manifest.jsonl",
        "masks",
        "refused",
        "refused.jsonl",
        "report.html",
        "split.json",
        "yolo",
    }
)


#: Bytes of a folder's name that every disk takes.
_LONGEST = 255


def is_name(text: str) -> bool:
    """Whether a text can be the name of a prompt, and so of a type of defect and of its folder.

    1 to 100 characters: ASCII letters, digits, ``_``, and from the second one on space ``. + -``;
    beyond ASCII any from U+00A0 on but U+00AD, U+200B-200F, U+2028-202E, U+2060-206F, U+FEFF,
    U+FFF0-FFFF and surrogates. No table of letters, so that every language has the same rule.
    """
    return _NAME.fullmatch(text) is not None


def is_folder_name(text: str) -> bool:
    """Whether a name can be a folder's: letters beyond ASCII are several bytes each."""
    return is_name(text) and len(text.encode()) <= _LONGEST


def checked_name(text: str) -> str:
    """The text, if it is a name. Raises `ValueError` saying what a name is."""
    if not is_name(text):
        raise ValueError(
            "should be 1 to 100 letters, digits, spaces and . _ + -, a letter, a digit or _ first"
        )
    return text


def checked_category(category: str) -> str:
    """A category that can be a folder in OUT beside what the program writes there.

    Raises `ValueError` saying what is in the way.
    """
    if not is_name(category):
        raise ValueError(
            f"{category!r} cannot be the name of a folder: use up to 100 letters, digits, space "
            ". _ + -"
        )
    if not is_folder_name(category):
        raise ValueError(f"{category!r} has more than {_LONGEST} bytes, too long for a folder")
    if category.lower() in _OWN:
        raise ValueError(f"{category!r} is the name of something else in OUT; choose another")
    return category
