"""Bounds of the OPC UA server: who signs in does so on an encrypted channel, and takes a bounded share of it.

An unencrypted channel is there for clients to ask which encryption there is, and for nothing else.
"""

import hmac
from hashlib import sha256
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.user_managers import UserManager

CONNECTIONS = 100
SUBSCRIPTIONS = 400
ACTIVATION_S = 30.0  # within which a new connection must have signed in
SESSION_MS = 120_000.0  # the longest that a silent session is kept


class Users(UserManager):  # type: ignore[misc]
    """Lets `user` in with `password`; without a user, everybody. Nobody may change the address space."""

    def __init__(self, user: str, password: str) -> None:
        self._known = (_digest(user), _digest(password)) if user else None

    def get_user(
        self, iserver: InternalServer, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """Return who signs in, None for nobody, in a time that does not depend on how much of it is right."""
        if self._known is not None:
            given = (_digest(username or ""), _digest(password or ""))
            right = [hmac.compare_digest(one, other) for one, other in zip(given, self._known, strict=True)]
            if not all(right):
                return None
        return User(role=UserRole.User)


def _digest(text: str) -> bytes:
    """Return a number of one length, so that comparing does not tell how long the right one is."""
    return sha256(text.encode(errors="surrogatepass")).digest()


class GuardedSession(InternalSession):  # type: ignore[misc]
    """A session that, where there is a certificate, is activated on an encrypted channel alone."""

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        """Sign in; `peer_certificate` is None on a channel without encryption."""
        if self.iserver.certificate is not None and peer_certificate is None:
            raise ServiceError(ua.StatusCodes.BadSecurityModeInsufficient)
        return super().activate_session(params, peer_certificate)


class GuardedServer(InternalServer):  # type: ignore[misc]
    """An internal server with bounds for what strangers can take."""

    def __init__(self, users: Users) -> None:
        super().__init__(users)
        self.allow_remote_admin = False
        self.max_connections = CONNECTIONS
        self.max_subscriptions = SUBSCRIPTIONS
        self.max_pending_activation_seconds = ACTIVATION_S
        self.max_session_timeout_ms = SESSION_MS

    def create_session(self, name: str, user: User = User(), external: bool = False) -> InternalSession:  # noqa: B008
        """Return a session for a client, or for this program itself."""
        return GuardedSession(self, self.aspace, self.subscription_service, name, user=user, external=external)

    def register_server(self, server: Any, conf: Any = None) -> None:
        """Refuse: this is no directory of servers."""
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
