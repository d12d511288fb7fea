"""Errors of the users service.

NotFound  ⊃ UserNotFound, SessionNotFound, ApiKeyNotFound, FactorNotFound, IdentityNotFound, MailNotFound
Conflict  ⊃ EmailTaken, AuthIsOff, TooManyApiKeys, TooManyFactors, LastAdministrator, IdentityTaken, NoProvider
Unauthorized ⊃ InvalidCredential
Forbidden ⊃ LoginNotFresh, SignInRefused, UnknownIdentity
TooManyRequests ⊃ TooManyAttempts
Unavailable ⊃ TooManyPasswords, ProviderUnavailable
"""

from __future__ import annotations

from servicekit.wire.errors import Conflict, FieldError, Forbidden, NotFound, TooManyRequests, Unauthorized, Unavailable


class UserNotFound(NotFound):
    """There is no user with this id."""

    code = "user_not_found"


class EmailTaken(Conflict):
    """Another user already has this e-mail address."""

    code = "email_taken"

    def __init__(self) -> None:
        super().__init__(details=[FieldError("email", "is taken, whatever the case of its letters")])


class TooManyPasswords(Unavailable):
    """Too many passwords wait to be hashed; try again.

    Half of the service's threads hash passwords or wait for it: more cores, more processes of the users service.
    """

    code = "too_many_passwords"

    def __init__(self) -> None:
        super().__init__(retry_after=1)


class SessionNotFound(NotFound):
    """You have no session with this id."""

    code = "session_not_found"


class ApiKeyNotFound(NotFound):
    """There is no such API key, or it is not yours."""

    code = "api_key_not_found"


class TooManyApiKeys(Conflict):
    """You have 50 API keys: delete one first."""

    code = "too_many_api_keys"


class FactorNotFound(NotFound):
    """You have no second factor with this id, or none that waits to be confirmed.

    It waits for ten minutes, and until another one is begun.
    """

    code = "factor_not_found"


class TooManyFactors(Conflict):
    """You have 5 second factors: remove one first."""

    code = "too_many_factors"


class LastAdministrator(Conflict):
    """Nobody else could administer the system: make another administrator first.

    `./scripts/create-admin` does without one.
    """

    code = "last_administrator"


class NoProvider(Conflict):
    """There is no sign-in provider here: log in by password.

    The users service runs without OIDC_ISSUER.
    """

    code = "no_provider"


class ProviderUnavailable(Unavailable):
    """The sign-in provider cannot be reached, or its answers cannot be used; try again, or log in by password.

    The log of the users service says what is wrong: `provider_answer_refused`.
    """

    code = "provider_unavailable"

    def __init__(self, *, retry_after: float = 5) -> None:
        super().__init__(retry_after=retry_after)


class IdentityNotFound(NotFound):
    """You have linked no identity with this id."""

    code = "identity_not_found"


class MailNotFound(NotFound):
    """There is no such message any more: its link was used, has expired, or its user may not log in."""

    code = "mail_not_found"


class IdentityTaken(Conflict):
    """This identity is linked to another user, or you to another identity there: remove that link first."""

    code = "identity_taken"


class UnknownIdentity(Forbidden):
    """Nobody here is linked to this identity.

    Log in by password and link it, or ask an administrator for an invitation. An equal e-mail address links nobody.
    """

    code = "unknown_identity"


class SignInRefused(Forbidden):
    """The sign-in provider did not let you in for this: begin again."""

    code = "sign_in_refused"


class LoginNotFresh(Forbidden):
    """Log in again for this: your login is more than five minutes old."""

    code = "login_not_fresh"


class AuthIsOff(Conflict):
    """Nobody logs in here: everybody is an administrator.

    The processes run with AUTH=off.
    """

    code = "auth_is_off"


class InvalidCredential(Unauthorized):
    """The password, code, token or key is not valid; log in.

    It is wrong or has ended, its account is disabled, or there is no such account: nobody is told which.
    """

    code = "invalid_credential"


class TooManyAttempts(TooManyRequests):
    """Too many wrong passwords or codes for this account; wait.

    `Retry-After` says for how long, at most a minute. Whoever logged in from a device before need not wait there.
    """

    code = "too_many_attempts"

    def __init__(self, seconds: int) -> None:
        super().__init__(headers={"Retry-After": str(seconds)})
