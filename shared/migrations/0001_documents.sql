-- Uploads on their way from web to worker, and the documents that came of them.

-- What is ingested. A user's Idempotency-Key names one source, whatever a client sends twice.
CREATE TABLE sources (
    id              uuid PRIMARY KEY,
    user_id         text NOT NULL CHECK (user_id <> ''),
    name            text NOT NULL,
    run_id          text NOT NULL, -- the latest run
    task_id         text NOT NULL,
    idempotency_key text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, idempotency_key)
);

-- The files of a run. Gone when the run has ended.
CREATE TABLE upload_files (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source_id  uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    run_id     text NOT NULL,
    position   integer NOT NULL, -- its place in the upload, from 0
    member     integer NOT NULL DEFAULT 0, -- 0: as uploaded; from 1: its place in that archive
    name       text NOT NULL, -- a label, never a path
    media_type text NOT NULL,
    size       bigint NOT NULL DEFAULT 0, -- bytes
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, position, member)
);
CREATE INDEX ON upload_files (source_id);
CREATE INDEX ON upload_files (created_at);

CREATE TABLE upload_chunks (
    file_id uuid NOT NULL REFERENCES upload_files ON DELETE CASCADE,
    number  integer NOT NULL, -- from 0
    data    bytea NOT NULL, -- 1 MiB, the last one less
    PRIMARY KEY (file_id, number)
);
-- Most uploads are compressed already: trying again costs time and gains nothing.
ALTER TABLE upload_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

-- What became of a file: its text, or the reason why there is none. Its id is the file's.
CREATE TABLE documents (
    id            uuid PRIMARY KEY,
    source_id     uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    run_id        text NOT NULL,
    position      integer NOT NULL,
    member        integer NOT NULL,
    name          text NOT NULL,
    characters    integer NOT NULL DEFAULT 0,
    text          text, -- until the run has ended
    error_code    text,
    error_message text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((error_code IS NULL) = (error_message IS NULL))
);
CREATE INDEX ON documents (source_id);
CREATE INDEX ON documents (run_id);
CREATE INDEX ON documents (created_at) WHERE text IS NOT NULL;

-- Unit separators between what Postgres would take for one word: each character of scripts that
-- are written without spaces (Chinese, Japanese, Thai and their like), and the parts of paths,
-- host names, addresses and tags. As each is a word of its own, any run of them is found, as a
-- phrase. Without the separators the text is what it was. Queries go through it too.
CREATE FUNCTION separate_words(text text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN regexp_replace(
        text,
        '([\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\uFF66-\uFF9F\U00020000-\U0003FFFF<./\\@])',
        E'\x1F\\1\x1F', 'g'
    );

-- The pieces of documents that a search finds: exact words of any language, and English stems.
-- Two columns, since in one the last word of the first would be the neighbour of the first word
-- of the second.
CREATE TABLE chunks (
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    number      integer NOT NULL, -- from 0
    source_id   uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    user_id     text NOT NULL,
    text        text NOT NULL,
    words       tsvector NOT NULL
        GENERATED ALWAYS AS (to_tsvector('simple', separate_words(text))) STORED,
    stems       tsvector NOT NULL
        GENERATED ALWAYS AS (to_tsvector('english', separate_words(text))) STORED,
    PRIMARY KEY (document_id, number)
);
CREATE INDEX ON chunks USING gin (words, stems);
CREATE INDEX ON chunks (user_id);
CREATE INDEX ON chunks (source_id);
