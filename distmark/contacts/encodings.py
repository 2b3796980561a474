"""Encodings of text files: UTF-8, UTF-16, Shift_JIS, EUC-JP, JIS and Windows-1252 are told apart by their bytes. Pure."""

import re

from distmark.errors import InvalidInput

SAMPLE_BYTES = 200_000
LEAST_SHARE = 0.9  # of the words that must look Western before a file is read as Windows-1252
_NOT_JAPANESE = re.compile("[\x80\xa0\uf8f0-\uf8f3]")  # single bytes that Python's decoder lets through and Shift_JIS does not have
_JIS = re.compile(rb"\x1b(?:\$[@B]|\([BJI])")


def decoded(data: bytes, filename: str) -> str:
    """Return the text of the file, without a byte order mark; InvalidInput when its encoding is none of those that programs write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        candidates = ["utf-16"]
    elif b"\x00" in data[:SAMPLE_BYTES]:
        candidates = _without_mark(data[:SAMPLE_BYTES])
    elif _JIS.search(data[:SAMPLE_BYTES]) and data.isascii():
        candidates = ["iso2022_jp_ext"]
    else:
        candidates = ["utf-8-sig", *_eight_bit(data)]
    if not candidates or (b"\x00" in data and not candidates[0].startswith("utf-16")):
        raise InvalidInput(f"The file {filename} is not text; save it as CSV or XLSX.")
    line = 1
    for encoding in candidates:
        try:
            text = data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
        else:
            if encoding != "cp932" or _NOT_JAPANESE.search(text) is None:
                return text
    raise InvalidInput(f"The file {filename} is neither UTF-8 nor Shift_JIS (line {line}); save it as CSV in UTF-8.")


def _without_mark(sample: bytes) -> list[str]:
    """Return the UTF-16 whose ASCII characters have their null bytes where the sample has all of its own; none when it is no text."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if even + odd < sum(sample.count(sign) for sign in (b"\n", b"\r", b",", b"\t", b"@")):
        return []
    if odd and not even:
        return ["utf-16-le"]
    return ["utf-16-be"] if even and not odd else []


def _eight_bit(data: bytes) -> list[str]:
    """Return the encodings to try when the bytes are not UTF-8, the likeliest first; none when they are damaged UTF-8."""
    if _is_damaged_utf8(data):
        return []
    sample = data[:SAMPLE_BYTES].rpartition(b"\n")[0] if len(data) > SAMPLE_BYTES else data
    good, odd = _western_words(sample)
    if good > 0 and good >= LEAST_SHARE * (good + odd):
        return ["cp1252", "cp932"]
    japanese = ["euc_jp", "cp932"] if _looks_like_euc(sample) else ["cp932"]
    return japanese if odd else [*japanese, "cp1252"]


def _is_damaged_utf8(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    # In another encoding, hardly any bytes happen to be UTF-8.
    return 0 < damaged * 3 < sum(letter > "\x7f" for letter in text) - damaged


_WESTERN_WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿŒœŸ]+")
_WESTERN_MARKS = frozenset("’‘“”–—…€£§©®°«»¡¿ªº·´`™\xa0")


def _western_words(sample: bytes) -> tuple[int, int]:
    """Return how many words are Latin with accents, and how many words and signs no Western text holds, if these bytes are Windows-1252.

    An accent stands among plain letters; bytes of Japanese, read as Windows-1252, are signs and accents beside each other. As Shift_JIS,
    Müller and Hélène would turn into rare kanji.
    """
    text = sample.decode("cp1252", "replace")
    words = [word for word in _WESTERN_WORD.findall(text) if not word.isascii()]
    good = sum(_is_western(word) for word in words)
    signs = sum(letter > "\x7f" and letter not in _WESTERN_MARKS and _WESTERN_WORD.fullmatch(letter) is None for letter in text)
    return good, len(words) - good + signs


_UNLIKELY = re.compile(r"^[à-ÿ]{2}|[à-ÿ][A-Z]")


def _is_western(word: str) -> bool:
    if word.lower() == "à":
        return True
    accents = sum(not letter.isascii() for letter in word)
    plain = len(word) - accents
    return plain > 0 and accents <= plain + 1 and _UNLIKELY.search(word) is None


def _looks_like_euc(sample: bytes) -> bool:
    """Return whether the bytes are EUC-JP: pairs of high bytes, most of them kana and frequent kanji."""
    try:
        sample.decode("euc_jp")
    except UnicodeDecodeError:
        return False
    pairs = re.findall(rb"[\xa1-\xfe]{2}", sample)
    usual = sum(pair[0] in (0xA1, 0xA3, 0xA4, 0xA5) or 0xB0 <= pair[0] <= 0xCF for pair in pairs)
    return bool(pairs) and usual * 10 >= len(pairs) * 7
