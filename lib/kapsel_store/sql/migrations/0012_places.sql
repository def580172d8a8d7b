-- The destinations for which a deliverer has no place, because they have their part of its places and more to do: the
-- process alone knows that, and whoever asks why a delivery waits is told by it.
ALTER TABLE processes ADD COLUMN waiting uuid[] NOT NULL DEFAULT '{}';
