"""A process that is really stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rejectd.cameras.standstill import Standstill

STOPPED = """
import sys, time
from rejectd.cameras.standstill import Standstill
standstill = Standstill()
began_s = time.monotonic()
print("ready", flush=True)
sys.stdin.readline()
print(standstill.began_s(began_s) - began_s, flush=True)
"""


def test_a_stopped_process_knows_since_when_it_stood_still_before_its_first_picture():
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        process.stdin.write("a picture that waits in the queue\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        os.kill(process.pid, signal.SIGCONT)
        assert float(process.stdout.readline()) < 1.0


def test_a_process_that_runs_does_not_stand_still():
    standstill = Standstill()
    began_s = time.monotonic()
    assert standstill.began_s(began_s) is None
    standstill.end()
    standstill.end()
