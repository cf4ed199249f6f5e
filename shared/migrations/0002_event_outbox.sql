-- Events from a team's own transactions, on their way to the user streams.

CREATE TABLE event_outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    text NOT NULL CHECK (user_id <> ''),
    body       text NOT NULL CHECK (body LIKE '{"type":%'), -- the event's JSON without its id
    position   bigint, -- its place in the order of commits
    refused    text, -- why Redis will never take it; nobody publishes it any more
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX ON event_outbox (position) WHERE refused IS NULL;

-- Names this outbox in Redis, where several databases may publish to one user.
CREATE TABLE event_outbox_identity (
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO event_outbox_identity DEFAULT VALUES;

CREATE SEQUENCE event_outbox_position;

-- The order of inserts is not that of commits: who inserts first may commit last, when a reader is
-- past its place. So a row gets its position at commit, under a lock that is held until others can
-- see the row: whoever sees a position sees all before it. Commits that notify take turns in
-- PostgreSQL anyway. A position is never below the time in microseconds, so that a database that
-- is restored from a backup does not repeat those that Redis has seen.
-- It runs as its owner: who publishes needs the right to insert, and no other. So it looks at no
-- search path of theirs, where a temporary table of the same name would come first, and nobody
-- else may attach it to a table of their own.
DO $do$
BEGIN
    EXECUTE format(
        $create$
CREATE FUNCTION %1$I.place_in_event_outbox() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(482854658917); -- "place" in ASCII
    UPDATE %1$I.event_outbox SET position = setval(
        %2$L,
        greatest(
            nextval(%2$L),
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        )
    ) WHERE id = NEW.id;
    PERFORM pg_notify('event_outbox', '');
    RETURN NULL;
END
$$
        $create$,
        current_schema(),
        format('%I.event_outbox_position', current_schema())
    );
END
$do$;
REVOKE ALL ON FUNCTION place_in_event_outbox() FROM PUBLIC;
CREATE CONSTRAINT TRIGGER place_at_commit AFTER INSERT ON event_outbox
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION place_in_event_outbox();
