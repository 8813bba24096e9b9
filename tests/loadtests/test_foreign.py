"""The page of other instruments: medians and the two ratios."""

from loadtests.foreign import LOADS, foreign_markdown
from tests.loadtests.pages import MACHINE, cells


def test_the_page_holds_medians_and_ratios_of_each_instrument() -> None:
    stock, ours, both = LOADS
    rates = {
        "ours": {stock: [100.0, 90.0, 300.0], ours: [110.0], both: [99.0]},
        "other": {stock: [50.0], ours: [40.0], both: [30.0]},
    }
    page = foreign_markdown(rates, 3, MACHINE)
    rows = [cells(line) for line in page.splitlines() if line.startswith("|")]
    assert ["ours", "100.0", "110.0", "99.0", "1.100", "0.900"] in rows
    assert ["other", "50.0", "40.0", "30.0", "0.800", "0.750"] in rows
    assert "medians of 3 rounds" in page
    assert "order the three differently" in page
    assert "order the three alike" in foreign_markdown({"ours": rates["ours"]}, 3, MACHINE)
