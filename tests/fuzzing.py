"""Whatever a file or a parameter holds, a reader of this project says one sentence about it or takes it.

Every test of test_fuzz_*.py makes its cases with hypothesis: a few in the daily run, hundreds with `make torture`. In
each the call ends in a StudyError of one line or in success; nothing else is raised, no file appears or goes, and no
memory is taken beyond a limit set for the process.
"""

import resource

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pcamlib.core.errors import StudyError

HEADROOM = 1 << 30  # bytes a call may take: all of it for what a few kB claim would be far more

few_and_many = pytest.mark.parametrize("cases", [8, pytest.param(250, marks=pytest.mark.torture)])


def fuzz(cases, strategy, body):
    """Run `body` on `cases` examples of `strategy`."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    calm = settings(
        max_examples=cases, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    calm(given(strategy)(body))()


@pytest.fixture
def outcome():
    """outcome(call, folder) -> "taken" or "refused", after checking what this page promises."""
    limit = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

    def files(folder):
        return sorted((p.relative_to(folder).as_posix(), p.is_file() and p.stat().st_size) for p in folder.rglob("*"))

    def check(call, folder):
        before = files(folder)
        resource.setrlimit(resource.RLIMIT_AS, (in_use + HEADROOM, limit[1]))
        try:
            call()
            result = "taken"
        except StudyError as error:
            text = str(error)
            assert "\n" not in text and 20 < len(text) < 1200, text
            assert "MemoryError" not in text and "allocate" not in text, text  # taken, but not given
            result = "refused"
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
        if result == "refused":
            assert files(folder) == before
        return result

    return check


def damage():
    """How bytes are damaged: ("cut", where), ("flip", where, mask, how many), ("zero", where, how many), ("more",
    what)."""
    where = st.one_of(st.integers(0, 2500), st.integers(0, 10**6))
    return st.one_of(
        st.tuples(st.just("cut"), where, st.just(0), st.just(0)),
        st.tuples(st.just("flip"), where, st.integers(1, 255), st.integers(1, 8)),
        st.tuples(st.just("zero"), where, st.just(0), st.integers(1, 600)),
        st.tuples(st.just("ones"), where, st.just(255), st.integers(1, 16)),
        st.tuples(st.just("more"), where, st.integers(0, 255), st.integers(1, 4000)),
    )


def damaged(whole, how, where, value, count):
    """`whole` bytes, damaged."""
    where %= len(whole) + 1
    changed = bytearray(whole)
    if how == "cut":
        return whole[:where]
    if how == "more":
        return whole + bytes([value]) * count
    for i in range(where, min(where + count, len(whole))):
        changed[i] = changed[i] ^ value if how == "flip" else value
    return bytes(changed)
