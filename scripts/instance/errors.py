"""Errors of an instance, each printed as one line.

InstanceError                the root; its text says what is wrong and what to do
├── InUse                    another process holds the data folder
├── ForeignFolder            not a data folder of Siteworks, or not usable by this user
├── PortTaken
├── OtherMajorVersion        the database was made by another major version of PostgreSQL
└── StartFailed              PostgreSQL, a migration or a service did not come up
"""

from __future__ import annotations


class InstanceError(Exception):
    """Printed without a traceback; the command then exits with 1."""


class InUse(InstanceError):
    """Another process holds the data folder."""


class ForeignFolder(InstanceError):
    """The folder is not a data folder of Siteworks, or may not be used by this user."""


class PortTaken(InstanceError):
    """A port of the instance is taken by another program."""


class OtherMajorVersion(InstanceError):
    """The database was made by another major version of PostgreSQL."""


class StartFailed(InstanceError):
    """Something did not come up; the text carries the last lines of its log."""
