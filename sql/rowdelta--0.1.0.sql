-- rowdelta 0.1.0: the state of synced documents, and the ledger of runs.
--
-- One file for three ways in: CREATE EXTENSION rowdelta, psql -f (add -1 for one
-- transaction), and `rowdelta install`, which sends this very text. No superuser
-- is needed; the role needs CREATE on the database.
--
-- Error codes of our own: RD001 unknown mapping, RD002 the lease is not ours,
-- RD003 a document's state changed meanwhile.

CREATE SCHEMA IF NOT EXISTS rowdelta;

COMMENT ON SCHEMA rowdelta IS 'rowdelta: what is known of synced documents, and the ledger of runs';

CREATE FUNCTION rowdelta.version() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$ SELECT '0.1.0' $$;

COMMENT ON FUNCTION rowdelta.version() IS 'the version of the installed schema';

-- One row a mapping. The lease says which run may write under it, and until when.
CREATE TABLE rowdelta.mapping (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    definition   jsonb NOT NULL,
    digest       bytea NOT NULL,
    filled       text[] NOT NULL DEFAULT '{}',
    lease_token  uuid,
    lease_until  timestamptz,
    lease_holder text
);

COMMENT ON COLUMN rowdelta.mapping.digest IS 'of the mapping and the types of its columns';
COMMENT ON COLUMN rowdelta.mapping.filled IS
    'relations whose tables held rows at the end of the last run: an empty one was truncated or lost since';

-- One compact row a document. An update changes no indexed column and finds room on
-- its page, so that it stays a HOT update.
CREATE TABLE rowdelta.document (
    mapping     integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    key         bytea NOT NULL,
    raw         bytea,
    fingerprint bytea,
    relations   bytea NOT NULL,
    settled     boolean NOT NULL,
    absent      boolean NOT NULL DEFAULT false,
    coverage    bytea,
    PRIMARY KEY (mapping, key)
) WITH (fillfactor = 80);

COMMENT ON COLUMN rowdelta.document.key IS 'cells of the root''s key: int32 length and binary value each; NULL: the length -1';
COMMENT ON COLUMN rowdelta.document.raw IS 'of the document''s bytes; NULL: not known';
COMMENT ON COLUMN rowdelta.document.fingerprint IS 'of all its rows; NULL: rows were taken from it since';
COMMENT ON COLUMN rowdelta.document.relations IS 'fingerprints of its relations, 16 bytes each: a set';
COMMENT ON COLUMN rowdelta.document.settled IS 'false: to be done again by the next run';
COMMENT ON COLUMN rowdelta.document.absent IS 'its root row is marked: it was missing from a complete feed';
COMMENT ON COLUMN rowdelta.document.coverage IS 'what its fingerprints cover, for who makes them anew from its rows';

-- Rows that triggers stored otherwise than they were sent: of such a row both forms are known. Nothing is here of
-- tables without such triggers, nor of rows that these left as they were. It is no part of rowdelta.document, since
-- relations of one document may be stored at once.
CREATE TABLE rowdelta.rewritten (
    mapping  integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    key      bytea NOT NULL,
    relation text NOT NULL,
    forms    bytea NOT NULL,
    PRIMARY KEY (mapping, key, relation)
);

COMMENT ON TABLE rowdelta.rewritten IS 'rows that triggers stored otherwise than they were sent';
COMMENT ON COLUMN rowdelta.rewritten.key IS 'of the document, as in rowdelta.document';
COMMENT ON COLUMN rowdelta.rewritten.forms IS
    'of each such row hashes of it, and of its cells, as they are stored and as they were sent';

CREATE TABLE rowdelta.run (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping  integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    started  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished timestamptz,
    status   text NOT NULL DEFAULT 'running',
    report   jsonb
);

COMMENT ON COLUMN rowdelta.run.status IS 'running, done, failed, withheld or aborted';

CREATE TABLE rowdelta.failure (
    run       bigint NOT NULL REFERENCES rowdelta.run ON DELETE CASCADE,
    document  text,
    file      text,
    line      bigint,
    item      bigint,
    relation  text,
    path      text,
    sqlstate  text,
    message   text NOT NULL,
    retryable boolean NOT NULL
);

CREATE INDEX failure_run ON rowdelta.failure (run);

-- Limits on what one run may delete, set by whoever owns the database. A caller's own limits, and what it allows
-- explicitly, can only be stricter. To set one:
--   INSERT INTO rowdelta.guard (mapping, rows_max, percent_max) VALUES ('convocatorias', 5000, 5);
CREATE TABLE rowdelta.guard (
    mapping     text,
    rows_max    bigint CHECK (rows_max >= 0),
    percent_max numeric CHECK (percent_max BETWEEN 0 AND 100)
);

CREATE UNIQUE INDEX guard_mapping ON rowdelta.guard (coalesce(mapping, ''));

