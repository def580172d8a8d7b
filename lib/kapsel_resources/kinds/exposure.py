"""How the world outside reaches the receivers of a Relay. Only a cluster reads this."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kapsel_resources.kinds.model import LABEL, NULL_IS_ABSENT, SUBDOMAIN, LabelKey, Model, Reference, broken
from kapsel_resources.rules import Rule

_TYPE: Final = "(has(self.type) ? self.type : 'ClusterIP')"


class GatewayReference(Model):
    """A Gateway of the Gateway API."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Gateway.")
    namespace: str | None = Field(
        default=None, max_length=63, pattern=LABEL, description="Its namespace; default: this one."
    )
    section_name: str | None = Field(
        default=None, max_length=253, pattern=SUBDOMAIN, description="The listener to attach to."
    )


class Exposure(Model):
    """How providers outside reach the receivers. Only a cluster reads this."""

    RULES = (
        Rule(
            f"has(self.hostname) || !({_TYPE} in ['Ingress', 'HTTPRoute'])",
            "the type is Ingress or HTTPRoute, and there is no hostname",
            "hostname",
        ),
        Rule(
            f"has(self.gatewayRef) || {_TYPE} != 'HTTPRoute'",
            "the type is HTTPRoute, and there is no gatewayRef",
            "gatewayRef",
        ),
        Rule(
            f"!has(self.gatewayRef) || {_TYPE} == 'HTTPRoute'",
            "gatewayRef has no meaning for any type but HTTPRoute",
            "gatewayRef",
        ),
        *(
            Rule(
                f"!has(self.{name}) || {_TYPE} == 'Ingress'",
                f"{name} has no meaning for any type but Ingress",
                name,
            )
            for name in ("ingressClassName", "tlsSecretRef")
        ),
    )

    type: Literal["ClusterIP", "LoadBalancer", "Ingress", "HTTPRoute"] = Field(
        default="ClusterIP", description="ClusterIP: within the cluster alone. The others: from outside, in their way."
    )
    hostname: str | None = Field(
        default=None,
        max_length=253,
        pattern=SUBDOMAIN,
        description="Ingress, HTTPRoute: the host name that providers call.",
    )
    ingress_class_name: str | None = Field(
        default=None, max_length=253, pattern=SUBDOMAIN, description="Ingress: the class; default: the cluster's."
    )
    tls_secret_ref: Reference | None = Field(default=None, description="Ingress: the Secret with the certificate.")
    gateway_ref: GatewayReference | None = Field(default=None, description="HTTPRoute: the Gateway to attach to.")
    annotations: Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], NULL_IS_ABSENT] = Field(
        default_factory=dict,
        max_length=32,
        description=(
            "Annotations for the Service, Ingress or HTTPRoute that is made, as load balancers and certificate "
            "issuers want them."
        ),
    )

    @model_validator(mode="after")
    def _members_of_its_type(self) -> "Exposure":
        if self.type in ("Ingress", "HTTPRoute") and self.hostname is None:
            broken(f"the type is {self.type}, and there is no hostname", "hostname: hooks.example.com", "hostname")
        if self.type == "HTTPRoute" and self.gateway_ref is None:
            broken("the type is HTTPRoute, and there is no gatewayRef", "gatewayRef: {name: ...}", "gatewayRef")
        if self.type != "HTTPRoute" and self.gateway_ref is not None:
            broken(f"gatewayRef has no meaning for the type {self.type}", "type: HTTPRoute beside it", "gatewayRef")
        for name, value in (("ingressClassName", self.ingress_class_name), ("tlsSecretRef", self.tls_secret_ref)):
            if self.type != "Ingress" and value is not None:
                broken(f"{name} has no meaning for the type {self.type}", "type: Ingress beside it", name)
        return self
