"""What a made image says of itself: that it is made, and of what, so that it can be made again.

An XMP packet in the PNG, apart from its pixels. ``DigitalSourceType`` is IPTC's term for a
photograph of which a part was made by a trained model, which programs that look for made pictures
read; the EU's AI Act (Art. 50 (2)) asks for such a mark. What is needed to make the image again
stands beside it as JSON, in a namespace of our own. Nothing in it is a path of the machine.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError, fromstring
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import __version__
from ..config.job import SynthesizerConfig
from ..errors import InputError
from ..files import parse_json, read_input
from ..images.types import MAX_BYTES

__all__ = ["Mark", "marked", "read_mark"]

#: https://cv.iptc.org/newscodes/digitalsourcetype
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_OURS = "https://defectrt.org/ns/mark/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about=""
 xmlns:Iptc4xmpExt="{iptc}" Iptc4xmpExt:DigitalSourceType="{source_type}"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="defectrt {version}"
 xmlns:defectrt="{ours}" defectrt:made={made}/></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
#: Where XMP lies in a PNG: an iTXt chunk of this keyword, neither compressed nor translated.
_KEYWORD = b"XML:com.adobe.xmp\0\0\0\0\0"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Of a packet.
_MAX_PACKET = 1 << 20


class Mark(BaseModel):
    """How an image was made.

    version        of this program
    engine         SHA-256 of the engine's manifest
    provider       what it ran on
    source         path of the good image, in the folder of images
    source_sha256  its hash
    sample         its number among the source's
    defect         its type
    healthy        whether the place was painted without it
    options        of the job, by their keys in a file; those that name files are left out
    needs          keys of options that name files, and are needed to make it again
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: str
    engine: str
    provider: str
    source: str
    source_sha256: str
    sample: int
    defect: str
    options: dict[str, Any]
    needs: list[str]
    healthy: bool = False

    @classmethod
    def of(cls, config: SynthesizerConfig, **made: Any) -> Mark:
        """Of a sample that was ``made`` as a configuration says; its other fields by name."""
        options, needs = config.remade_by()
        return cls(version=__version__, options=options, needs=needs, **made)


def marked(png: bytes, mark: Mark) -> bytes:
    """A PNG with its mark; the pixels are the same."""
    made = quoteattr(json.dumps(mark.model_dump(exclude_defaults=True), sort_keys=True))
    text = _PACKET.format(
        rdf=_RDF, iptc=_IPTC, ours=_OURS, source_type=SOURCE_TYPE, version=mark.version, made=made
    )
    data = _KEYWORD + text.encode()
    chunk = struct.pack(">L", len(data)) + b"iTXt" + data
    chunk += struct.pack(">L", zlib.crc32(b"iTXt" + data))
    first = len(_SIGNATURE) + 25  # after the header
    return png[:first] + chunk + png[first:]


def read_mark(path: Path) -> Mark:
    """The mark of an image. Raises `InputError` for a file that has none, or a damaged one."""
    data = read_input(path, MAX_BYTES)
    if not data.startswith(_SIGNATURE):
        raise InputError(f"{path}: not a PNG, so not as defectrt wrote it")
    for kind, content in _chunks(data):
        if kind == b"iTXt" and content.startswith(_KEYWORD):
            return _parsed(content[len(_KEYWORD) :], path)
    raise InputError(
        f"{path}: says nothing of how it was made; it was made with --no-mark, or another program "
        "wrote it"
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    while place + 8 <= len(data):
        (length,) = struct.unpack(">L", data[place : place + 4])
        kind = data[place + 4 : place + 8]
        if kind == b"IDAT":
            return
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length


def _parsed(packet: bytes, path: Path) -> Mark:
    try:
        text_of_packet = packet.decode()
        if len(packet) > _MAX_PACKET or "<!" in text_of_packet:
            raise ValueError
        found = fromstring(text_of_packet.encode()).find(f".//{{{_RDF}}}Description")
        text = None if found is None else found.get(f"{{{_OURS}}}made")
        if text is None:
            raise ValueError
        return Mark(**parse_json(text))
    except (ParseError, ValueError, TypeError, InputError, ValidationError):
        raise InputError(f"{path}: what it says of how it was made cannot be read") from None
