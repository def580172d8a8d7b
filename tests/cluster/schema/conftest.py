"""Namespaces for tests that ask the API server many small things: made and deleted without a kubectl each."""

import secrets
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio import client as kubernetes_api


@pytest.fixture
async def namespace(api: kubernetes_api.ApiClient) -> AsyncIterator[str]:
    """A fresh namespace."""
    core = kubernetes_api.CoreV1Api(api)
    name = f"test-{secrets.token_hex(5)}"
    await core.create_namespace({"metadata": {"name": name}})
    yield name
    await core.delete_namespace(name)
