"""Stores and runs' files under faults, in short: `python -m tests.faults` tries them all."""

import operator

import pytest

from tests.faults import parts, run_files, shim
from tests.faults.cases import Bench
from tests.faults.parts import Only
from tests.faults.shim import Mode

missing = shim.missing()
needs_shim = pytest.mark.skipif(missing is not None, reason=missing or "")
# When one of several arrays cannot be read, Orbax closes its event loop while TensorStore is still
# reading the others, whose threads then complain to nobody in particular.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NAME = operator.attrgetter("name")
SEED = parts.seed_given()
RUN_FILES = Only(tuple(run_files.OPERATIONS))


def assert_none_failed(part, outcomes):
    """Fail with the first bad case, and the command that tries it again."""
    tried = 0
    for outcome in outcomes:
        tried += 1
        again = parts.again(part, outcome, SEED)
        assert outcome.failure is None, f"{outcome.case}: {outcome.failure}\nagain: {again}"
    assert tried


@pytest.fixture(scope="module")
def bench():
    with Bench() as started:
        yield started


@pytest.fixture(scope="module")
def killing_bench():
    with Bench() as started:
        yield started


@needs_shim
@pytest.mark.parametrize(("mode", "count"), [(Mode.FAIL, 4), (Mode.FULL, 1), (Mode.GONE, 1)])
def test_a_failing_disk_leaves_the_old_state_or_the_new_and_says_so(bench, mode, count):
    outcomes = parts.some_operations(bench, mode, count, SEED)
    assert_none_failed(mode.name.lower(), outcomes)


@needs_shim
def test_a_file_that_may_not_grow_is_an_error_before_save_returns(bench):
    assert_none_failed("file size limit", parts.full_disks(bench, limits=(0, 150, 3_000)))


@needs_shim
@pytest.mark.parametrize("mode", parts.ERRORS, ids=NAME)
def test_a_failing_disk_leaves_a_runs_file_as_it_was_or_new_and_says_so(bench, mode):
    assert_none_failed(mode.name.lower(), parts.every_operation(bench, mode, RUN_FILES))


@needs_shim
@pytest.mark.parametrize("mode", parts.KILLS, ids=NAME)
def test_a_killed_run_leaves_its_file_as_it_was_or_new(killing_bench, mode):
    assert_none_failed(mode.name.lower(), parts.every_operation(killing_bench, mode, RUN_FILES))


@needs_shim
def test_a_killed_writer_leaves_the_old_state_or_the_new(killing_bench):
    for mode in parts.KILLS:
        assert_none_failed(mode.name.lower(), parts.some_operations(killing_bench, mode, 1, SEED))


def test_no_damage_is_silent():
    assert_none_failed("damage", parts.damages(SEED, count=60))


def test_no_damage_to_a_run_ends_otherwise_unsaid():
    outcomes = parts.damages_of_runs(SEED, methods=("mas",), count=6)
    assert_none_failed("damage of runs", outcomes)
