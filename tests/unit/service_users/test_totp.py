"""One-time codes, as RFC 6238 gives them and as clocks drift."""

from __future__ import annotations

import pytest

from service_users.accounts.totp import one_time_code, otpauth_uri, step_of

SECRET = b"12345678901234567890"


@pytest.mark.parametrize(
    ("now", "code"),
    # Appendix B, of which six digits are the last of the eight.
    [(1_234_567_890, "005924"), (1_111_111_109, "081804"), (1_111_111_111, "050471"), (2_000_000_000, "279037"),
     (20_000_000_000, "353130")],
)  # fmt: skip
def test_a_code_is_that_of_the_standard_and_good_a_step_before_and_after_its_own(now, code):
    assert one_time_code(SECRET, now // 30) == code
    begins = now // 30 * 30
    good = [at for at in (-31, -30, 0, 29, 59, 60) if step_of(SECRET, code, begins + at) is not None]
    assert good == [-30, 0, 29, 59]
    assert {step_of(SECRET, code, begins + at) for at in good} == {now // 30}


def test_what_an_app_reads_names_issuer_account_and_secret():
    assert otpauth_uri(SECRET, issuer="Site & works", account="anna+x@example.com") == (
        "otpauth://totp/Site%20%26%20works:anna%2Bx@example.com"
        "?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Site%20%26%20works"
    )
