"""The tables of users and their accounts. Every constraint has a name, so that its violation becomes a domain error."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.database.trigrams import define_trigrams
from servicekit.events.inbox import define_inbox
from servicekit.events.outbox import define_outbox
from servicekit.web.idempotency import define_idempotency_keys


class Base(DeclarativeBase):
    """Holds this service's metadata."""

    metadata = MetaData()


define_outbox(Base.metadata)
define_inbox(Base.metadata)
define_idempotency_keys(Base.metadata)
define_trigrams(Base.metadata, "name_key", "email_key")


class User(Base):
    """One person."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    #: The address as it is compared; see servicekit.wire.caseless.
    email_key: Mapped[str] = mapped_column(Text(collation="C"))
    name: Mapped[str] = mapped_column(Text)
    #: The name as it is searched and sorted. Collation C is the same on every server, and of every version.
    name_key: Mapped[str] = mapped_column(Text(collation="C"))
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    password_hash: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    disabled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    email_verified_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: Rises whenever what was issued before must end: with roles, password and disabling.
    auth_epoch: Mapped[int] = mapped_column(Integer, server_default="0")
    #: Whether an administrator has set the password, and knows it.
    must_change_password: Mapped[bool] = mapped_column(Boolean, server_default="false")

    __table_args__ = (
        UniqueConstraint("email_key", name="uq_users_email_key"),
        CheckConstraint("char_length(email) BETWEEN 3 AND 254", name="ck_users_email_length"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_users_name_length"),
        CheckConstraint("cardinality(roles) BETWEEN 1 AND 16", name="ck_users_roles_count"),
        Index("ix_users_newest", text("created_at DESC"), text("id DESC")),
        Index("ix_users_name", "name_key", "id"),
        Index("ix_users_roles", "roles", postgresql_using="gin"),
        Index("ix_users_trigrams", text("trigrams(name_key, email_key)"), postgresql_using="gin"),
    )


class SiteMember(Base):
    """Somebody who works on a site, as the sites service tells: they know the others there."""

    __tablename__ = "site_members"

    site_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", name="fk_site_members_user_id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (Index("ix_site_members_user_id", "user_id"),)


class SigningKeyRow(Base):
    """A key that signs access tokens, encrypted."""

    __tablename__ = "signing_keys"

    key_id: Mapped[str] = mapped_column(Text, primary_key=True)
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Session(Base):
    """One login. A session that ended is no row."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", name="fk_sessions_user_id", ondelete="CASCADE"))
    #: SHA-256 of a browser's cookie; null for a session with refresh tokens.
    cookie_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: That of the refresh token that is good now.
    counter: Mapped[int] = mapped_column(Integer)
    #: How the user has shown who they are (RFC 8176).
    methods: Mapped[list[str]] = mapped_column(ARRAY(Text))
    address: Mapped[str] = mapped_column(Text)
    agent: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    refreshed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        UniqueConstraint("cookie_hash", name="uq_sessions_cookie_hash"),
        CheckConstraint("octet_length(cookie_hash) = 32", name="ck_sessions_cookie_hash"),
        CheckConstraint("counter >= 0", name="ck_sessions_counter"),
        CheckConstraint("char_length(agent) <= 200", name="ck_sessions_agent"),
        Index("ix_sessions_user_id", "user_id", "created_at"),
        Index("ix_sessions_expires_at", "expires_at"),
    )


