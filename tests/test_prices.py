import pytest

from atlas_ray.prices import read_price


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
