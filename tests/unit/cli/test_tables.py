"""Text tables."""

from hypothesis import given
from hypothesis import strategies as st

from tortie.cli.tables import boxed, columns

CELL = st.text(alphabet="abc 0/", max_size=12)


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    assert columns(["NAME", "CIDR"], [["pool-with-a-name", "10.5.0.0/16"], ["b", "10.6.0.0/16"]]) == (
        "NAME               CIDR\npool-with-a-name   10.5.0.0/16\nb                  10.6.0.0/16\n"
    )


def test_columns_without_rows_are_the_headings() -> None:
    assert columns(["NAME", "CIDR"], []) == "NAME   CIDR\n"


def test_box_centres_headings_and_aligns_numbers_right() -> None:
    assert boxed(["GROUP", "N"], [["a", "100"], ["longer", "7"]], right=(1,)) == (
        "+--------+-----+\n"
        "| GROUP  |  N  |\n"
        "+--------+-----+\n"
        "| a      | 100 |\n"
        "| longer |   7 |\n"
        "+--------+-----+\n"
    )


def test_box_without_rows_has_no_empty_body() -> None:
    assert boxed(["A"], []) == "+---+\n| A |\n+---+\n"


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=6))
def test_all_lines_of_a_box_are_equally_long(rows: list[tuple[str, str, str]]) -> None:
    lines = boxed(("ONE", "TWO", "THREE"), rows, right=(2,)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 3 + len(rows) + (1 if rows else 0)