class ApiKey(Base):
    """A program's key. One that was revoked is no row."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", name="fk_api_keys_user_id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    #: SHA-256 of the key.
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    #: Its last characters, by which its owner knows it.
    hint: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: Written once a minute at most.
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        UniqueConstraint("hash", name="uq_api_keys_hash"),
        CheckConstraint("octet_length(hash) = 32", name="ck_api_keys_hash"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_api_keys_name"),
        CheckConstraint("cardinality(scopes) BETWEEN 1 AND 8", name="ck_api_keys_scopes"),
        Index("ix_api_keys_user_id", "user_id", "created_at"),
    )


class Factor(Base):
    """An authenticator app of a user, which is asked for once it is confirmed, and its recovery codes."""

    __tablename__ = "factors"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", name="fk_factors_user_id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    #: Encrypted.
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    #: The newest step of which a code was used: codes of that one and of older ones are refused.
    last_step: Mapped[int] = mapped_column(BigInteger)
    #: Hashes of the recovery codes that are left.
    recovery: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_factors_name"),
        CheckConstraint("last_step >= 0", name="ck_factors_last_step"),
        CheckConstraint("cardinality(recovery) <= 10", name="ck_factors_recovery"),
        Index("ix_factors_user_id", "user_id"),
    )


class IdentityRow(Base):
    """By which a user signs in at a provider (OpenID Connect)."""

    __tablename__ = "identities"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", name="fk_identities_user_id", ondelete="CASCADE"))
    issuer: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        UniqueConstraint("issuer", "subject", name="uq_identities_subject"),
        UniqueConstraint("user_id", "issuer", name="uq_identities_user_id"),
        CheckConstraint("char_length(subject) BETWEEN 1 AND 255", name="ck_identities_subject"),
    )


class SignIn(Base):
    """Somebody on the way to a provider and back. What they are known by derives from their browser's cookie."""

    __tablename__ = "sign_ins"

    #: SHA-256 of the cookie.
    browser: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    #: Who links an identity, in which session; null for whoever logs in.
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", name="fk_sign_ins_user_id", ondelete="CASCADE"))
    session_id: Mapped[UUID | None] = mapped_column(Uuid)
    #: The page to show afterwards.
    next: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("octet_length(browser) = 32", name="ck_sign_ins_browser"),
        CheckConstraint("(user_id IS NULL) = (session_id IS NULL)", name="ck_sign_ins_session_id"),
        Index("ix_sign_ins_expires_at", "expires_at"),
        Index("ix_sign_ins_user_id", "user_id"),
    )


class OneTimeToken(Base):
    """A link that was sent, whose text is derived and never stored. One that was used is no row."""

    __tablename__ = "one_time_tokens"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", name="fk_one_time_tokens_user_id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(Text)
    #: The new address that is to be proven, or the old one that is to be told.
    email: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("purpose IN ('reset', 'invitation', 'email', 'moved')", name="ck_one_time_tokens_purpose"),
        CheckConstraint("(email IS NOT NULL) = (purpose IN ('email', 'moved'))", name="ck_one_time_tokens_email"),
        Index("ix_one_time_tokens_user_id", "user_id"),
        Index("ix_one_time_tokens_expires_at", "expires_at"),
    )


class Throttle(Base):
    """Failed attempts of one account from one network, or of another such pair."""

    __tablename__ = "throttles"

    #: SHA-256 of what is throttled.
    subject: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    #: The next attempt is refused until then.
    until: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("failures > 0", name="ck_throttles_failures"),
        Index("ix_throttles_until", "until"),
    )


class Revocation(Base):
    """What access tokens are refused that have not expired: those of a session or key, or of a user below an epoch."""

    __tablename__ = "revocations"

    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    least_epoch: Mapped[int | None] = mapped_column(Integer)
    revoked_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        CheckConstraint("kind IN ('session', 'key', 'user')", name="ck_revocations_kind"),
        CheckConstraint("(least_epoch IS NOT NULL) = (kind = 'user')", name="ck_revocations_least_epoch"),
        Index("ix_revocations_revoked_at", "revoked_at"),
    )


class AuditRow(Base):
    """Who did what to whom. Holds no value of a person."""

    __tablename__ = "audit"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    happened_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    actor: Mapped[UUID | None] = mapped_column(Uuid)
    action: Mapped[str] = mapped_column(Text)
    subject: Mapped[UUID | None] = mapped_column(Uuid)
    address: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)

    __table_args__ = (
        Index("ix_audit_newest", text("happened_at DESC"), text("id DESC")),
        Index("ix_audit_subject", "subject", text("happened_at DESC")),
        Index("ix_audit_actor", "actor", text("id DESC"), postgresql_where=text("actor IS NOT NULL")),
    )
