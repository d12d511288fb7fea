"""The system keeps what its OpenAPI document promises, whatever is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SEED = "20261121"
SECONDS = 40


def test_generated_requests_meet_no_5xx_and_no_answer_that_breaks_its_schema(system, tmp_path):
    done = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            "run",
            f"{system.url}/openapi.json",
            "--phases=examples,coverage,fuzzing,stateful",
            "--max-examples=20",
            f"--max-time={SECONDS}",
            f"--seed={SEED}",
            "--generation-database=none",
            "--continue-on-failure",
            "--no-color",
            # A schema cannot say that a user must exist or that two fields agree, so a valid body may be a 400;
            # and DELETE of a task cancels it: the record stays.
            "--exclude-checks=positive_data_acceptance,use_after_free",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:]
    assert "Server error" not in done.stdout
