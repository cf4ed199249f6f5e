-- The message journal: chat answers, and their events by day.

-- Beside its id a message has no index that a heartbeat or a new event touches, and pages have room
-- for the new versions of their rows: those updates stay within a page (heap-only tuples).
CREATE TABLE messages (
    id             uuid PRIMARY KEY,
    user_id        text NOT NULL CHECK (user_id <> ''),
    day            date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date, -- UTC: its partition
    status         text NOT NULL DEFAULT 'waiting'
        CHECK (status IN ('waiting', 'writing', 'finished', 'stopped', 'failed')),
    attempt        integer NOT NULL DEFAULT 0, -- how many writers there were; the latest may write
    last_sequence  bigint NOT NULL DEFAULT -1, -- of its events; they have no gap
    stop_requested boolean NOT NULL DEFAULT false,
    heartbeat_at   timestamptz NOT NULL DEFAULT now(),
    created_at     timestamptz NOT NULL DEFAULT now(),
    finished_at    timestamptz, -- when its last event was written
    error_code     text,
    CHECK ((finished_at IS NULL) = (status IN ('waiting', 'writing'))),
    CHECK ((error_code IS NOT NULL) = (status = 'failed'))
) WITH (fillfactor = 50);
CREATE INDEX ON messages (day);
CREATE INDEX open_messages ON messages (day) WHERE finished_at IS NULL;

-- A partition holds the events of the messages that were created on one day (UTC), so that one
-- message's are in one. `payload` is the exact text that readers get: jsonb would reorder it, and
-- refuses some. No foreign key and no default partition: both would stand in the way of dropping
-- a day.
CREATE TABLE message_events (
    day         date NOT NULL,
    message_id  uuid NOT NULL,
    sequence_no bigint NOT NULL, -- from 0
    event_type  text NOT NULL,
    payload     json NOT NULL, -- an object, `type` included
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, message_id, sequence_no)
) PARTITION BY RANGE (day);

-- Makes the partition of a day unless there is one. Attached, not created in place: that would lock
-- out everybody who reads or writes meanwhile. Returns whether it was made.
CREATE FUNCTION make_message_day(wanted date) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    name text := format('message_events_%s', to_char(wanted, 'YYYYMMDD'));
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext(name));
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE message_events INCLUDING ALL)', name);
    EXECUTE format(
        'ALTER TABLE message_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, wanted, wanted + 1
    );
    RETURN true;
END
$$;
SELECT make_message_day((now() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, 2) ahead;

-- What each pruning removed, for whoever looks after the database.
CREATE TABLE message_prunings (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ran_at   timestamptz NOT NULL DEFAULT now(),
    before   date NOT NULL, -- days before this one were to go
    removed  date[] NOT NULL,
    kept     date[] NOT NULL, -- with an answer that is being written, or in somebody's use
    messages bigint NOT NULL,
    events   bigint NOT NULL,
    bytes    bigint NOT NULL,
    seconds  double precision NOT NULL
);
