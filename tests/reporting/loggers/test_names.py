import posixpath
import re

from hypothesis import given
from hypothesis import strategies as st

from stagewise.reporting.loggers.names import plain_name


def test_pairs_read_well_and_what_is_allowed_stays():
    assert plain_name("influence/within/cats~dogs") == "influence/within/cats - dogs"
    assert plain_name("00_overview") == "00_overview"
    assert plain_name("influence/matrix/within") == "influence/matrix/within"


def test_tags_that_lightning_would_make_one_stay_two():
    # Lightning's MLFlowLogger drops characters: both would be `influence/within/abc`.
    assert plain_name("influence/within/a~bc") != plain_name("influence/within/ab~c")
    assert plain_name("a - b~c") != plain_name("a~b - c")
    assert plain_name("llc/ä") != plain_name("llc/ö")
    assert plain_name("llc/a:b") != plain_name("llc/a_b")


@given(st.text(max_size=20) | st.text("./~ \\", max_size=8))
def test_no_name_leads_out_of_the_folder_or_has_other_characters(tag):
    name = plain_name(tag)
    assert re.fullmatch(r"[a-zA-Z0-9_./ -]+", name)
    assert posixpath.normpath(name) == name
    assert not name.startswith("/")
    assert ".." not in name.split("/")


@given(st.lists(st.text("a~-: /_", max_size=6), unique=True, max_size=30))
def test_different_tags_have_different_names(tags):
    assert len({plain_name(tag) for tag in tags}) == len(tags)