COMMENT ON TABLE rowdelta.guard IS 'limits on what one run may delete, stricter than any caller''s';
COMMENT ON COLUMN rowdelta.guard.mapping IS 'the name of a mapping; NULL: of all';
COMMENT ON COLUMN rowdelta.guard.rows_max IS 'rows that a run may delete from all tables, cascades included; NULL: not limited here';
COMMENT ON COLUMN rowdelta.guard.percent_max IS 'share of a table''s rows that a run may delete, in percent; NULL: not limited here';

-- Under CREATE EXTENSION the rows belong in a dump; elsewhere the tables are dumped anyway.
DO $$
DECLARE
    v_table text;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_depend
               WHERE refclassid = 'pg_catalog.pg_extension'::regclass AND deptype = 'e'
                 AND classid = 'pg_catalog.pg_class'::regclass AND objid = 'rowdelta.mapping'::regclass) THEN
        FOREACH v_table IN ARRAY ARRAY['mapping', 'document', 'rewritten', 'run', 'failure', 'guard'] LOOP
            PERFORM pg_catalog.pg_extension_config_dump(('rowdelta.' || v_table)::regclass, '');
        END LOOP;
    END IF;
END
$$;

-- rowdelta.register(p_name, p_definition, p_digest)
--
-- The id of the mapping, entered or renewed. A mapping that did not change is not written.
CREATE FUNCTION rowdelta.register(p_name text, p_definition jsonb, p_digest bytea) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_id integer;
BEGIN
    SELECT id INTO v_id FROM rowdelta.mapping WHERE name = p_name;
    IF NOT FOUND THEN
        INSERT INTO rowdelta.mapping AS m (name, definition, digest) VALUES (p_name, p_definition, p_digest)
        ON CONFLICT (name) DO UPDATE SET name = excluded.name
        RETURNING id INTO v_id;
    END IF;
    UPDATE rowdelta.mapping SET definition = p_definition, digest = p_digest
    WHERE id = v_id AND (digest, definition) IS DISTINCT FROM (p_digest, p_definition);
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION rowdelta.register(text, jsonb, bytea) IS 'enters or renews a mapping; gives its id';

-- rowdelta.acquire(p_mapping, p_holder, p_seconds)
--
-- The token of a new lease, or NULL while someone else holds a live one. Taking over an
-- expired lease waits for transactions that still write under it, and leaves them the key-share
-- lock on the mapping that their new documents' foreign key takes.
--
-- Locks:   the mapping's row, not its key; the mapping's advisory lock, exclusively, to the end of the transaction.
-- Raises:  RD001 unknown mapping.
CREATE FUNCTION rowdelta.acquire(p_mapping integer, p_holder text, p_seconds integer) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_until timestamptz;
    v_token uuid := gen_random_uuid();
BEGIN
    SELECT lease_until INTO v_until FROM rowdelta.mapping WHERE id = p_mapping FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown mapping %', p_mapping USING ERRCODE = 'RD001';
    END IF;
    IF v_until > clock_timestamp() THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('rowdelta'), p_mapping);
    UPDATE rowdelta.mapping
    SET lease_token = v_token, lease_holder = p_holder,
        lease_until = clock_timestamp() + make_interval(secs => p_seconds)
    WHERE id = p_mapping;
    RETURN v_token;
END
$$;

COMMENT ON FUNCTION rowdelta.acquire(integer, text, integer) IS 'takes the lease of a mapping; NULL: someone else has it';

