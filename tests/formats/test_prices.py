import pytest

from atlas_ray.formats.prices import parse_currency, parse_price, point_marks_thousands, read_price


@pytest.mark.parametrize(
    ("text", "price", "currency"),
    [
        ("$12.99", 12.99, None), ("12.345,00 €", 12345, "EUR"), ("1'299.50", 1299.5, None), ("12,99 zł", 12.99, "PLN"),
        ("1’299.50", 1299.5, None), ("Rs. 1,299", 1299, None), ("USD 5", 5, "USD"), ("1,29,999.00", 129999, None),
        ("CHF 1'299.–", 1299, "CHF"), ("1\u202f299,5", 1299.5, None), ("12.345 €", 12345, "EUR"), ("19,-", 19, None),
        ("R$ 1.299,90", 1299.9, "BRL"), ("１２．５０", 12.5, None), ("١٢٫٩٩", 12.99, None), ("5 euro", 5, "EUR"),
        ("EUR12.99", 12.99, "EUR"), ("Kr. 1.299,00", 1299, None), ("from $5", 5, None), ("RM 12.90", 12.9, None),
        ("1.299", 1.299, None), ("1,299", 1299, None), ("0", 0, None), ("129 kr", 129, None), ("1200円", 1200, None),
    ],
)  # fmt: skip
def test_prices_of_tables(text: str, price: float, currency: str | None) -> None:
    assert read_price(text) == (price, currency)


@pytest.mark.parametrize(
    "text",
    ["N/A", "", "-", "$", "free", "ask us", "nan", "inf", "1e999", "12%", "SKU123", "5 pcs", "$12.99 - $15.99",
     "2 for $5", "12/31/2020", "12 99", "-5", "$-5", "(5.00)", "5.00-", "1.5 million", "9" * 400],
)  # fmt: skip
def test_what_is_no_price(text: str) -> None:
    assert read_price(text) is None


@pytest.mark.parametrize(
    ("text", "price", "currency"),
    [
        ("KWD 3.350", 3.35, "KWD"), ("3.350 KWD", 3.35, "KWD"), ("BHD 12.500", 12.5, "BHD"), ("0.750 JOD", 0.75, "JOD"),
        ("1,250.500 KWD", 1250.5, "KWD"), ("1.234,500 TND", 1234.5, "TND"), ("12,500 TND", 12.5, "TND"),
        ("LYD 7,250", 7.25, "LYD"), ("OMR 1,250", 1250, "OMR"), ("IQD 1.250.000", 1250000, "IQD"),
        ("IQD 25,000", 25000, "IQD"), ("KWD 12", 12, "KWD"), ("KWD 12.5", 12.5, "KWD"), ("د.ك 3.350", 3.35, "KWD"),
        ("٣٫٣٥٠ د.ك", 3.35, "KWD"), ("EUR 3.350", 3350, "EUR"), ("3.350 €", 3350, "EUR"),
    ],
)  # fmt: skip
def test_the_currency_tells_how_many_decimals_a_price_has(text: str, price: float, currency: str) -> None:
    assert (parse_price(text, by_machine=False), parse_currency(text)) == (price, currency)
    assert read_price(text) == (price, currency)


def test_a_currency_from_elsewhere_tells_it_as_well() -> None:
    assert parse_price("3.350", by_machine=False, currency="KWD") == 3.35
    assert parse_price("1,250.500", currency="OMR") == 1250.5
    assert parse_price("3.350", by_machine=False, currency="EUR") == 3350


@pytest.mark.parametrize(
    ("prices", "thousands"),
    [
        (["1.299", "12,99"], True),
        (["1.299,00 €", "12.345"], True),
        (["150.000", "75.000", "1.250.000", "900"], True),
        (["1.299", "12.99"], False),
        (["1.299", "12,99", "12.99"], False),
        (["1.299"], False),
        (["1,299", "2,450", "3,100"], False),
        (["12,99", "5"], False),
        ([], False),
    ],
)
def test_what_a_point_means(prices: list[str], thousands: bool) -> None:
    assert point_marks_thousands(prices) == thousands


def test_a_price_of_thousands() -> None:
    assert [read_price(text, by_machine=False) for text in ("1.299", "12.5", "1.299,50", "900")] == [
        (1299, None), (12.5, None), (1299.5, None), (900, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "currency"),
    [("US $12.99", "USD"), ("AU $5", "AUD"), ("5.00 CA $", "CAD"), ("R $ 9,90", "BRL"), ("$5", None)],
)
def test_a_sign_written_apart_from_its_country(text: str, currency: str | None) -> None:
    assert parse_currency(text) == currency
