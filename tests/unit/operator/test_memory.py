"""What is remembered of the Secrets of generated keys, and when they are looked at again."""

from kapsel_operator.memory import CHECKED_EVERY, NOT_OURS, TAKEN_EVERY, Memory
from kapsel_resources.kinds.model import Identity

KEY, GONE = Identity("SigningKey", "shop", "out"), Identity("SigningKey", "shop", "gone")


def test_a_secret_is_looked_at_when_its_content_changes_and_now_and_then() -> None:
    memory = Memory(uid="u", key_secrets={KEY: (b"digest", 100.0)})
    assert not memory.is_key_to_check(KEY, b"digest", 101.0)
    assert memory.is_key_to_check(KEY, b"another", 101.0)
    assert memory.is_key_to_check(KEY, b"digest", 101.0 + CHECKED_EVERY)
    assert memory.is_key_to_check(Identity("SigningKey", "shop", "new"), b"digest", 101.0)


def test_a_key_whose_resource_is_gone_is_never_due() -> None:
    memory = Memory(uid="u", key_secrets={KEY: (b"digest", 1000.0), GONE: (b"digest", 0.0)})
    assert memory.is_key_due(1001.0)
    memory.forget_keys_but({KEY})
    assert not memory.is_key_due(1001.0)


def test_a_secret_of_somebody_else_is_looked_at_more_often_and_not_all_the_time() -> None:
    memory = Memory(uid="u", key_secrets={KEY: (NOT_OURS, 100.0)})
    assert memory.nameless() == {KEY}
    assert not memory.is_key_to_check(KEY, b"digest", 101.0)
    assert memory.is_key_due(101.0 + TAKEN_EVERY)
