"""Whom a node obeys of several controllers."""

from nodes.authority import Authority

ONE, OTHER, STRANGER = (bytes((10, 1, 253, i)) for i in (1, 2, 9))


def test_the_controller_of_the_highest_term_is_obeyed_and_no_earlier_one_any_more() -> None:
    authority = Authority(ONE, OTHER)
    assert authority.obeys(ONE, 3) and authority.leader == ONE
    assert authority.obeys(OTHER, 4) and (authority.leader, authority.term) == (OTHER, 4)
    assert not authority.obeys(ONE, 3) and authority.leader == OTHER
    assert authority.obeys(OTHER, 4)


def test_a_term_belongs_to_who_used_it_first() -> None:
    authority = Authority(ONE, OTHER)
    assert authority.obeys(OTHER, 1) and not authority.obeys(ONE, 1)
    assert authority.obeys(ONE, 2)


def test_a_stranger_is_not_obeyed_whatever_its_term_and_changes_nothing() -> None:
    authority = Authority(ONE, OTHER)
    assert not authority.obeys(STRANGER, 99)
    assert authority.term == 0 and authority.leader == ONE