-- rowdelta.renew(p_mapping, p_token, p_seconds): the heartbeat. False: the lease was lost.
CREATE FUNCTION rowdelta.renew(p_mapping integer, p_token uuid, p_seconds integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    UPDATE rowdelta.mapping SET lease_until = clock_timestamp() + make_interval(secs => p_seconds)
    WHERE id = p_mapping AND lease_token = p_token;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION rowdelta.renew(integer, uuid, integer) IS 'prolongs a lease; false: it was lost';

-- rowdelta.release(p_mapping, p_token): gives the lease back.
CREATE FUNCTION rowdelta.release(p_mapping integer, p_token uuid) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    UPDATE rowdelta.mapping SET lease_token = NULL, lease_until = NULL, lease_holder = NULL
    WHERE id = p_mapping AND lease_token = p_token
$$;

COMMENT ON FUNCTION rowdelta.release(integer, uuid) IS 'gives a lease back';

-- rowdelta.enter(p_mapping, p_token)
--
-- Every transaction that writes under a lease begins with it: a holder that was paused
-- beyond its lease cannot write after a takeover.
--
-- Locks:   the mapping's advisory lock, shared, to the end of the transaction.
-- Raises:  RD002 the lease is not ours any more.
CREATE FUNCTION rowdelta.enter(p_mapping integer, p_token uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('rowdelta'), p_mapping);
    IF NOT EXISTS (SELECT FROM rowdelta.mapping WHERE id = p_mapping AND lease_token = p_token) THEN
        RAISE EXCEPTION 'the lease of mapping % was taken over', p_mapping USING ERRCODE = 'RD002';
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.enter(integer, uuid) IS 'checks the lease for the rest of the transaction';

-- rowdelta.settled(p_mapping): raw fingerprint and key of every document that need not be looked at again.
CREATE FUNCTION rowdelta.settled(p_mapping integer) RETURNS TABLE (raw bytea, key bytea)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.raw, d.key FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.settled AND d.raw IS NOT NULL
$$;

COMMENT ON FUNCTION rowdelta.settled(integer) IS 'raw fingerprints of the documents that are done';

-- rowdelta.states(p_mapping, p_keys)
--
-- What is recorded of the given documents. One that was never synced yields no row.
CREATE FUNCTION rowdelta.states(p_mapping integer, p_keys bytea[])
    RETURNS TABLE (key bytea, raw bytea, fingerprint bytea, relations bytea, settled boolean, absent boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.key, d.raw, d.fingerprint, d.relations, d.settled, d.absent FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys)
$$;

COMMENT ON FUNCTION rowdelta.states(integer, bytea[]) IS 'what is recorded of documents, by key';

-- rowdelta.recorded(p_mapping, p_after, p_limit)
--
-- What is recorded of all documents, in the order of their keys: so many of those after a key (NULL: from the first on).
CREATE FUNCTION rowdelta.recorded(p_mapping integer, p_after bytea, p_limit integer)
    RETURNS TABLE (key bytea, relations bytea, settled boolean, coverage bytea)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.key, d.relations, d.settled, d.coverage FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key > coalesce(p_after, '') ORDER BY d.key LIMIT p_limit
$$;

COMMENT ON FUNCTION rowdelta.recorded(integer, bytea, integer) IS 'what is recorded of all documents, some at a time';

-- rowdelta.record(p_mapping, p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
--
-- Records documents, last in the transaction that wrote their rows: compare-and-set on the
-- fingerprint that was read before (p_new: there was none recorded). Of two writers of one
-- document the second waits for the first, and fails.
--
-- Locks:   the documents' rows.
-- Raises:  RD003 somebody else recorded one of them meanwhile.
CREATE FUNCTION rowdelta.record(
    p_mapping integer, p_keys bytea[], p_new boolean[], p_expected bytea[],
    p_raw bytea[], p_fingerprint bytea[], p_relations bytea[], p_settled boolean[], p_coverage bytea[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_updated bigint;
    v_inserted bigint;
BEGIN
    UPDATE rowdelta.document d
    SET raw = n.raw, fingerprint = n.fingerprint, relations = n.relations, settled = n.settled, coverage = n.coverage,
        absent = false
    FROM unnest(p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
        AS n (key, new, expected, raw, fingerprint, relations, settled, coverage)
    WHERE d.mapping = p_mapping AND d.key = n.key AND NOT n.new AND d.fingerprint IS NOT DISTINCT FROM n.expected;
    GET DIAGNOSTICS v_updated = ROW_COUNT;
    INSERT INTO rowdelta.document (mapping, key, raw, fingerprint, relations, settled, coverage)
    SELECT p_mapping, n.key, n.raw, n.fingerprint, n.relations, n.settled, n.coverage
    FROM unnest(p_keys, p_new, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
        AS n (key, new, raw, fingerprint, relations, settled, coverage)
    WHERE n.new
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;
    IF v_updated + v_inserted <> cardinality(p_keys) THEN
        RAISE EXCEPTION 'a document was recorded by someone else meanwhile' USING ERRCODE = 'RD003';
    END IF;
END
$$;

COMMENT ON FUNCTION rowdelta.record(integer, bytea[], boolean[], bytea[], bytea[], bytea[], bytea[], boolean[], bytea[]) IS
    'records documents by compare-and-set';

-- rowdelta.renew_raw(p_mapping, p_keys, p_expected, p_raw)
--
-- Records another spelling of documents whose rows did not change. A document that someone
-- else recorded meanwhile is left alone. Gives the number renewed.
CREATE FUNCTION rowdelta.renew_raw(p_mapping integer, p_keys bytea[], p_expected bytea[], p_raw bytea[])
    RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_renewed bigint;
BEGIN
    UPDATE rowdelta.document d SET raw = n.raw
    FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
    WHERE d.mapping = p_mapping AND d.key = n.key AND d.fingerprint = n.expected;
    GET DIAGNOSTICS v_renewed = ROW_COUNT;
    RETURN v_renewed;
END
$$;

COMMENT ON FUNCTION rowdelta.renew_raw(integer, bytea[], bytea[], bytea[]) IS
    'records another spelling of documents whose rows did not change';

-- rowdelta.unsettle(p_mapping, p_keys)
--
-- Forgets the fingerprints of documents: rows were taken from them, or they must be done
-- again for another reason. A writer that read the old state fails its compare-and-set.
CREATE FUNCTION rowdelta.unsettle(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    UPDATE rowdelta.document d SET raw = NULL, fingerprint = NULL, relations = '', settled = false
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.unsettle(integer, bytea[]) IS 'forgets what is recorded of documents';

-- rowdelta.forget(p_mapping, p_keys)
--
-- Drops what is recorded of documents whose rows have another key now. A writer that read the
-- old state fails its compare-and-set. Gives the number dropped.
CREATE FUNCTION rowdelta.forget(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    DELETE FROM rowdelta.document d WHERE d.mapping = p_mapping AND d.key = ANY (p_keys);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    DELETE FROM rowdelta.rewritten r WHERE r.mapping = p_mapping AND r.key = ANY (p_keys);
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.forget(integer, bytea[]) IS 'drops what is recorded of documents';

-- rowdelta.rewritten_rows(p_mapping, p_keys)
--
-- The rows of documents that triggers stored otherwise than they were sent: one row for each relation that has any.
CREATE FUNCTION rowdelta.rewritten_rows(p_mapping integer, p_keys bytea[])
    RETURNS TABLE (key bytea, relation text, forms bytea)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT r.key, r.relation, r.forms FROM rowdelta.rewritten r
    WHERE r.mapping = p_mapping AND r.key = ANY (p_keys)
$$;

COMMENT ON FUNCTION rowdelta.rewritten_rows(integer, bytea[]) IS
    'the rows of documents that triggers stored otherwise than they were sent';

-- rowdelta.record_rewritten(p_mapping, p_keys, p_relations, p_forms)
--
-- Records the rewritten rows of relations of documents, in place of those that were known; none: an empty string.
CREATE FUNCTION rowdelta.record_rewritten(p_mapping integer, p_keys bytea[], p_relations text[], p_forms bytea[])
    RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    DELETE FROM rowdelta.rewritten r USING unnest(p_keys, p_relations, p_forms) AS n (key, relation, forms)
    WHERE r.mapping = p_mapping AND r.key = n.key AND r.relation = n.relation AND n.forms = '';
    INSERT INTO rowdelta.rewritten AS r (mapping, key, relation, forms)
    SELECT p_mapping, n.key, n.relation, n.forms
    FROM unnest(p_keys, p_relations, p_forms) AS n (key, relation, forms)
    WHERE n.forms <> ''
    ON CONFLICT ON CONSTRAINT rewritten_pkey DO UPDATE SET forms = excluded.forms;
END
$$;

COMMENT ON FUNCTION rowdelta.record_rewritten(integer, bytea[], text[], bytea[]) IS
    'records the rows that triggers stored otherwise than they were sent';

-- rowdelta.present(p_mapping): the keys of all documents but those that are marked as absent.
CREATE FUNCTION rowdelta.present(p_mapping integer) RETURNS SETOF bytea
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.key FROM rowdelta.document d WHERE d.mapping = p_mapping AND NOT d.absent
$$;

COMMENT ON FUNCTION rowdelta.present(integer) IS 'keys of the documents that are not marked as absent';

-- rowdelta.absent(p_mapping, p_keys)
--
-- Notes that the root rows of documents are marked. Should one be in a feed again it is looked at. Gives the number
-- noted.
CREATE FUNCTION rowdelta.absent(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    UPDATE rowdelta.document d SET raw = NULL, settled = false, absent = true
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.absent(integer, bytea[]) IS 'notes that documents are marked as absent';

-- rowdelta.unsettle_all(p_mapping)
--
-- Every document is to be compared by the next run: a table lost its rows. Fingerprints stay, so that
-- writers at work keep their compare-and-set. Gives the number of documents.
CREATE FUNCTION rowdelta.unsettle_all(p_mapping integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    UPDATE rowdelta.document d SET raw = NULL, settled = false WHERE d.mapping = p_mapping AND d.settled;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.unsettle_all(integer) IS 'has every document compared by the next run';

-- rowdelta.settle(p_mapping, p_keys, p_fingerprints)
--
-- Declares documents done whose removals had been held back. One that somebody else
-- recorded meanwhile is left alone. Gives the number settled.
CREATE FUNCTION rowdelta.settle(p_mapping integer, p_keys bytea[], p_fingerprints bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    UPDATE rowdelta.document d SET settled = true
    FROM unnest(p_keys, p_fingerprints) AS n (key, fingerprint)
    WHERE d.mapping = p_mapping AND d.key = n.key AND d.fingerprint = n.fingerprint AND NOT d.settled;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.settle(integer, bytea[], bytea[]) IS
    'declares documents done whose removals had been held back';
