import pytest

from atlas_ray.errors import ConfigError, TaxonomyError
from atlas_ray.formats.text_files import Utf8Stream, check_encoding, decode, read_lines, split_lines

WORDS = {
    "cp1252": ["Café", "Women’s 12,99 €", "Größe XL", "Camisa de niño", "ÉTÉ", "Nike™", "Wash at 30°C", "½ – pipe"],
    "cp1250": ["Łóżko dziecięce", "Ženské šaty s květinami"],
    "cp1251": ["Платье женское летнее", "Ботинки"],
    "cp1253": ["Γυναικείο φόρεμα", "Παιδικά παπούτσια"],
    "cp1254": ["Kadın ayakkabısı, şık"],
    "cp932": ["レディース ワンピース", "赤い靴 女の子"],
    "gb18030": ["女士连衣裙 夏季", "红色鞋子 儿童服装"],
    "cp949": ["여성 원피스", "빨간 신발"],
}


def lines(data: bytes, encoding: str = "auto", block: int = 5) -> tuple[list[str], Utf8Stream]:
    stream = Utf8Stream([data[at : at + block] for at in range(0, len(data), block)], encoding)
    return [text for _, text, error in read_lines(stream) if error is None], stream


@pytest.mark.parametrize(("encoding", "word"), [(name, word) for name, words in WORDS.items() for word in words])
def test_older_encodings_are_assumed(encoding: str, word: str) -> None:
    text = f"id,title\n1,plain\n2,{word}\n3,plain\n"
    found, stream = lines(text.encode(encoding))
    assert "".join(found) == text
    assert (stream.encoding, stream.assumed) == (encoding, True)
    assert lines(text.encode())[1].assumed is False
    assert "".join(lines(text.encode())[0]) == text


def test_latin_1_is_a_part_of_what_is_assumed() -> None:
    assert lines("1,Señora Müller\n".encode("latin-1"))[0] == ["1,Señora Müller\n"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-8"])
def test_unicode_of_any_width(encoding: str) -> None:
    text = "id,title\r\n1,Größe 女\r2,b\n" + "3,plain words of a shop\n" * 20
    found, stream = lines(text.encode(encoding), block=4096)
    assert "".join(found) == text
    assert stream.assumed is (encoding in ("utf-16-le", "utf-16-be"))


def test_an_encoding_that_is_named() -> None:
    text = "1,Żółta łódź\n"
    found, stream = lines(text.encode("cp1250"), "windows-1250", block=2)
    assert found == [text]
    assert (stream.encoding_name, stream.assumed) == ("Windows-1250", False)
    assert lines("é\n".encode("latin-1"), "utf-8")[0] == []
    with pytest.raises(ConfigError, match="--encoding 'klingon' is unknown"):
        check_encoding("klingon")


def test_damage_is_not_taken_for_another_encoding() -> None:
    for data in (b"caf\xc3\xa9\nb\xffd\nfin\xc3\xa9\n", b"a\n\xff\nb\n"):
        found, stream = lines(data, block=1 << 20)
        assert len(found) == 2
        assert (stream.encoding, stream.assumed) == ("utf-8", False)


def test_two_encodings_in_one_file() -> None:
    data = "1,Crème\n2,Größe\n".encode("cp1252") + "3,Café\n".encode()
    assert lines(data, block=1 << 20)[0] == ["1,Crème\n", "2,Größe\n", "3,Café\n"]


def test_bytes_that_an_encoding_does_not_have() -> None:
    stream = Utf8Stream([b"1,Gr\xf6\xdfe\n2,caf\xe9\n3,\x81\n4,x\n"])
    assert [error.message if error else text for _, text, error in read_lines(stream)] == [
        "1,Größe\n", "2,café\n", "byte 3 of the line is not Windows-1252", "4,x\n"
    ]  # fmt: skip


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_lines_end_at_line_ends_alone(block: int) -> None:
    text = "a\u2028b\nc\x0bd\r\ne\x85f\rg\x0ch\x1ci\n\nj"
    expected = ["a\u2028b\n", "c\x0bd\r\n", "e\x85f\r", "g\x0ch\x1ci\n", "\n", "j"]
    assert lines(text.encode(), block=block)[0] == expected
    assert split_lines(text) == [line.rstrip("\r\n") for line in expected]
    assert split_lines("") == []
    assert split_lines("a\n") == ["a"]


def test_a_whole_text() -> None:
    assert decode("\ufeffCafé".encode("utf-16"), "t.txt", TaxonomyError) == "\ufeffCafé"
    assert decode("Café > Größe".encode("latin-1"), "t.txt", TaxonomyError) == "Café > Größe"
    with pytest.raises(TaxonomyError, match=r"t\.txt, line 2: not UTF-8"):
        decode(b"caf\xc3\xa9\n\xff\xff\n", "t.txt", TaxonomyError)
    with pytest.raises(TaxonomyError, match=r"t\.xlsx: a spreadsheet or zip file; save its sheet"):
        decode(b"PK\x03\x04rest", "t.xlsx", TaxonomyError)
