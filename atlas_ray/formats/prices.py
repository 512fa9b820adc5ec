"""Readers of prices and currencies as people and machines write them, on a page or in a table."""

import math
import re
import unicodedata
from collections.abc import Iterable

from price_parser import Price

from atlas_ray.formats.values import MAX_PRICE

MAX_PRICE_CHARACTERS = 80
CURRENCIES = frozenset(
    re.findall(
        "[A-Z]+",
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
        "CHF CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD "
        "HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD "
        "LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP "
        "PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SYP SZL THB TJS TMT TND TOP "
        "TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ",
    )
)
"""ISO 4217 codes of the currencies that shops may charge."""
CURRENCY_OF_SIGN = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₩": "KRW", "원": "KRW", "₪": "ILS", "₺": "TRY", "₴": "UAH",
    "₫": "VND", "₸": "KZT", "₱": "PHP", "฿": "THB", "zł": "PLN", "kč": "CZK", "lei": "RON", "руб": "RUB",
    "us$": "USD", "ca$": "CAD", "c$": "CAD", "au$": "AUD", "a$": "AUD", "nz$": "NZD", "hk$": "HKD", "nt$": "TWD",
    "s$": "SGD", "r$": "BRL", "mx$": "MXN", "ر.س": "SAR", "kd": "KWD", "د.ك": "KWD", "bd": "BHD", "د.ب": "BHD",
    "ر.ع": "OMR", "jd": "JOD", "د.أ": "JOD", "د.ا": "JOD", "د.ت": "TND", "د.ع": "IQD", "ع.د": "IQD", "د.ل": "LYD",
    "ل.د": "LYD", "euro": "EUR", "euros": "EUR", "rur": "RUB",
}  # fmt: skip
"""Currencies by sign, for signs of a single currency; `$`, `¥`, `kr` and `Rs` stand for several."""
THREE_DECIMALS = {"BHD": ".", "IQD": ".", "JOD": ".", "KWD": ".", "LYD": ".,", "OMR": ".", "TND": ".,"}
"""Currencies with three decimals, each with its decimal separators: `KWD 3.350` is less than four."""
LAST_THREE = re.compile(r"(\d[\d.,'\s]*|)([.,])\d{3}(?!\d)")
CODE_AT_NUMBER = re.compile(r"\b([A-Z]{3})[\s:.]{0,3}\d|\d\s?([A-Z]{3})\b")
PLAIN = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?")
NUMBER = re.compile(r"\d(?:[\d.,'’\s]{0,20}\d)?")
"""A pattern of one number, with the separators between its digits."""
BROKEN_GROUP = re.compile(r"\d\s+(?!\d{3}(?!\d))")
NEGATIVE = re.compile(r"[-−–(]\s*\D{0,3}\d|\d\s*[-−]$")
DIGITS = str.maketrans({"٫": ".", "٬": ",", "’": "'", "ʼ": "'", "´": "'", "`": "'"})


DECIMAL_COMMA = re.compile(r",\d{1,2}(?!\d)\D*$")
DECIMAL_POINT = re.compile(r"\.(?:\d{1,2}|\d{4,})(?!\d)\D*$")
THOUSANDS_POINT = re.compile(r"\d\.\d{3}(?!\d)")
MIN_THOUSANDS = 3


def point_marks_thousands(prices: Iterable[str]) -> bool:
    """Tell whether prices are written so that `1.299` is more than a thousand.

    They are if some have a decimal comma and none a decimal point, or if the point stands before three digits in each
    of several prices that have one.
    """
    commas = thousands = 0
    for text in prices:
        if DECIMAL_POINT.search(text):
            return False
        commas += bool(DECIMAL_COMMA.search(text))
        thousands += bool(THOUSANDS_POINT.search(text))
    return bool(thousands and commas) or thousands >= MIN_THOUSANDS


