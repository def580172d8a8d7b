-- What exactly was wrong with a try, where its reason alone does not tell: which expression failed, at which character of
-- it, and how. Nothing in it is of the event, so it stays when the event is forgotten.
-- Not valid means not looked for in the attempts that there are, which have none; new ones are held to it.
ALTER TABLE attempts
    ADD COLUMN detail text,
    ADD CONSTRAINT attempts_detail_check CHECK (length(detail) BETWEEN 1 AND 512) NOT VALID;
