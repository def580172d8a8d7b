"""The settings of a deliverer process: built once in `__main__`, from the environment, and passed on."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from kapsel_runtime.settings import DataPlaneSettings


class DelivererSettings(DataPlaneSettings):
    """What can be set of a deliverer besides what every process has."""

    deliverer_concurrency: int = Field(
        default=512,
        ge=1,
        le=16384,
        description="Deliveries under way at once, over all destinations; each takes a socket and its event in memory.",
    )
    deliverer_lease: timedelta = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=3),
        le=timedelta(hours=1),
        description="Seconds that a claim holds unless it is renewed, as slow tries do three times within it. After "
        "that, others take the delivery: shorter means a sooner second try after a crash, longer rides out a longer "
        "database outage without a second try.",
    )
    deliverer_poll_interval: timedelta = Field(
        default=timedelta(seconds=1),
        ge=timedelta(milliseconds=10),
        le=timedelta(minutes=1),
        description="Seconds between looks at the queue without a hint: how late a delivery is when hints are lost.",
    )
    deliverer_rescue_interval: timedelta = Field(
        default=timedelta(seconds=2),
        ge=timedelta(milliseconds=10),
        le=timedelta(minutes=10),
        description="Seconds between searches for expired leases and for deliveries past their age.",
    )
    deliverer_ca_file: Path | None = Field(
        default=None,
        description="A PEM file of certificate authorities to trust besides the system's. Default: none.",
    )
