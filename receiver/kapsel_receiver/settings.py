"""The settings of a receiver process, each from an environment variable KAPSEL_<NAME>."""

from pydantic import Field

from kapsel_runtime.settings import DataPlaneSettings


class ReceiverSettings(DataPlaneSettings):
    """What differs between receivers; what is the same for all is in their configuration rows."""

    receiver_host: str = Field(
        default="127.0.0.1",
        description="Address that takes webhooks. Default: this machine only, so that nobody exposes it by accident.",
    )
    receiver_port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="Port that takes webhooks; several processes may share it. 0: any free one. Default 8080.",
    )
    receiver_header_timeout: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="Seconds for all headers of a request. Default 10: webhook senders take less than one.",
    )
    receiver_body_timeout: float = Field(
        default=30.0,
        gt=0,
        le=300,
        description="Seconds for the whole body. Default 30: 1 MiB over a line of 300 kbit/s.",
    )
    receiver_commit_timeout: float = Field(
        default=4.0,
        gt=0,
        le=60,
        description="Seconds one commit may take. Default 4: the least patient providers hang up after 5.",
    )
    receiver_queue_events: int = Field(
        default=4096,
        ge=1,
        description="Webhooks that may wait for their commit; beyond, 503. One endpoint may have no more of them than "
        "there is room left, half if it is alone. Default 4096: under a second of work.",
    )
    receiver_queue_bytes: int = Field(
        default=67_108_864,
        ge=1,
        description="Bytes of bodies that may wait for their commit; beyond, 503. Shared out likewise. Default 64 MiB.",
    )
    receiver_max_connections: int = Field(
        default=8192,
        ge=1,
        description="Connections at once; beyond, 503. Default 8192: about 100 MiB if all of them idle.",
    )
