"""The people of a site."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class SiteRole(StrEnum):
    """What somebody is on one site; each person is one of these there."""

    ENGINEER = "engineer"
    MANAGER = "manager"
    EXECUTIVE = "executive"
    CUSTOMER = "customer"
    CONTRACTOR = "contractor"


#: They find what is wrong, and examine what was done.
INSPECTORS = (SiteRole.ENGINEER, SiteRole.MANAGER)
#: Work is assigned to these.
WORKERS = (*INSPECTORS, SiteRole.CONTRACTOR)
#: Those whose site it is.
INTERNAL = (*INSPECTORS, SiteRole.EXECUTIVE)


@dataclass(frozen=True, slots=True)
class Member:
    """A person of a site, as others refer to them."""

    user_id: UUID
    name: str
    role: SiteRole
    #: Whom they work for; empty: nobody named.
    organisation: str = ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts on a site: a member, or an administrator or auditor of the whole system."""

    #: None: the machine's own, where nobody logs in.
    user_id: UUID | None
    name: str
    #: None: no member. Such a one reads everything.
    role: SiteRole | None
    organisation: str = ""
    position: str = ""
    #: Whether they are an administrator, who may take any step with a reason.
    override: bool = False

    def is_person(self, user_id: UUID | None) -> bool:
        """Whether this is the id of theirs; nobody's is."""
        return user_id is not None and user_id == self.user_id

    def works_for(self, organisation: str) -> bool:
        """Whether this is their organisation; one without a name is nobody's."""
        return organisation != "" and organisation == self.organisation
