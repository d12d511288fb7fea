"""One circuit in several processes: real ones, some of which are killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servicekit.circuits import CircuitSettings, SharedStates
from servicekit.circuits.shared_state import PATIENCE
from tests.support.circuit_processes import Agent, Meeting

# The children use nothing but circuits, and nobody uses those while they are forked.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

# Nothing ends by itself while a test looks.
PATIENT = CircuitSettings(open_seconds=60, window_seconds=60, lease_seconds=600)
# Where calls are counted one by one, a machine with too much to do must not make one of them go on without the lock.
ENDLESS = 20.0
BY_RATE = CircuitSettings(open_seconds=60, window_seconds=60, consecutive_failures=10_000)


class Crowd:
    """Starts processes that share a circuit."""

    def __init__(self) -> None:
        self.meeting = Meeting()
        self.agents: list[Agent] = []
        self._states: SharedStates | None = None

    def start(self, count: int, settings: CircuitSettings = PATIENT, *, patience: float = ENDLESS) -> list[Agent]:
        self._states = self._states or SharedStates(["users"], settings, patience=patience)
        fresh = [Agent(self._states, settings, self.meeting) for _ in range(count)]
        self.agents += fresh
        return fresh

    def run(self, agents: list[Agent], what: str, *args: object) -> list[int]:
        """Let all do the same at the same time."""
        for agent in agents:
            agent.begin(what, *args)
        self.meeting.begun.set()
        return [agent.end() for agent in agents]


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    for agent in crowd.agents:
        agent.stop()


class TestOpening:
    @pytest.mark.parametrize("processes", [1, 4, 8])
    def test_at_80_percent_failing_or_more_it_opens_for_all_at_exactly_the_minimum_of_calls(
        self, crowd: Crowd, processes: int
    ) -> None:
        agents = crowd.start(processes, BY_RATE)
        # A good call opens it only in a process that has seen a failure of late.
        for agent in agents:
            agent.do("fail")
        crowd.run(agents, "run", 240, frozenset({0, 1, 2, 3, 5, 6, 7, 8}))
        assert {agent.do("state") for agent in agents} == {"open"}
        assert {agent.do("calls") for agent in agents} == {20}
        assert sum(len(agent.do("transitions")) for agent in agents) == 1

    @pytest.mark.parametrize("processes", [1, 4, 8])
    def test_at_30_percent_failing_it_stays_closed(self, crowd: Crowd, processes: int) -> None:
        agents = crowd.start(processes, BY_RATE)
        assert crowd.run(agents, "run", 400, frozenset({0, 3, 6})) == [400] * processes
        assert {agent.do("state") for agent in agents} == {"closed"}
        assert {agent.do("calls") for agent in agents} == {400 * processes}

    def test_five_failures_in_a_row_open_it_whoever_saw_them(self, crowd: Crowd) -> None:
        agents = crowd.start(5)
        for agent in agents[:4]:
            agent.do("fail")
        assert agents[0].do("state") == "closed"
        agents[4].do("fail")
        assert [agent.do("admitted") for agent in agents] == [False] * 5

    def test_a_success_of_another_process_starts_the_row_anew(self, crowd: Crowd) -> None:
        first, second = crowd.start(2)
        first.do("fail", 4)
        second.do("succeed")
        first.do("fail", 4)
        assert first.do("state") == "closed"

    def test_good_calls_are_counted_exactly_though_without_a_lock(self, crowd: Crowd) -> None:
        agents = crowd.start(4)
        crowd.run(agents, "run", 5000, frozenset())
        assert {agent.do("calls") for agent in agents} == {20_000}

    def test_a_late_result_from_another_process_is_ignored(self, crowd: Crowd) -> None:
        first, second = crowd.start(2)
        assert second.do("admitted")
        first.do("fail", 5)
        second.do("report", "success")
        assert (first.do("state"), first.do("calls")) == ("open", 5)

    def test_every_process_says_the_same(self, crowd: Crowd) -> None:
        agents = crowd.start(4)
        agents[0].do("fail", 5)
        agents[1].do("probe", False)
        agents[2].do("probe", True)
        first, *others = [agent.do("snapshot") for agent in agents]
        assert first[1] == "half_open"
        assert others == [first] * 3


class TestHalfOpen:
    def test_over_eight_processes_two_trials_run_at_a_time(self, crowd: Crowd) -> None:
        agents = crowd.start(8)
        self._half_open(agents)
        crowd.run(agents, "run_trials", 200)
        assert crowd.meeting.turns.value >= 200
        assert crowd.meeting.most.value == 2

    def test_a_good_trial_closes_it_for_all_and_is_told_once(self, crowd: Crowd) -> None:
        agents = crowd.start(3)
        self._half_open(agents)
        assert [agent.do("admitted") for agent in agents] == [True, True, False]
        agents[1].do("report", "success")
        agents[0].do("report", "failure")
        assert [agent.do("state") for agent in agents] == ["closed"] * 3
        told = [one for agent in agents for one in agent.do("transitions")]
        assert sorted((one[4], one[3]) for one in told) == [
            (1, "consecutive_failures"),
            (2, "probe_ready"),
            (3, "trial_success"),
        ]

    def test_a_killed_process_gives_its_trials_back_at_once(self, crowd: Crowd) -> None:
        holder, other = crowd.start(2)
        self._half_open([holder])
        assert holder.do("admitted")
        assert holder.do("admitted")
        assert not other.do("admitted")
        holder.kill()
        assert other.do("admitted")

    def test_so_it_does_when_a_new_process_has_taken_its_place(self, crowd: Crowd) -> None:
        holder, other = crowd.start(2)
        self._half_open([holder])
        place = holder.do("place")
        assert holder.do("admitted")
        assert holder.do("admitted")
        holder.kill()
        (heir,) = crowd.start(1)
        assert heir.do("place") == place
        assert other.do("admitted")
        assert heir.do("admitted")
        assert not heir.do("admitted")

    @staticmethod
    def _half_open(agents: list[Agent]) -> None:
        agents[0].do("fail", 5)
        agents[0].do("probe", False)
        agents[0].do("probe", True)
        assert agents[-1].do("state") == "half_open"


class TestKilled:
    def test_what_a_killed_process_counted_stays(self, crowd: Crowd) -> None:
        lost, other = crowd.start(2, BY_RATE)
        lost.do("run_alone", 15)
        lost.kill()
        (heir,) = crowd.start(1, BY_RATE)
        assert heir.do("calls") == 40
        heir.do("fail", 15)
        assert other.do("state") == "closed"  # 15 of 55
        other.do("fail", 25)
        assert heir.do("state") == "open"  # 40 of 80

    def test_killed_in_the_middle_of_a_change_it_leaves_the_state_as_it_was(self, crowd: Crowd) -> None:
        lost, other = crowd.start(2)
        other.do("fail", 4)
        before = other.do("snapshot")
        lost.do("half_commit")
        lost.kill()
        assert other.do("snapshot") == before
        other.do("fail")
        assert other.do("state") == "open"

    def test_a_lock_does_not_outlive_its_holder(self, crowd: Crowd) -> None:
        holder, other = crowd.start(2)
        holder.do("enter")
        other.begin("fail", 5)
        holder.kill()
        other.end()
        assert other.do("state") == "open"

    def test_a_forced_state_survives_who_forced_it(self, crowd: Crowd) -> None:
        admin, other = crowd.start(2)
        admin.do("force", "open")
        assert not other.do("admitted")
        admin.kill()
        (heir,) = crowd.start(1)
        assert not heir.do("admitted")
        heir.do("force", "auto")
        assert other.do("admitted")

    def test_another_leads_when_the_leader_is_killed(self, crowd: Crowd) -> None:
        first, second, third = crowd.start(3)
        assert [agent.do("elected") for agent in (first, second, third, first)] == [True, False, False, True]
        first.kill()
        assert [agent.do("elected") for agent in (third, second)] == [True, False]

    def test_only_the_living_are_listed(self, crowd: Crowd) -> None:
        first, second = crowd.start(2)
        assert set(second.do("living")) == {first.process.pid, second.process.pid}
        first.kill()
        assert second.do("living") == [second.process.pid]


class TestFrozen:
    """A process that does not run has the lock: the others go on, and put right what they can when it goes on."""

    @pytest.fixture
    def two(self, crowd: Crowd) -> list[Agent]:
        return crowd.start(2, patience=PATIENCE)

    @staticmethod
    def freeze(frozen: Agent) -> None:
        frozen.do("enter")
        frozen.freeze()

    @staticmethod
    def thaw(frozen: Agent) -> None:
        frozen.thaw()
        frozen.do("leave")

    def test_a_closed_circuit_admits_and_what_failed_meanwhile_is_dropped(self, two: list[Agent]) -> None:
        frozen, other = two
        self.freeze(frozen)
        other.do("fail", 7)
        assert (other.do("state"), other.do("calls"), other.do("uncounted")) == ("closed", 0, 7)
        assert other.do("is_held_up")
        self.thaw(frozen)
        other.do("fail", 5)
        assert (other.do("state"), other.do("calls"), other.do("is_held_up")) == ("open", 5, False)

    def test_good_calls_are_counted_without_it(self, two: list[Agent]) -> None:
        frozen, other = two
        other.do("run_alone", 0)
        self.freeze(frozen)
        other.do("succeed", 10)
        assert other.do("calls") + other.do("uncounted") == 35

    def test_an_open_circuit_refuses_and_no_trial_begins(self, two: list[Agent]) -> None:
        frozen, other = two
        other.do("fail", 5)
        self.freeze(frozen)
        assert not other.do("admitted")
        self.thaw(frozen)
        other.do("probe", False)
        other.do("probe", True)
        self.freeze(frozen)
        assert other.do("state") == "half_open"
        assert not other.do("admitted")
        self.thaw(frozen)
        assert other.do("admitted")

    def test_it_cannot_be_forced_and_says_so(self, two: list[Agent]) -> None:
        frozen, other = two
        self.freeze(frozen)
        assert other.do("force", "open") is False
        self.thaw(frozen)
        assert other.do("state") == "closed"
        assert other.do("force", "open") is True

    def test_a_change_made_just_before_is_seen(self, two: list[Agent]) -> None:
        frozen, other = two
        frozen.do("fail", 5)
        self.freeze(frozen)
        assert (other.do("state"), other.do("admitted")) == ("open", False)

    def test_half_a_change_is_not_seen(self, two: list[Agent]) -> None:
        frozen, other = two
        before = other.do("snapshot")
        frozen.do("half_commit")
        frozen.freeze()
        assert other.do("snapshot")[:-1] == before[:-1]

    def test_when_it_is_killed_the_others_have_the_lock(self, two: list[Agent]) -> None:
        frozen, other = two
        self.freeze(frozen)
        other.do("fail", 7)
        frozen.kill()
        other.do("fail", 5)
        assert (other.do("state"), other.do("is_held_up")) == ("open", False)

    def test_a_process_that_begins_meanwhile_takes_part(self, crowd: Crowd, two: list[Agent]) -> None:
        frozen, other = two
        self.freeze(frozen)
        (fresh,) = crowd.start(1)
        assert fresh.do("admitted")
        assert fresh.process.pid in other.do("living")
        self.thaw(frozen)
        fresh.do("fail", 5)
        assert other.do("state") == "open"
