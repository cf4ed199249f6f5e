-- Sources that are ingested again: their uploaded files are kept, and what a new run makes of them
-- takes the place of what there was in one moment.

-- How many files were uploaded (null: by a release that did not keep them), and what the upload was
-- answered with (null: that is still the latest run).
ALTER TABLE sources
    ADD COLUMN files         integer,
    ADD COLUMN first_run_id  text,
    ADD COLUMN first_task_id text;

-- What a source's Idempotency-Keys for another run of it name.
CREATE TABLE reingestions (
    source_id       uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    idempotency_key text NOT NULL,
    run_id          text NOT NULL,
    task_id         text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_id, idempotency_key)
);

-- While a run's chunks are being written, and when another run's are in their place, no search
-- finds them.
ALTER TABLE documents ADD COLUMN staged boolean NOT NULL DEFAULT false;
CREATE INDEX ON documents (created_at) WHERE staged;

-- Files from archives are gone when their run has ended; those that were uploaded stay longer.
CREATE INDEX ON upload_files (created_at) WHERE member > 0;
