"""Bytes for people: 1 GB is 1000**3 bytes and 1 GiB is 1024**3, and which one is meant is always said."""

from __future__ import annotations

import re

from lora_np._checks import whole_number

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZES = {unit.lower(): 1000**power for power, unit in enumerate(_DECIMAL)}
_SIZES |= {unit.lower(): 1024**power for power, unit in enumerate(_BINARY)}


def decimal_bytes(size: int) -> str:
    """``size`` in powers of 1000.

    Examples
    --------
    >>> decimal_bytes(37_748_736)
    '37.75 MB'
    """
    return _readable(size, 1000, _DECIMAL)


def binary_bytes(size: int) -> str:
    """``size`` in powers of 1024.

    Examples
    --------
    >>> binary_bytes(37_748_736)
    '36.00 MiB'
    """
    return _readable(size, 1024, _BINARY)


def parse_bytes(name: str, size: int | str) -> int:
    """Bytes from a number, or from text with a unit.

    Parameters
    ----------
    name : str
        What the size is, for error messages.
    size : int or str
        Bytes, or text such as ``"24 GB"`` (decimal) or ``"24GiB"`` (binary).

    Raises
    ------
    ValueError, TypeError
        If the size is negative or its unit is not clear.

    Examples
    --------
    >>> parse_bytes("budget", "24 GB"), parse_bytes("budget", "24GiB")
    (24000000000, 25769803776)
    """
    if not isinstance(size, str):
        return whole_number(name, size, minimum=0)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", size)
    if not match or match[2].lower() not in _SIZES:
        raise ValueError(f"{name} must be bytes or text such as '24 GB' or '24 GiB', got {size!r}")
    return int(float(match[1]) * _SIZES[match[2].lower()])


def _readable(size: int, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while size >= base ** (power + 1) and power + 1 < len(units):
        power += 1
    return f"{size} B" if power == 0 else f"{size / base**power:,.2f} {units[power]}"
