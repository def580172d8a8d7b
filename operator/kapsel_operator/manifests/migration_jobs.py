"""The Job that brings the schema of the database to what is needed, before the first pod that needs it starts.

It runs the operator's version, also for a Relay whose pods stay at an older one: the operator itself writes into the
database, and knows no schema but its own. Migrations only add at first, so older pods go on beside them; what they do
not survive is taken away in a later release.
"""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Final

from kapsel_operator.manifests import names, pods
from kapsel_operator.manifests.containers import container, database_env, secrets_mount
from kapsel_operator.manifests.facts import Database, Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay

RETRIES: Final = 4
DEADLINE: Final = timedelta(minutes=30)
# A Job that failed is tried anew when it is gone, if the schema is still old: a mended database needs nobody's help.
KEPT: Final = timedelta(minutes=10)


def migration_job_name(relay: Relay, facts: Facts, database: Database) -> str:
    """Return the name of the Job for these pods: of another image, another database or other pull secrets is another.

    The template of a Job can never be changed: one whose image cannot be pulled would keep who mends that waiting.
    """
    what = names.digest(json.dumps(_template(relay, _as_operator(facts), database), sort_keys=True))
    return names.object_name(relay.metadata.name, f"migrate-{what}")


def migration_job(relay: Relay, facts: Facts, database: Database) -> Manifest:
    """Return the Job."""
    facts = _as_operator(facts)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(relay, facts, "migrate", name=migration_job_name(relay, facts, database)),
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": int(DEADLINE.total_seconds()),
            "ttlSecondsAfterFinished": int(KEPT.total_seconds()),
            "template": _template(relay, facts, database),
        },
    }


def _template(relay: Relay, facts: Facts, database: Database) -> Manifest:
    main = container(
        "migrate",
        facts,
        env=database_env(database),
        mounts=[secrets_mount()],
        resources=None,
    )
    template = pods.template(
        relay,
        facts,
        "migrate",
        containers=[main],
        volumes=[pods.secrets_volume(relay, database, sealing_key=False)],
        annotations={pods.DATABASE_DIGEST: database.digest},
        grace=timedelta(seconds=30),
    )
    template["spec"]["restartPolicy"] = "Never"  # each try keeps its pod, and so its log
    return template


def _as_operator(facts: Facts) -> Facts:
    version = facts.image.operator_version or facts.image.version
    return replace(facts, image=replace(facts.image, version=version))
