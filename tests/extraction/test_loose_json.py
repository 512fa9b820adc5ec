import json
import time

import pytest

from atlas_ray.extraction.loose_json import load_values

PIPE = {"@type": "Product", "name": 'Pipe 5" steel', "sizes": ['5"', '8"-long'], "offers": {"price": 5}}
TEXT = json.dumps(PIPE)
RAW = TEXT.replace('\\"', '"')


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        RAW,
        RAW.replace(", ", ",\n  ").replace("}", "\n}"),
        RAW.replace(", ", ","),
        f"<!--\n{RAW}\n-->",
        f"//<![CDATA[\n{RAW}\n//]]>",
        f"<![CDATA[{RAW}]]>",
        RAW.replace('"offers"', '/* what it "costs" */ "offers"'),
        RAW.replace('"offers"', '// what it "costs"\n"offers"'),
        RAW.replace("}}", "},\n}").replace('"]', '", ]'),
        RAW.replace("], ", "]\n, "),
        RAW.replace('", "name', '"\n "name'),  # a comma left out
        TEXT.replace('"', "&quot;").replace("\\&quot;", "\\u0022"),
        RAW.replace(", ", ",, "),
        RAW[:-1],  # the last bracket left out
        RAW + ";",
        "\n " + RAW,
    ],
)
def test_the_same_value_in_many_spellings(text: str) -> None:
    assert load_values(text) == [PIPE]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (r'{"name": "Men\'s shoe", "sku": 7}', "Men's shoe"),
        (r'{"name": "50\% wool \& silk", "sku": 7}', "50% wool & silk"),
        ('{"name": "The "best" shoe, "really"", "sku": 7}', 'The "best" shoe, "really"'),
        ('{"name": ""Best"", "sku": 7}', '"Best"'),
        ('{"name": "24", black", "sku": 7}', '24", black'),
        ('{"name": "24",\n black",\n"sku": 7}', '24",\n black'),
        ('{"name": "a: "b": c", "sku": 7}', 'a: "b": c'),
        ('{"name": "", "sku": 7,}', ""),
        ('{"name": "tab\there\nand there", "sku": 7,}', "tab\there\nand there"),
        ('{"name": "see http://x.example/a//b /* no */", "sku": 7,}', "see http://x.example/a//b /* no */"),
        ('{"name": "ends in 5"" , "sku": 7}', 'ends in 5"'),
        ('{"name": "a\\\nb", "sku": 7}', "a\nb"),
    ],
)
def test_a_text_keeps_its_signs(text: str, name: str) -> None:
    assert load_values(text) == [{"name": name, "sku": 7}]


def test_several_values_of_which_one_is_broken() -> None:
    assert load_values('{"a": 1}\n{"b": "5"" }') == [{"a": 1}, {"b": '5"'}]
    assert load_values('{"a": 1} x') == [{"a": 1}]
    assert load_values('[{"a": "5""}, {"b": 2}]') == [[{"a": '5"'}, {"b": 2}]]


@pytest.mark.parametrize("text", ["", "window.x = y", "<p>", "-->", "{", "{not json"])
def test_nothing_is_made_of_what_is_no_json(text: str) -> None:
    assert load_values(text) in ([], [{}])


@pytest.mark.long
@pytest.mark.parametrize(
    "piece", ['"', '\\"', "/*", "<!--", '{"a":', '"a",', '" ', "[", "\\", ",", '{"a": "b" "', "//", "-", "]]>"]
)
def test_much_of_the_same_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    load_values('{"a": x' + piece * (300_000 // len(piece)))
    load_values('{"a": "x' + piece * (300_000 // len(piece)))
    assert time.process_time() - started < 5


def test_words_and_numbers_that_json_does_not_know() -> None:
    text = '{"a": undefined, "b": None, "c": [True, False], "d": 00123, "e": [01.50, 0.5, 0, 10], "f": "None 007"}'
    values = {"a": None, "b": None, "c": [True, False], "d": "00123", "e": ["01.50", 0.5, 0, 10], "f": "None 007"}
    assert load_values(text) == [values]


MUG = {"name": "Blue mug", "offers": {"price": "9,99"}, "sku": "Z9"}


@pytest.mark.parametrize(
    "text",
    [
        "{'name': 'Blue mug', 'offers': {'price': '9,99'}, 'sku': 'Z9'}",
        '{name: "Blue mug", offers: {price: "9,99"}, sku: "Z9"}',
        '{"name": "Blue mug", "offers": {"price": 9,99}, "sku": "Z9"}',
        '{"name": "Blue mug" "offers": {"price": "9,99"} "sku": "Z9"}',
        '{"name": "Blue mug", "offers": {"price": "9,99"}}, "sku": "Z9"}',  # closed too early
        '{"name": "Blue mug", "offers": {"price": "9,99"}, "sku": "Z9"]}',
        '{"name": "Blue mug", "offers": {"price": "9,99"}, "sku": Z9}',
        '{"name": "Blue mug", "offers": {"price": "9,99"}, "sku": Z9"}',
        '{{"name": "Blue mug", "offers": {"price": "9,99"}, "sku": "Z9"}}',
        r"{\"name\": \"Blue mug\", \"offers\": {\"price\": \"9,99\"}, \"sku\": \"Z9\"}",
        json.dumps(json.dumps(MUG)),
    ],
)
def test_signs_that_are_missing_wrong_or_too_many(text: str) -> None:
    assert load_values(text) == [MUG]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": , "b": 1}', {"a": None, "b": 1}),
        ('{"a": +1.5, "b": 9.99 EUR}', {"a": "+1.5", "b": "9.99 EUR"}),
        ('{"a": Liquid error: x , "b": 1}', {"a": "Liquid error: x", "b": 1}),
        ('{"a": [{"x": 1}, {"y": 2}, "b": 1}', {"a": [{"x": 1}, {"y": 2}], "b": 1}),
        ('{"a": [{"x": 1], "b": 1}', {"a": [{"x": 1}], "b": 1}),
        ('{"a": "8,\n"b": 1}', {"a": "8", "b": 1}),
        ('{"a": 12 // twelve\n, "b": 1}', {"a": 12, "b": 1}),
        ('{"a": "x {"y"} z", "b": 1}', {"a": 'x {"y"} z', "b": 1}),
        ("{'a': 'the \"best\" man\\'s', 'b': 1}", {"a": 'the "best" man\'s', "b": 1}),
    ],
)
def test_values_beside_broken_ones_are_read(text: str, value: object) -> None:
    assert load_values(text) == [value]


@pytest.mark.long
@pytest.mark.parametrize(
    "piece", ["{} ", "1,1", "a:", "a ", "}],", "[{]", "'", "'a':", '",' + " " * 99, "\n", ",\n", "0"]
)
def test_much_of_what_is_repaired_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    for start in ("{} {", '{"a": ', '{"a": "x', "{'a': 'x", '{"a": ['):
        load_values(start + piece * (200_000 // len(piece)))
    assert time.process_time() - started < 8
