-- Proof of delivery, complete: leaves that are no attempts, keys of a log over time, erasure, witnesses, anchors and
-- acknowledgements.

-- The log (attestor, sequencer). -----------------------------------------------------------------------------------

-- A log also states what happens to itself: which log it continues, which key follows which.
ALTER TABLE leaves ALTER COLUMN attempt_id DROP NOT NULL;

-- Keys of a log. ---------------------------------------------------------------------------------------------------

-- Erasure. ---------------------------------------------------------------------------------------------------------

-- Witnesses. -------------------------------------------------------------------------------------------------------

-- Anchors. ---------------------------------------------------------------------------------------------------------

-- Acknowledgements. ------------------------------------------------------------------------------------------------
