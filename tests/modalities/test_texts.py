"""Texts as words: what is kept of them, whatever they hold."""

import time
import unicodedata

import numpy as np
import pytest

from atlas_ray.errors import ArtifactError
from atlas_ray.modalities.texts import FIELDS, MAX_CHARACTERS, PAD, UNKNOWN, WordCount, WordIndex, has_words, words_of


def test_a_title_keeps_its_words() -> None:
    assert words_of("Nike Men's AS-90 the Black T-shirt, 5% off", "title") == [
        "nike", "men", "s", "as", "90", "the", "black", "t", "shirt", "5", "off"
    ]  # fmt: skip


def test_a_description_loses_what_says_little() -> None:
    long = "x" * 31
    text = f"<p>The 100% cotton shirt &amp; a {long} collar</p><script>var a = 1</script><style>p {{}}</style> Wash"
    assert words_of(text, "description") == ["cotton", "shirt", "collar", "wash"]


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_texts_are_cut(field: str) -> None:
    assert len(words_of("blue " * 1000, field)) == FIELDS[field]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("साड़ी लाल", ["साड़ी", "लाल"]),  # vowel signs belong to their words
        ("Größe Übergang", ["größe", "übergang"]),
        ("قميص أزرق", ["قميص", "أزرق"]),
        ("红色连衣裙 XL", ["红", "色", "连", "衣", "裙", "xl"]),
        ("nike运动鞋2件", ["nike", "运", "动", "鞋", "2", "件"]),
        ("スーツ", ["ス", "ー", "ツ"]),
        ("👗 dress 💙", ["👗", "dress", "💙"]),
        ("size < 5 & > 3", ["size", "5", "3"]),
        ("\ud800 half\x00 a pair", ["half", "a", "pair"]),
        ("<b>bold</b><br>new&nbsp;line", ["bold", "new", "line"]),
        ("", []),
        (None, []),
        ("<<<<>>>>", []),
        ("Nike™ Air men´s 10㎝", ["nike", "air", "men", "s", "10cm"]),
        ("ทำ ນຳ", ["ท", "ำ", "ນ", "ຳ"]),
        ("\u0301 \ufe0f", []),  # marks without a letter
        ("<html><body>blue</body></html> shirt", ["blue", "shirt"]),
        ("size <L cotton <b>shirt</b>, blue", ["size", "l", "cotton", "shirt", "blue"]),
        ("<b>cotton <shirt blue", ["cotton", "shirt", "blue"]),
        ("<a title='x > y' rel=\"p\">shirt</a>", ["shirt"]),
        ('<p class="x>5 shirts</p>', ["5", "shirts"]),
        ("<!doctype html><!-- don't --><?php x ?>shirt<![endif]>", ["shirt"]),
        ("<SCRIPT>x</script >shirt<style>p", ["shirt"]),
        ('shirt <img alt="5" src="data:image/png;base64,AAAA', ["shirt"]),  # cut off
        ("&lt;p&gt;Cotton&lt;/p&gt; 5 &lt; 6", ["cotton", "5", "6"]),
        ("&amp;lt;p&amp;gt;Caf&amp;eacute;&amp;lt;/p&amp;gt;", ["café"]),
        ("AT&amp;T H&M &copy", ["at", "t", "h", "m", "©"]),
    ],
)
def test_any_language_and_any_markup(text: str | None, words: list[str]) -> None:
    assert words_of(text, "title") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café Größe साड़ी", ["café", "größe", "साड़ी"]),
        ("한복 ガウン", ["한복", "ガ", "ウ", "ン"]),
        ("NIKE 27", ["nike", "27"]),
    ],
)
def test_characters_are_the_same_however_they_are_written(text: str, words: list[str]) -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)
    expected = [unicodedata.normalize("NFKC", word) for word in words]
    for form in (text, wide, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
        assert words_of(form, "title") == expected
    assert words_of("ｶﾞｳﾝ", "title") == ["ガ", "ウ", "ン"]
    for form in (unicodedata.normalize("NFC", words[0]), unicodedata.normalize("NFD", words[0])):
        # Also the words of a model that was trained on texts of another form are found.
        assert WordIndex([form], "title").encode([text])[0, 0] == 2


@pytest.mark.parametrize(
    "text",
    ["<" * 1_000_000, "a" * 1_000_000, "<b>" * 400_000, "&amp;" * 300_000, "红" * 500_000, "<a =\"'" * 200_000,
     "<a \"'=<a '\"=" * 90_000, "<!--" * 300_000, "<script>" * 130_000, "<!" * 500_000, "&" + "amp;" * 300_000,
     "&#" + "9" * 1_000_000, "&#99999999" * 100_000, "\u0315\u0301" * 500_000, "\ufdfa" * 500_000, "&lt;a " * 200_000],
)  # fmt: skip
def test_a_megabyte_is_read_in_a_moment(text: str) -> None:
    started = time.monotonic()
    for field in FIELDS:
        assert len(words_of(text, field)) <= FIELDS[field]
    assert time.monotonic() - started < 2


def test_what_stands_far_behind_is_not_read() -> None:
    assert words_of("." * MAX_CHARACTERS + " blue", "title") == []


def test_words_become_numbers() -> None:
    index = WordIndex(["shirt", "blue"], "title")
    table = index.encode(["Blue shirt", "a blue blue dress", None, ""])
    assert table.shape == (4, FIELDS["title"])
    assert table.dtype == np.int32
    assert table[0, :3].tolist() == [3, 2, PAD]
    assert table[1, :5].tolist() == [UNKNOWN, 3, 3, UNKNOWN, PAD]
    assert not table[2:].any()
    assert index.encode([]).shape == (0, FIELDS["title"])


def test_the_most_common_words() -> None:
    count = WordCount("title")
    count.add(["blue blue shirt", "red shirt", None])
    count.add(["red dress"])
    assert count.most_common(9, min_count=2) == ["red", "shirt"]  # blue stands in one text
    assert count.most_common(1, min_count=1) == ["red"]


def test_counting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlas_ray.modalities.texts.MAX_COUNTED", 100)
    count = WordCount("title")
    for number in range(500):
        count.add([f"shirt word{number}"])
        assert len(count) <= 100
    assert count.most_common(1, min_count=2) == ["shirt"]


@pytest.mark.parametrize("words", [["a", "a"], ["a", 1]])
def test_words_are_different_strings(words: list[str]) -> None:
    with pytest.raises(ArtifactError, match="no list of different strings"):
        WordIndex(words, "title")


@pytest.mark.parametrize("field", ["title", "description"])
@pytest.mark.parametrize("text", [None, "", " ", "<p></p>", "<p>&nbsp;</p>", "-", "\u200b", "<br><!-- blue -->"])
def test_a_text_without_a_word_is_none(text: str | None, field: str) -> None:
    assert words_of(text, field) == []
    assert not has_words(text, field)


@pytest.mark.parametrize("field", ["title", "description"])
def test_a_word_counts_wherever_it_stands(field: str) -> None:
    picture = f'<img src="data:image/png;base64,{"A" * 60_000}">'
    for text in ("shirt", "<b>shirt</b>", f"{picture}shirt", "<![CDATA[shirt]]>", f"{'- ' * 200}shirt"):
        assert words_of(text, field) == ["shirt"]
        assert has_words(text, field)
    assert has_words("100% 2019", field) == (field == "title")
    assert has_words("the and of", field) == (field == "title")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<td width=5"> Apple </td><td width=6"> Berry </td>', ["apple", "berry"]),
        ('<p style=color:red">Cotton shirt</p><p style=color:blue">Wool coat</p>', ["cotton", "shirt", "wool", "coat"]),
        ("<a title=Men's>Boots</a> and <a title=Women's>Heels</a>", ["boots", "and", "heels"]),
        ('<img alt=32" TV>Samsung 32" screen > all', ["samsung", "32", "screen", "all"]),
        ("<a title=\"a > b\" href='c > d'>Shirt</a>", ["shirt"]),
    ],
)
def test_quotes_that_templates_forget_cost_no_word(text: str, words: list[str]) -> None:
    assert words_of(text, "title") == words
