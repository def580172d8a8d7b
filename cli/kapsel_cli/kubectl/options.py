"""The options that every command of the plugin has, and what they lead to: a cluster, a Relay, its console."""

import argparse
from pathlib import Path
from typing import Final

from kapsel_cli.arguments import Reach
from kapsel_cli.client import Client
from kapsel_cli.kubectl.cluster import Access, Cluster

PROGRAM: Final = "kubectl kapsel"


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which cluster and namespace, by the names that kubectl has for them."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "-n", "--namespace", metavar="NAMESPACE", help="the namespace (default: that of the kubeconfig's context)"
    )
    group.add_argument("--context", metavar="NAME", help="the context of the kubeconfig (default: the current one)")
    group.add_argument(
        "--kubeconfig", type=Path, metavar="PATH", help="the kubeconfig (default: KUBECONFIG, or ~/.kube/config)"
    )
    group.add_argument("--as", dest="impersonate", metavar="USER", help="act as this user, if you may")


def add_relay(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which Relay's console is asked."""
    parser.add_argument(
        "--relay",
        metavar="NAME",
        help="the Relay, or NAMESPACE/NAME (default: the only one of the namespace, or that of its endpoints)",
    )
    add_cluster(parser)
    parser.set_defaults(connect=connect_through_cluster)


def open_cluster(arguments: argparse.Namespace) -> Cluster:
    """Return the cluster that the arguments name."""
    access = Access(
        kubeconfig=arguments.kubeconfig,
        context=arguments.context,
        namespace=arguments.namespace,
        impersonate=arguments.impersonate,
    )
    return Cluster(access)


def connect_through_cluster(arguments: argparse.Namespace) -> Client:
    """Return the console of the Relay that the arguments mean."""
    from kapsel_cli.kubectl.relays import find_relay, open_console  # imports what --help has no use for

    cluster = open_cluster(arguments)
    return open_console(cluster, find_relay(cluster, arguments.relay))


THROUGH_CLUSTER: Final = Reach(program=PROGRAM, add_options=add_relay, taken=frozenset({"-n", "replay"}))
