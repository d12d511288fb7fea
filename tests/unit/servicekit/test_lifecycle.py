"""A duty: started once, stopped at any time, never dead in silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime

import psutil
import pytest

from servicekit.process.lifecycle import Duty, next_order, stop_orders
from tests.support.markdown import CHECKOUT
from tests.support.waiting import eventually

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LIMIT = 10.0


class Counting(Duty):
    def __init__(self, *, pause: float = 3600.0, dies_at: int | None = None, fault=RuntimeError) -> None:
        self.died = threading.Event()
        super().__init__("counting", pause=lambda: pause, on_death=self.died.set, clock=lambda: NOW)
        self.runs: list[datetime] = []
        self.ran = threading.Semaphore(0)
        self.threads: set[int] = set()
        self._dies_at = dies_at
        self._fault = fault

    def run_once(self, now: datetime) -> None:
        self.runs.append(now)
        self.threads.add(threading.get_ident())
        self.ran.release()
        if len(self.runs) == self._dies_at:
            raise self._fault("the duty's own fault")


@pytest.fixture
def duty():
    duty = Counting()
    yield duty
    duty.stop()


def test_a_duty_runs_at_once_with_the_clocks_time(duty):
    duty.start()
    assert duty.ran.acquire(timeout=LIMIT)
    duty.stop()
    assert duty.runs == [NOW]


def test_waking_ends_the_pause(duty):
    duty.start()
    assert duty.ran.acquire(timeout=LIMIT)
    duty.wake()
    assert duty.ran.acquire(timeout=LIMIT)


def test_a_wake_during_a_run_is_not_lost():
    duty = Counting()
    inside, go_on = threading.Event(), threading.Event()
    first_run = duty.run_once

    def slow_run(now: datetime) -> None:
        inside.set()
        assert go_on.wait(LIMIT)
        first_run(now)

    duty.run_once = slow_run
    duty.start()
    assert inside.wait(LIMIT)
    duty.wake()
    go_on.set()
    assert duty.ran.acquire(timeout=LIMIT)
    assert duty.ran.acquire(timeout=LIMIT)
    duty.stop()


def test_it_runs_again_after_each_pause():
    duty = Counting(pause=0.001)
    duty.start()
    for _ in range(5):
        assert duty.ran.acquire(timeout=LIMIT)
    duty.stop()
    assert not duty.died.is_set()


def test_stopping_before_the_start_keeps_it_from_ever_beginning(duty):
    duty.stop()
    duty.start()
    assert duty.stopping
    assert not duty.ran.acquire(blocking=False)


def test_stopping_twice_and_starting_twice_are_harmless(duty):
    duty.start()
    duty.start()
    assert duty.ran.acquire(timeout=LIMIT)
    duty.stop()
    duty.stop()
    assert len(duty.threads) == 1
    assert len(duty.runs) == 1


def test_stopping_ends_a_long_pause_and_the_thread(duty):
    duty.start()
    assert duty.ran.acquire(timeout=LIMIT)
    duty.stop(timeout=LIMIT)
    assert "counting" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("fault", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_duty_that_dies_says_so_once_and_runs_no_more(fault):
    duty = Counting(pause=0.001, dies_at=2, fault=fault)
    duty.start()
    assert duty.died.wait(LIMIT)
    duty.stop(timeout=LIMIT)
    assert len(duty.runs) == 2


def test_a_duty_may_stop_itself():
    duty = Counting()
    duty.run_once = lambda now: (duty.stop(), duty.ran.release())
    duty.start()
    assert duty.ran.acquire(timeout=LIMIT)
    duty.stop(timeout=LIMIT)
    assert not duty.died.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_sets_the_event(number):
    former = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        orders = stop_orders()
        assert orders.empty()
        os.kill(os.getpid(), number)
        next_order(orders)
        assert orders.empty()
    finally:
        for one, handler in former.items():
            signal.signal(one, handler)


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be():
    script = (
        "import resource\n"
        "from servicekit.process.lifecycle import allow_many_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 700))\n"
        "allow_many_files(600)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "allow_many_files(6000)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "allow_many_files(300)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.splitlines() == ["(600, 700)", "(700, 700)", "(700, 700)"]


def test_the_table_of_open_files_has_its_final_size_before_they_come():
    script = (
        "import os, resource\n"
        "from servicekit.process.lifecycle import grow_file_table\n"
        "def slots():\n"
        "    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('FDSize'))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))\n"
        "opened = len(os.listdir('/proc/self/fd'))\n"
        "print(slots() < 600)\n"
        "grow_file_table()\n"
        "room = slots()\n"
        "print(room >= 600, len(os.listdir('/proc/self/fd')) - opened)\n"
        "kept = [os.dup(0) for _ in range(590)]\n"
        "print(slots() == room)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.splitlines() == ["True", "True 0", "True"]


def test_a_process_that_may_open_nothing_more_goes_on():
    script = (
        "import os, resource\n"
        "from servicekit.process.lifecycle import grow_file_table\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "kept = []\n"
        "try:\n"
        "    while True:\n"
        "        kept.append(os.dup(0))\n"
        "except OSError:\n"
        "    pass\n"
        "grow_file_table()\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.splitlines() == ["went on"]


_BUSY = """
import threading, time
from servicekit.process.lifecycle import next_order, stop_orders

def busy():
    while True:
        sum(range(2000))
        time.sleep(0.0005)

orders = stop_orders()
for _ in range(10):
    threading.Thread(target=busy, daemon=True).start()
print("ready", flush=True)
next_order(orders)
"""


def test_a_process_that_was_stopped_hears_of_a_signal_whichever_thread_takes_it() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", _BUSY], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.send_signal(signal.SIGSTOP)
            eventually(lambda pid=process.pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        assert [process.wait(LIMIT) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
