"""Goes through the leaves of a log in order: fetches ahead, has bundles read side by side, grows the tree itself.

`run` gives it the signed head to arrive at, and sizes on the way at which a root is of interest, because somebody holds
a head of that size. The tiles above the leaves are compared with what follows from the leaves.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Executor

from kapsel_cli.auditing import bundle
from kapsel_cli.auditing.bundle import Read
from kapsel_cli.auditing.errors import GapError
from kapsel_cli.auditing.source import Source
from kapsel_cli.auditing.state import Progress
from kapsel_tlog import tiles
from kapsel_tlog.tree import append
from kapsel_verifier.errors import ConsistencyError, InclusionError
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.tiles import TILE_BYTES, WIDTH, Tile, path

MOST_GAPS = 20  # that are remembered and told

Step = Callable[[Read, int], None]  # what to do after each bundle: what it held, and the number of its first leaf


class Walk:
    """One walk to one size."""

    def __init__(self, source: Source, progress: Progress, size: int, executor: Executor | None, ahead: int) -> None:
        """Go on from `progress` to `size`, with so many bundles `ahead`; read in `executor`, or here without one."""
        self.progress = progress
        self.roots: dict[int, bytes] = {}
        self._source = source
        self._start = progress.tree.size
        self._size = size
        self._executor = executor
        self._ahead = ahead

    async def go(self, wanted: Collection[int], step: Step) -> None:
        """Read all leaves up to the size, and note the roots at the sizes that are wanted and lie on the way.

        Raises what `bundle.read` raises, InclusionError, SourceError, or ConsistencyError if what was read in an
        earlier audit is there no more.
        """
        if self.progress.tree.size in wanted:
            self.roots[self.progress.tree.size] = self.progress.tree.root()
        numbers = iter(range(self.progress.tree.size // WIDTH, -(-self._size // WIDTH)))
        fetched: deque[asyncio.Task[tuple[Read, bytes, int]]] = deque()
        try:
            while True:
                while len(fetched) < self._ahead and (number := next(numbers, None)) is not None:
                    fetched.append(asyncio.create_task(self._fetch(number)))
                if not fetched:
                    break
                read, before, number = await fetched.popleft()
                await self._take(read, before, number, wanted)
                step(read, number * WIDTH)
        finally:
            for task in fetched:
                task.cancel()
            await asyncio.gather(*fetched, return_exceptions=True)
        await self._compare_edge()

    async def _fetch(self, number: int) -> tuple[Read, bytes, int]:
        count = min(WIDTH, self._size - number * WIDTH)
        skip = max(self._start - number * WIDTH, 0)  # only the first bundle can have been read in part
        leaves, tile = await asyncio.gather(
            self._source.bundle(number, count), self._source.tile(Tile(0, number), count)
        )
        arguments = (number, skip, count, leaves, tile)
        if self._executor is None:
            read = bundle.read(*arguments)
        else:
            read = await asyncio.get_running_loop().run_in_executor(self._executor, bundle.read, *arguments)
        return read, tile[: skip * HASH_SIZE], number

    async def _take(self, read: Read, before: bytes, number: int, wanted: Collection[int]) -> None:
        progress = self.progress
        edge = progress.tree.edge[0] if progress.tree.edge else b""
        if before != edge[: len(before)]:
            raise ConsistencyError(f"the leaves from {number * WIDTH} on are not those of the last audit any more")
        hashes, first = bundle.split(read.hashes), progress.tree.size
        for size in sorted(size for size in wanted if first < size <= first + len(hashes)):
            self.roots[size] = append(progress.tree, hashes[: size - first]).tree.root()
        grown = append(progress.tree, hashes)
        for tile, content in grown.tiles.items():
            if tile.level and len(content) == TILE_BYTES:
                await self._compare(tile, content)
        # From here on without a pause, so that whoever stops this walk finds all of the progress in one place.
        progress.chains.erase(read.erased)
        progress.erasures += len(read.erased)
        for run in read.runs:
            try:
                progress.chains.take(run)
            except GapError as error:
                if len(progress.gaps) < MOST_GAPS:
                    progress.gaps.append(str(error))
        progress.tree = grown.tree

    async def _compare_edge(self) -> None:
        tree = self.progress.tree
        for tile in tiles.edge(tree.size):
            if tile.level:
                await self._compare(tile, tree.edge[tile.level])

    async def _compare(self, tile: Tile, content: bytes) -> None:
        hashes = len(content) // HASH_SIZE
        if await self._source.tile(tile, hashes) != content:
            raise InclusionError(f"{path(tile, hashes)} does not follow from the leaves below it")
