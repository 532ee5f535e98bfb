"""What a file really holds, told from its first bytes."""

from __future__ import annotations


def sniff_format(head: bytes) -> str:
    """What the first bytes of a file that should be HDF5 or gzip show instead: a clause for an error, or ""."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        if b"google drive" in text and (b"quota" in text or b"virus" in text or b"too many users" in text):
            return "it is Google Drive's notice that the file's quota is used up (or asks to confirm), saved as data"
        return "it is a web page saved as data"
    return "it is still packed with gzip" if head[:2] == b"\x1f\x8b" else ""
