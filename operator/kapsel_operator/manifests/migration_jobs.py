"""The Job that brings the schema of the database to what is needed, before the first pod that needs it starts.

It runs the operator's version, also for a Relay whose pods stay at an older one: the operator itself writes into the
database, and knows no schema but its own. Migrations only add at first, so older pods go on beside them; what they do
not survive is taken away in a later release.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from kapsel_operator.manifests import names, pods
from kapsel_operator.manifests.containers import container, database_env, image, secrets_mount
from kapsel_operator.manifests.facts import Database, Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay

RETRIES: Final = 4
DEADLINE: Final = timedelta(minutes=30)
# A Job that failed is tried anew when it is gone, if the schema is still old: a mended database needs nobody's help.
KEPT: Final = timedelta(minutes=10)


def migration_job_name(relay: Relay, facts: Facts, database: Database) -> str:
    """Return the name of the Job for this image and this database: another of either is another Job."""
    what = names.digest(f"{image(_as_operator(facts))} {database.digest}")
    return names.object_name(relay.metadata.name, f"migrate-{what}")


def migration_job(relay: Relay, facts: Facts, database: Database) -> Manifest:
    """Return the Job. Its template can never be changed, so it holds nothing that changes with anything else."""
    facts = _as_operator(facts)
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
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(relay, facts, "migrate", name=migration_job_name(relay, facts, database)),
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": int(DEADLINE.total_seconds()),
            "ttlSecondsAfterFinished": int(KEPT.total_seconds()),
            "template": template,
        },
    }


def _as_operator(facts: Facts) -> Facts:
    version = facts.image.operator_version or facts.image.version
    return replace(facts, image=replace(facts.image, version=version))
