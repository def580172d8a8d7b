"""Who decides how many pods there are: the Relay or an autoscaler, and on the way from one to the other nobody else."""

from typing import Any

from kapsel_operator.errors import ApiError
from kapsel_operator.manifests.observed import owned_replicas

DATABASE = {"secretRef": {"name": "main-database"}}
FIXED = {"database": DATABASE, "receiver": {"replicas": 3}}
SCALED = {"database": DATABASE, "receiver": {"autoscaling": {"maxReplicas": 9}}}


async def scale(shop: Any, replicas: int) -> None:
    """Set the number as an autoscaler does: an update of the scale, again if the Deployment's controller was faster."""
    path = f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/main-receiver/scale"
    for remaining in reversed(range(20)):
        current = await shop.cluster._request("GET", path)
        try:
            await shop.cluster._request("PUT", path, body={**current, "spec": {"replicas": replicas}})
        except ApiError as error:
            if error.status != 409 or not remaining:
                raise
        else:
            return


async def reconciled(shop: Any) -> Any:
    """Apply, knowing what the operator knows of the replicas; return the same shop with what it knows then."""
    await shop.apply()
    owned = owned_replicas(await shop.get("Deployment", "main-receiver"))
    return shop.knowing(replicas={} if owned is None else {"receiver": owned})


async def replicas(shop: Any) -> int:
    return int((await shop.get("Deployment", "main-receiver"))["spec"]["replicas"])


async def test_the_number_of_an_autoscaler_survives_what_the_operator_applies(make_shop: Any) -> None:
    shop = await reconciled(await make_shop(SCALED))
    await scale(shop, 7)
    await reconciled(shop)
    assert await replicas(shop) == 7


async def test_the_number_stays_on_the_way_from_fixed_to_an_autoscaler(make_shop: Any) -> None:
    """A field that an apply no longer names is reset if nobody else owns it: three pods would become one."""
    shop = await reconciled(await make_shop(FIXED))
    shop = await reconciled(await shop.change(SCALED))
    assert await replicas(shop) == 3
    await scale(shop, 5)
    shop = await reconciled(shop)  # with the number of before, as from a cache that is behind
    await scale(shop, 6)
    shop = await reconciled(shop.knowing(replicas={}))
    assert await replicas(shop) == 6


async def test_a_fixed_number_comes_back_when_the_autoscaler_is_gone(make_shop: Any) -> None:
    shop = await reconciled(await make_shop(SCALED))
    await scale(shop, 7)
    shop = await reconciled(await shop.change(FIXED))
    assert await replicas(shop) == 3
