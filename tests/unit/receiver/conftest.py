"""Keys and headers for the receiver's unit tests."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kapsel_store.rows import Algorithm, KeyRow


@pytest.fixture
def make_key() -> Callable[..., KeyRow]:
    """Make one version of a key that is live from 2000 on."""

    def make(
        secret: bytes = b"",
        *,
        version: int = 1,
        algorithm: Algorithm = "HMAC-SHA256",
        public: bytes | None = None,
        not_before: datetime = datetime(2000, 1, 1, tzinfo=UTC),
        lasts: timedelta | None = None,
    ) -> KeyRow:
        return KeyRow(
            id=UUID(int=version),
            namespace="shop",
            name="in",
            version=version,
            algorithm=algorithm,
            secret=secret,
            public=public,
            not_before=not_before,
            not_after=None if lasts is None else not_before + lasts,
        )

    return make
