"""For testing gradient rules with pytest: `pytest_plugins = "fnnet.verify.plugin"` in conftest.py adds a fixture and an option.

    def test_my_rule(check_gradient):
        check_gradient(my_rule, x, w, vary={"axis": (-1, 0)})       # fails with the report as its message

    pytest --gradients=thorough                                     # nightly; the default, quick, takes about a second per rule
"""

import pytest

from fnnet.verify.check import check


def pytest_addoption(parser):
    parser.getgroup("fnnet").addoption("--gradients", choices=("quick", "thorough"), default="quick",
                                       help="how much check_gradient checks: quick (the default) or thorough")


@pytest.fixture(scope="session")
def check_gradient(pytestconfig):
    """fnnet.verify.check, failing the test with its report; quick or thorough, as set by --gradients."""
    thorough = pytestconfig.getoption("gradients") == "thorough"

    def checked(f, *args, thorough=thorough, **run):
        __tracebackhide__ = True
        report = check(f, *args, thorough=thorough, **run)
        if not report.ok:
            pytest.fail(str(report), pytrace=False)
        return report
    return checked
