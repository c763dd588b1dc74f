"""The user's login at Planet, by its own package: an API key, a person's or a machine's account."""

import os
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from thawmap.errors import ConfigError, ServiceError

_KEY, _CLIENT, _SECRET, _PROFILE = "PL_API_KEY", "PL_AUTH_CLIENT_ID", "PL_AUTH_CLIENT_SECRET", "PL_AUTH_PROFILE"
_REMEDY = (
    f"run 'planet auth login', or set {_KEY}, or {_CLIENT} and {_SECRET} for a machine's account, in the environment"
)
_KEY_PROFILE = "_PL_API_KEY"  # as Planet's package calls the login that is only a key


@dataclass(frozen=True, slots=True)
class Login:
    """A login that is ready.

    Attributes:
        kind: Its kind in words, and where it is from; never its value.
        by_host: The login by the one address that it may be sent to, for `Http`.
    """

    kind: str
    by_host: Mapping[str, httpx.Auth] = field(repr=False)


def find_login(address: str) -> Login:
    """Return the user's login at Planet from the environment or the user's profile.

    Nobody is asked for anything.

    Args:
        address: The service.

    Raises:
        ConfigError: If there is none, it has expired, or Planet's package is missing.
    """
    try:
        import planet  # noqa: PLC0415 - an extra, and a second
        from planet.exceptions import PlanetError  # noqa: PLC0415
        from planet_auth import AuthException  # noqa: PLC0415
    except ImportError as error:
        msg = "Planet's own package is not installed; run: pip install 'thawmap[acquire]'"
        raise ConfigError(msg) from error
    faults = (PlanetError, AuthException, ValueError, OSError)
    try:
        auth = planet.Auth.from_user_default_session()
        is_there = auth.is_initialized()
        auth.ensure_initialized(allow_open_browser=False, allow_tty_prompt=False)
    except faults as error:
        if "auth" in locals() and is_there:
            msg = f"{_kind(auth)} has expired and cannot be renewed; {_REMEDY}"
        else:
            msg = f"there are no credentials for Planet; {_REMEDY}"
        raise ConfigError(msg) from error
    kind = _kind(auth)
    parts = urlsplit(address)
    return Login(kind, {f"{parts.scheme}://{parts.netloc}": _Quiet(auth, kind, faults)})


class _Quiet(httpx.Auth):
    """A login whose own failures are sentences without secrets."""

    def __init__(self, auth: httpx.Auth, kind: str, faults: tuple[type[Exception], ...]) -> None:
        self._auth = auth
        self._kind = kind
        self._faults = faults

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request with the login in it."""
        try:
            yield from self._auth.auth_flow(request)
        except self._faults as error:
            msg = f"{self._kind} cannot be used ({type(error).__name__}); {_REMEDY}"
            raise ServiceError(msg) from None

    def __repr__(self) -> str:
        """Return the kind of login."""
        return f"<{self._kind}>"


class LaterLogin(httpx.Auth):
    """The user's login, looked for when the first request needs it.

    A run that asks nobody needs none.

    Args:
        address: The service.
        note: Is told which login is used.
    """

    def __init__(self, address: str, note: Callable[[str], None]) -> None:
        self._address = address
        self._note = note
        self._lock = threading.Lock()
        self._login: httpx.Auth | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request with the login in it.

        Raises:
            ConfigError: If there is no login.
        """
        with self._lock:
            if self._login is None:
                found = find_login(self._address)
                self._note(f"Planet is asked with {found.kind}")
                (self._login,) = found.by_host.values()
        yield from self._login.auth_flow(request)


def _kind(auth: httpx.Auth) -> str:
    """Return the kind of a login in words, with where it is from."""
    context = getattr(auth, "_plauth", None)  # nothing public says which of several logins is used
    profile = context.profile_name() if context is not None else ""
    if profile == _KEY_PROFILE:
        return f"the API key of {_KEY}" if os.environ.get(_KEY) else "the API key of ~/.planet.json"
    unused = f" ({_KEY} is set too, and not used)" if os.environ.get(_KEY) else ""
    client = os.environ.get(_CLIENT)
    if client and profile and profile.endswith(client):
        return f"the machine's account of {_CLIENT}{unused}"
    chosen = f"of {_PROFILE} " if os.environ.get(_PROFILE) else ""
    return f"the login {chosen}in Planet's profile {profile!r}{unused}"