def read_price(text: str, *, by_machine: bool = True) -> tuple[float, str | None] | None:
    """Read a text that is a price and nothing else, such as a table's cell; return it with the currency it states.

    `$12.99`, `12.345,00 €`, `1'299.50`, `Rs. 1,299`, `USD 5`. None for several numbers (`10-20`, `12/31/2020`), a
    share, a negative number, and words beside the number if none of them is a currency (`5 pcs`, `SKU123`).

    Args:
        text: Of a cell.
        by_machine: A number without a currency and with one point is read as a machine writes it: `1.299` is less
            than two.
    """
    if PLAIN.fullmatch(text):  # most cells of most tables
        return float(text), None
    text = _with_plain_digits(text).strip()
    numbers = NUMBER.findall(text)
    if len(text) > MAX_PRICE_CHARACTERS or len(numbers) != 1 or BROKEN_GROUP.search(numbers[0]):
        return None
    if "%" in text or NEGATIVE.search(text):
        return None
    words = re.findall(r"[^\W\d_]+", text.replace(numbers[0], " ", 1))
    signs = (CURRENCY_OF_SIGN.get(word.lower()) for word in words)
    price, currency = parse_price(text, by_machine=by_machine), parse_currency(text) or next(filter(None, signs), None)
    known = currency or any(Price.fromstring(one).currency for one in (text, text.lower()))
    if price is None or (words and not known):
        return None
    return price, currency


def parse_price(text: str, *, by_machine: bool = True, currency: str | None = None) -> float | None:
    """Read a price: `1299.00`, `1.299,00 €`, `Rs. 1,299`; None for a text that is not a price, is negative or absurd.

    Args:
        text: The price, perhaps with words and signs around it.
        by_machine: `1.299` means less than two, as in structured data; otherwise it is read as a
            person writes it, who means more than a thousand.
        currency: The ISO 4217 code, if something else than the text states it; some have three decimals.
    """
    text = _with_plain_digits(text.strip()[:MAX_PRICE_CHARACTERS])
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if math.isnan(price) or (not by_machine and price >= 0):
        separator = _separator_of_three(text, currency or parse_currency(text))
        # The parser finds a price after any sign.
        negative = re.match(r"[-−–]\s*\D{0,3}\d", text)
        amount = None if negative else Price.fromstring(text, decimal_separator=separator).amount
        price = math.nan if amount is None else float(amount)
    return price if 0 <= price < MAX_PRICE else None  # false for not-a-number


def _with_plain_digits(text: str) -> str:
    """Return a text with the digits and separators that English uses."""
    text = unicodedata.normalize("NFKC", text).translate(DIGITS)
    return text if text.isascii() else "".join(str(unicodedata.decimal(letter, letter)) for letter in text)


def _separator_of_three(text: str, currency: str | None) -> str | None:
    """Return the sign before three decimals, for a currency that has as many; None otherwise."""
    match = LAST_THREE.search(text) if currency in THREE_DECIMALS else None
    if currency is None or match is None or match[2] in match[1]:
        return None  # a number with several of them has groups of thousands
    is_last_of_two = bool(re.search("[.,]", match[1]))
    return match[2] if is_last_of_two or match[2] in THREE_DECIMALS[currency] else None


def parse_currency(text: str) -> str | None:
    """Return the ISO 4217 code in a text, or that of a sign in it which one currency alone has, or None.

    A code is the whole text, or stands in capitals beside the number, or in a text without a number: `ALL`, `TOP`,
    `TRY` and `CUP` are also words.
    """
    text = _with_plain_digits(text.strip()[:MAX_PRICE_CHARACTERS])
    codes: list[str] = [text.upper(), *(before or after for before, after in CODE_AT_NUMBER.findall(text))]
    if not re.search(r"\d", text):
        codes += re.findall(r"\b[A-Z]{3}\b", text)
    for code in codes:
        if code in CURRENCIES:
            return code
    signs: tuple[str, ...] = (text, NUMBER.sub("", text).strip(), Price.fromstring(text).currency or "", *text)
    for sign in signs:
        if known := CURRENCY_OF_SIGN.get(re.sub(r"(?<=[a-z])\s+(?=\$)", "", sign.lower().strip(" .\u200f"))):
            return known
    return None
