-- rowdelta 0.3.0: the state of synced documents, and the ledger of runs.
--
-- One file for three ways in: CREATE EXTENSION rowdelta, psql -f (add -1 for one
-- transaction), and `rowdelta install`, which sends this very text. No superuser
-- is needed; the role needs CREATE on the database.
--
-- Error codes of our own: RD001 unknown mapping, RD002 the lease is not ours,
-- RD003 a document's state changed meanwhile, RD004 the transaction is not READ COMMITTED.
--
-- What is recorded of documents stands in three tables; why that is right and what it
-- costs is in docs/state.md.

CREATE SCHEMA IF NOT EXISTS rowdelta;

COMMENT ON SCHEMA rowdelta IS 'rowdelta: what is known of synced documents, and the ledger of runs';

CREATE FUNCTION rowdelta.version() RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$ SELECT '0.3.0' $$;

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

-- What was recorded of documents since the last merge: a row a document. All that sessions
-- do side by side they do here. An update changes no indexed column and finds room on its
-- page, so that it stays a HOT update.
CREATE TABLE rowdelta.document (
    mapping     integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    key         bytea NOT NULL,
    raw         bytea,
    fingerprint bytea,
    relations   bytea NOT NULL,
    settled     boolean NOT NULL,
    absent      boolean NOT NULL DEFAULT false,
    coverage    bytea,
    respelled   boolean NOT NULL DEFAULT false,
    gone        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (mapping, key)
) WITH (fillfactor = 80);

COMMENT ON TABLE rowdelta.document IS 'what was recorded of documents since the last merge; of others see rowdelta.base';
COMMENT ON COLUMN rowdelta.document.key IS 'cells of the root''s key: int32 length and binary value each; NULL: the length -1';
COMMENT ON COLUMN rowdelta.document.raw IS 'of the document''s bytes; NULL: not known';
COMMENT ON COLUMN rowdelta.document.fingerprint IS 'of all its rows; NULL: rows were taken from it since';
COMMENT ON COLUMN rowdelta.document.relations IS
    'fingerprints of its relations: int16 number of them, a bit for each that is not that of no rows, and those of 16 bytes';
COMMENT ON COLUMN rowdelta.document.settled IS 'false: to be done again by the next run';
COMMENT ON COLUMN rowdelta.document.absent IS 'its root row is marked: it was missing from a complete feed';
COMMENT ON COLUMN rowdelta.document.coverage IS 'what its fingerprints cover, for who makes them anew from its rows';
COMMENT ON COLUMN rowdelta.document.respelled IS 'its bytes changed, and not its rows, since these were recorded';
COMMENT ON COLUMN rowdelta.document.gone IS 'nothing is recorded of it, though rowdelta.base has it';

-- What is recorded of all other documents, sorted by key, as many a row as fill a page.
CREATE TABLE rowdelta.base (
    mapping     integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    lowest      bytea NOT NULL,
    keys        bytea[] NOT NULL,
    raw         bytea[] NOT NULL,
    fingerprint bytea[] NOT NULL,
    relations   bytea[] NOT NULL,
    settled     boolean[] NOT NULL,
    absent      boolean[] NOT NULL,
    coverage    bytea[] NOT NULL,
    respelled   boolean[] NOT NULL,
    PRIMARY KEY (mapping, lowest)
) WITH (toast_tuple_target = 8160);

COMMENT ON TABLE rowdelta.base IS 'what is recorded of documents, but for those in rowdelta.document; written by merges';
COMMENT ON COLUMN rowdelta.base.lowest IS 'the first of the keys';
COMMENT ON COLUMN rowdelta.base.keys IS 'in order; the other arrays are as the columns of rowdelta.document';

-- What a run reads at its start of the documents in the base: a row for each range of
-- consecutive rows of it.
CREATE TABLE rowdelta.skip (
    mapping   integer NOT NULL REFERENCES rowdelta.mapping ON DELETE CASCADE,
    lowest    bytea NOT NULL,
    highest   bytea NOT NULL,
    documents integer NOT NULL,
    unsettled integer NOT NULL,
    keys      bytea[] NOT NULL,
    raws      bytea NOT NULL,
    PRIMARY KEY (mapping, lowest)
) WITH (toast_tuple_target = 8160);

COMMENT ON TABLE rowdelta.skip IS 'keys and raw fingerprints of the settled documents of rowdelta.base';
COMMENT ON COLUMN rowdelta.skip.lowest IS 'the first key of the range';
COMMENT ON COLUMN rowdelta.skip.highest IS 'the last key of the range';
COMMENT ON COLUMN rowdelta.skip.documents IS 'that the base has in the range';
COMMENT ON COLUMN rowdelta.skip.unsettled IS 'those among them that are not settled';
COMMENT ON COLUMN rowdelta.skip.keys IS 'of the settled ones, in order';
COMMENT ON COLUMN rowdelta.skip.raws IS 'of the same documents, 16 bytes each';

-- Their rows fill pages by themselves, and hashes do not compress.
ALTER TABLE rowdelta.base
    ALTER keys SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL, ALTER fingerprint SET STORAGE EXTERNAL,
    ALTER relations SET STORAGE EXTERNAL;
ALTER TABLE rowdelta.skip ALTER keys SET STORAGE EXTERNAL, ALTER raws SET STORAGE EXTERNAL;

CREATE VIEW rowdelta.state AS
    SELECT d.mapping, d.key, d.raw, d.fingerprint, d.relations, d.settled, d.absent, d.coverage, d.respelled
    FROM rowdelta.document d WHERE NOT d.gone
    UNION ALL
    SELECT b.mapping, e.key, e.raw, e.fingerprint, e.relations, e.settled, e.absent, e.coverage, e.respelled
    FROM rowdelta.base b
    CROSS JOIN LATERAL unnest(b.keys, b.raw, b.fingerprint, b.relations, b.settled, b.absent, b.coverage, b.respelled)
        AS e (key, raw, fingerprint, relations, settled, absent, coverage, respelled)
    WHERE NOT EXISTS (SELECT FROM rowdelta.document d WHERE d.mapping = b.mapping AND d.key = e.key);

COMMENT ON VIEW rowdelta.state IS 'what is recorded of documents, a row each, for people: it unpacks all of it';

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
        FOREACH v_table IN ARRAY ARRAY['mapping', 'document', 'base', 'skip', 'rewritten', 'run', 'failure', 'guard'] LOOP
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

-- rowdelta.hold_base(p_mapping)
--
-- Keeps merges out for the rest of the transaction: what a later statement reads of the base stays
-- true until the end. Merges change it under the same lock. That a later statement sees the
-- merges before it takes READ COMMITTED.
--
-- Locks:   the mapping's base lock, shared, to the end of the transaction.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.hold_base(p_mapping integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'what is recorded of documents changes in READ COMMITTED transactions only'
            USING ERRCODE = 'RD004';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('rowdelta.base'), p_mapping);
END
$$;

COMMENT ON FUNCTION rowdelta.hold_base(integer) IS 'keeps merges out for the rest of the transaction';

-- rowdelta.base_of(p_mapping, p_keys)
--
-- What the base has of the given documents, whatever was recorded of them since.
CREATE FUNCTION rowdelta.base_of(p_mapping integer, p_keys bytea[]) RETURNS SETOF rowdelta.document
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    -- A plan that was made while the table was small would read all of it once it no longer is.
    SET enable_seqscan = off
AS $$
    SELECT p_mapping, k.key, b.raw[i.at], b.fingerprint[i.at], b.relations[i.at], b.settled[i.at], b.absent[i.at],
           b.coverage[i.at], b.respelled[i.at], false
    FROM unnest(p_keys) AS k (key)
    CROSS JOIN LATERAL (SELECT * FROM rowdelta.base b WHERE b.mapping = p_mapping AND b.lowest <= k.key
                        ORDER BY b.lowest DESC LIMIT 1) AS b
    CROSS JOIN LATERAL array_position(b.keys, k.key) AS i (at)
    WHERE i.at IS NOT NULL
$$;

COMMENT ON FUNCTION rowdelta.base_of(integer, bytea[]) IS 'what the base has of documents, whatever was recorded since';

-- rowdelta.bring(p_mapping, p_keys)
--
-- Copies what the base has of documents to where it can be changed: afterwards each of them of which
-- anything is recorded has a recent row. One that somebody else is bringing or recording is waited for.
--
-- Locks:   the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.bring(p_mapping integer, p_keys bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
BEGIN
    PERFORM rowdelta.hold_base(p_mapping);
    INSERT INTO rowdelta.document SELECT * FROM rowdelta.base_of(p_mapping, p_keys) ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION rowdelta.bring(integer, bytea[]) IS 'gives documents of the base recent rows';

-- rowdelta.settled(p_mapping): raw fingerprint and key of every document that need not be looked at again.
CREATE FUNCTION rowdelta.settled(p_mapping integer) RETURNS TABLE (raw bytea, key bytea)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT d.raw, d.key FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.settled AND d.raw IS NOT NULL AND NOT d.gone
    UNION ALL
    SELECT substring(s.raws FROM (16 * k.at - 15)::integer FOR 16), k.key
    FROM rowdelta.skip s CROSS JOIN LATERAL unnest(s.keys) WITH ORDINALITY AS k (key, at)
    WHERE s.mapping = p_mapping
      AND NOT EXISTS (SELECT FROM rowdelta.document d WHERE d.mapping = p_mapping AND d.key = k.key)
$$;

COMMENT ON FUNCTION rowdelta.settled(integer) IS 'raw fingerprints of the documents that are done';

-- rowdelta.states(p_mapping, p_keys)
--
-- What is recorded of the given documents. One that was never synced yields no row.
CREATE FUNCTION rowdelta.states(p_mapping integer, p_keys bytea[])
    RETURNS TABLE (key bytea, raw bytea, fingerprint bytea, relations bytea, settled boolean, absent boolean,
                   respelled boolean)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
    SELECT d.key, d.raw, d.fingerprint, d.relations, d.settled, d.absent, d.respelled FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone
    UNION ALL
    SELECT b.key, b.raw, b.fingerprint, b.relations, b.settled, b.absent, b.respelled
    FROM rowdelta.base_of(p_mapping, p_keys) b
    LEFT JOIN LATERAL (SELECT true AS is_there FROM rowdelta.document d
                       WHERE d.mapping = p_mapping AND d.key = b.key LIMIT 1) AS recent ON true
    WHERE recent.is_there IS NULL
$$;

COMMENT ON FUNCTION rowdelta.states(integer, bytea[]) IS 'what is recorded of documents, by key';

-- rowdelta.span(p_mapping, p_from, p_to)
--
-- What is recorded of all documents from a key on and before another (NULL: to the end). No range may go
-- beyond either.
CREATE FUNCTION rowdelta.span(p_mapping integer, p_from bytea, p_to bytea) RETURNS SETOF rowdelta.document
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    -- Whether there is an end says how to find it.
    SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN QUERY SELECT d.* FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key >= p_from AND (p_to IS NULL OR d.key < p_to) AND NOT d.gone;
    RETURN QUERY SELECT b.mapping, e.*, false
    FROM rowdelta.base b
    CROSS JOIN LATERAL unnest(b.keys, b.raw, b.fingerprint, b.relations, b.settled, b.absent, b.coverage, b.respelled)
        AS e (key, raw, fingerprint, relations, settled, absent, coverage, respelled)
    WHERE b.mapping = p_mapping AND b.lowest >= p_from AND (p_to IS NULL OR b.lowest < p_to)
      AND NOT EXISTS (SELECT FROM rowdelta.document d WHERE d.mapping = p_mapping AND d.key = e.key);
END
$$;

COMMENT ON FUNCTION rowdelta.span(integer, bytea, bytea) IS 'what is recorded of all documents of some ranges';

-- rowdelta.recorded(p_mapping, p_after, p_limit)
--
-- What is recorded of all documents, in the order of their keys: so many of those after a key (NULL: from the first on).
CREATE FUNCTION rowdelta.recorded(p_mapping integer, p_after bytea, p_limit integer)
    RETURNS TABLE (key bytea, fingerprint bytea, relations bytea, settled boolean, coverage bytea)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    v_after bytea := coalesce(p_after, '');
    v_from  bytea;
    v_to    bytea;
    v_left  integer := p_limit;
    v_found integer;
BEGIN
    -- Range by range: the keys of one, and those after it that no range holds.
    SELECT s.lowest INTO v_from FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest <= v_after
    ORDER BY s.lowest DESC LIMIT 1;
    v_from := coalesce(v_from, '');
    LOOP
        SELECT s.lowest INTO v_to FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest > v_from
        ORDER BY s.lowest LIMIT 1;
        RETURN QUERY
        SELECT e.key, e.fingerprint, e.relations, e.settled, e.coverage
        FROM ((SELECT d.key, d.fingerprint, d.relations, d.settled, d.coverage FROM rowdelta.document d
               WHERE d.mapping = p_mapping AND d.key > v_after AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to)
                 AND NOT d.gone
               ORDER BY d.key LIMIT v_left)
              UNION ALL
              SELECT e.key, e.fingerprint, e.relations, e.settled, e.coverage
              FROM rowdelta.base b
              CROSS JOIN LATERAL unnest(b.keys, b.fingerprint, b.relations, b.settled, b.coverage)
                  AS e (key, fingerprint, relations, settled, coverage)
              WHERE b.mapping = p_mapping AND b.lowest >= v_from AND (v_to IS NULL OR b.lowest < v_to)
                AND e.key > v_after
                AND NOT EXISTS (SELECT FROM rowdelta.document d WHERE d.mapping = p_mapping AND d.key = e.key)) AS e
        ORDER BY e.key LIMIT v_left;
        GET DIAGNOSTICS v_found = ROW_COUNT;
        v_left := v_left - v_found;
        EXIT WHEN v_left <= 0 OR v_to IS NULL;
        v_from := v_to;
    END LOOP;
END
$$;

COMMENT ON FUNCTION rowdelta.recorded(integer, bytea, integer) IS 'what is recorded of all documents, some at a time';

-- rowdelta.record(p_mapping, p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
--
-- Records documents, last in the transaction that wrote their rows: compare-and-set on the
-- fingerprint that was read before (p_new: there was none recorded). Of two writers of one
-- document the second waits for the first, and fails.
--
-- A document without a recent row gets one. That is the compare-and-set then: its entry in the base
-- cannot change meanwhile, and somebody else's recent row keeps ours out.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
-- Raises:  RD003 somebody else recorded one of them meanwhile.
CREATE FUNCTION rowdelta.record(
    p_mapping integer, p_keys bytea[], p_new boolean[], p_expected bytea[],
    p_raw bytea[], p_fingerprint bytea[], p_relations bytea[], p_settled boolean[], p_coverage bytea[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_updated bigint;
    v_inserted bigint;
BEGIN
    PERFORM rowdelta.hold_base(p_mapping);
    UPDATE rowdelta.document d
    SET raw = n.raw, fingerprint = n.fingerprint, relations = n.relations, settled = n.settled, coverage = n.coverage,
        absent = false, respelled = false, gone = false
    FROM unnest(p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
        AS n (key, new, expected, raw, fingerprint, relations, settled, coverage)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND d.gone = n.new AND (n.new OR d.fingerprint IS NOT DISTINCT FROM n.expected);
    GET DIAGNOSTICS v_updated = ROW_COUNT;
    INSERT INTO rowdelta.document (mapping, key, raw, fingerprint, relations, settled, coverage)
    SELECT p_mapping, n.key, n.raw, n.fingerprint, n.relations, n.settled, n.coverage
    FROM unnest(p_keys, p_new, p_expected, p_raw, p_fingerprint, p_relations, p_settled, p_coverage)
        AS n (key, new, expected, raw, fingerprint, relations, settled, coverage)
    LEFT JOIN LATERAL (SELECT * FROM rowdelta.base b WHERE b.mapping = p_mapping AND b.lowest <= n.key
                       ORDER BY b.lowest DESC LIMIT 1) AS b ON true
    CROSS JOIN LATERAL array_position(b.keys, n.key) AS i (at)
    WHERE n.new = (i.at IS NULL) AND (n.new OR b.fingerprint[i.at] IS NOT DISTINCT FROM n.expected)
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
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.renew_raw(p_mapping integer, p_keys bytea[], p_expected bytea[], p_raw bytea[])
    RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_renewed bigint;
    v_inserted bigint;
BEGIN
    PERFORM rowdelta.hold_base(p_mapping);
    UPDATE rowdelta.document d SET raw = n.raw, respelled = true
    FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND NOT d.gone AND d.fingerprint = n.expected;
    GET DIAGNOSTICS v_renewed = ROW_COUNT;
    INSERT INTO rowdelta.document (mapping, key, raw, fingerprint, relations, settled, absent, coverage, respelled)
    SELECT p_mapping, n.key, n.raw, n.expected, b.relations[i.at], b.settled[i.at], b.absent[i.at], b.coverage[i.at], true
    FROM unnest(p_keys, p_expected, p_raw) AS n (key, expected, raw)
    CROSS JOIN LATERAL (SELECT * FROM rowdelta.base b WHERE b.mapping = p_mapping AND b.lowest <= n.key
                        ORDER BY b.lowest DESC LIMIT 1) AS b
    CROSS JOIN LATERAL array_position(b.keys, n.key) AS i (at)
    WHERE b.fingerprint[i.at] = n.expected
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;
    RETURN v_renewed + v_inserted;
END
$$;

COMMENT ON FUNCTION rowdelta.renew_raw(integer, bytea[], bytea[], bytea[]) IS
    'records another spelling of documents whose rows did not change';

-- rowdelta.unsettle(p_mapping, p_keys)
--
-- Forgets the fingerprints of documents: rows were taken from them, or they must be done
-- again for another reason. A writer that read the old state fails its compare-and-set.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.unsettle(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    IF cardinality(p_keys) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM rowdelta.bring(p_mapping, p_keys);
    UPDATE rowdelta.document d SET raw = NULL, fingerprint = NULL, relations = '', settled = false, respelled = false
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.unsettle(integer, bytea[]) IS 'forgets what is recorded of documents';

-- rowdelta.forget(p_mapping, p_keys)
--
-- Drops what is recorded of documents whose rows have another key now. A writer that read the
-- old state fails its compare-and-set. Gives the number dropped.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.forget(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_based bytea[];
    v_gone  bigint;
    v_count bigint;
BEGIN
    PERFORM rowdelta.bring(p_mapping, p_keys);
    v_based := ARRAY(SELECT b.key FROM rowdelta.base_of(p_mapping, p_keys) b);
    UPDATE rowdelta.document d
    SET raw = NULL, fingerprint = NULL, relations = '', settled = false, absent = false, coverage = NULL,
        respelled = false, gone = true
    WHERE d.mapping = p_mapping AND d.key = ANY (v_based) AND NOT d.gone;
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    DELETE FROM rowdelta.document d WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    DELETE FROM rowdelta.rewritten r WHERE r.mapping = p_mapping AND r.key = ANY (p_keys);
    RETURN v_gone + v_count;
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
    SELECT d.key FROM rowdelta.document d WHERE d.mapping = p_mapping AND NOT d.absent AND NOT d.gone
    UNION ALL
    SELECT e.key FROM rowdelta.base b CROSS JOIN LATERAL unnest(b.keys, b.absent) AS e (key, absent)
    WHERE b.mapping = p_mapping AND NOT e.absent
      AND NOT EXISTS (SELECT FROM rowdelta.document d WHERE d.mapping = p_mapping AND d.key = e.key)
$$;

COMMENT ON FUNCTION rowdelta.present(integer) IS 'keys of the documents that are not marked as absent';

-- rowdelta.counted(p_mapping): how many documents are recorded, and how many of them are not settled.
CREATE FUNCTION rowdelta.counted(p_mapping integer) RETURNS TABLE (documents bigint, unsettled bigint)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT r.documents + coalesce(s.documents, 0) - h.documents, r.unsettled + coalesce(s.unsettled, 0) - h.unsettled
    FROM (SELECT count(*) FILTER (WHERE NOT d.gone) AS documents,
                 count(*) FILTER (WHERE NOT d.gone AND NOT d.settled) AS unsettled, array_agg(d.key) AS keys
          FROM rowdelta.document d WHERE d.mapping = p_mapping) AS r
    CROSS JOIN (SELECT sum(s.documents) AS documents, sum(s.unsettled) AS unsettled
                FROM rowdelta.skip s WHERE s.mapping = p_mapping) AS s
    -- Those of the base of which something else was recorded since.
    CROSS JOIN LATERAL (SELECT count(*) AS documents, count(*) FILTER (WHERE NOT b.settled) AS unsettled
                        FROM rowdelta.base_of(p_mapping, r.keys) b) AS h
$$;

COMMENT ON FUNCTION rowdelta.counted(integer) IS 'how many documents are recorded, and how many of them are not settled';

-- rowdelta.absent(p_mapping, p_keys)
--
-- Notes that the root rows of documents are marked. Should one be in a feed again it is looked at. Gives the number
-- noted.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.absent(p_mapping integer, p_keys bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM rowdelta.bring(p_mapping, p_keys);
    UPDATE rowdelta.document d SET raw = NULL, settled = false, absent = true
    WHERE d.mapping = p_mapping AND d.key = ANY (p_keys) AND NOT d.gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.absent(integer, bytea[]) IS 'notes that documents are marked as absent';

-- rowdelta.unsettle_all(p_mapping)
--
-- Every document is to be compared by the next run: a table lost its rows. Fingerprints stay, so that
-- writers at work keep their compare-and-set. Gives the number of documents.
--
-- Locks:   the documents' rows; the mapping's base lock, exclusively, to the end of the transaction: it waits for
--          the transactions that record documents.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.unsettle_all(p_mapping integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('rowdelta.base'), p_mapping);
    PERFORM rowdelta.hold_base(p_mapping);
    SELECT c.documents - c.unsettled INTO v_count FROM rowdelta.counted(p_mapping) c;
    UPDATE rowdelta.document d SET raw = NULL, settled = false WHERE d.mapping = p_mapping AND d.settled;
    UPDATE rowdelta.base b
    SET raw = ARRAY(SELECT CASE WHEN NOT e.settled THEN e.raw END
                    FROM unnest(b.raw, b.settled) WITH ORDINALITY AS e (raw, settled, at) ORDER BY e.at),
        settled = array_fill(false, ARRAY[cardinality(b.keys)])
    WHERE b.mapping = p_mapping AND true = ANY (b.settled);
    UPDATE rowdelta.skip s SET keys = '{}', raws = '', unsettled = s.documents
    WHERE s.mapping = p_mapping AND s.unsettled < s.documents;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.unsettle_all(integer) IS 'has every document compared by the next run';

-- rowdelta.settle(p_mapping, p_keys, p_fingerprints)
--
-- Declares documents done whose removals had been held back. One that somebody else
-- recorded meanwhile is left alone. Gives the number settled.
--
-- Locks:   the documents' rows; the mapping's base lock, shared, to the end of the transaction.
CREATE FUNCTION rowdelta.settle(p_mapping integer, p_keys bytea[], p_fingerprints bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM rowdelta.bring(p_mapping, p_keys);
    UPDATE rowdelta.document d SET settled = true
    FROM unnest(p_keys, p_fingerprints) AS n (key, fingerprint)
    CROSS JOIN LATERAL (SELECT d.ctid AS place FROM rowdelta.document d
                        WHERE d.mapping = p_mapping AND d.key = n.key LIMIT 1) AS found
    WHERE d.ctid = found.place AND NOT d.gone AND d.fingerprint = n.fingerprint AND NOT d.settled;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION rowdelta.settle(integer, bytea[], bytea[]) IS
    'declares documents done whose removals had been held back';

-- rowdelta.pack(p_mapping, p_documents)
--
-- Writes documents to the base, where none may be between the first of them and the last. Every row is filled as far as
-- a page goes, with the same share of its documents as the others.
CREATE FUNCTION rowdelta.pack(p_mapping integer, p_documents rowdelta.document[]) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    WITH sized AS (
        -- Elements of an array have a head of four bytes, and begin at multiples of four.
        SELECT d.*, octet_length(d.key) + octet_length(d.relations) + coalesce(octet_length(d.coverage), 0) + 64 AS width,
               octet_length(d.key) + 22 AS skip_width
        FROM unnest(p_documents) AS d
    ), parted AS (
        SELECT s.*, (sum(s.width) OVER (ORDER BY s.key) - s.width) * div(7699 + sum(s.width) OVER (), 7700)
                    / sum(s.width) OVER () AS place
        FROM sized s
    ), packed AS MATERIALIZED (
        SELECT array_agg(p.key ORDER BY p.key) AS keys, array_agg(p.raw ORDER BY p.key) AS raw,
               array_agg(p.fingerprint ORDER BY p.key) AS fingerprint, array_agg(p.relations ORDER BY p.key) AS relations,
               array_agg(p.settled ORDER BY p.key) AS settled, array_agg(p.absent ORDER BY p.key) AS absent,
               array_agg(p.coverage ORDER BY p.key) AS coverage, array_agg(p.respelled ORDER BY p.key) AS respelled,
               sum(p.skip_width) AS skip_width
        FROM parted p GROUP BY floor(p.place)
    ), written AS (
        INSERT INTO rowdelta.base (mapping, lowest, keys, raw, fingerprint, relations, settled, absent, coverage, respelled)
        SELECT p_mapping, p.keys[1], p.keys, p.raw, p.fingerprint, p.relations, p.settled, p.absent, p.coverage, p.respelled
        FROM packed p
    ), ranged AS (
        SELECT p.keys, p.raw, p.settled, div(sum(p.skip_width) OVER (ORDER BY p.keys[1]) - p.skip_width, 6000) AS range
        FROM packed p
    )
    INSERT INTO rowdelta.skip (mapping, lowest, highest, documents, unsettled, keys, raws)
    SELECT p_mapping, (array_agg(e.key ORDER BY e.key))[1], (array_agg(e.key ORDER BY e.key DESC))[1], count(*),
           count(*) FILTER (WHERE NOT e.settled),
           coalesce(array_agg(e.key ORDER BY e.key) FILTER (WHERE e.settled AND octet_length(e.raw) = 16), '{}'),
           coalesce(string_agg(e.raw, '' ORDER BY e.key) FILTER (WHERE e.settled AND octet_length(e.raw) = 16), '')
    FROM ranged r CROSS JOIN LATERAL unnest(r.keys, r.raw, r.settled) AS e (key, raw, settled)
    GROUP BY r.range
$$;

COMMENT ON FUNCTION rowdelta.pack(integer, rowdelta.document[]) IS 'writes documents to the base';

-- rowdelta.merge_share(): how many recent rows, as a share of the base, make a merge worth its while. A database, or a
-- session, may set its own: SET rowdelta.merge_share = 0.5.
CREATE FUNCTION rowdelta.merge_share() RETURNS float8
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT coalesce(nullif(current_setting('rowdelta.merge_share', true), '')::float8, 0.2)
$$;

COMMENT ON FUNCTION rowdelta.merge_share() IS 'recent rows, as a share of the base, from which on they are merged';

-- rowdelta.merge_due(p_mapping): whether a merge is worth its while. A few hundred recent rows never are, unless the
-- database has a share of its own.
CREATE FUNCTION rowdelta.merge_due(p_mapping integer) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, rowdelta, pg_temp
AS $$
    SELECT (SELECT count(*) FROM rowdelta.document d WHERE d.mapping = p_mapping)
           > greatest(CASE WHEN coalesce(current_setting('rowdelta.merge_share', true), '') = '' THEN 500 ELSE 0 END,
                      rowdelta.merge_share()
                      * (SELECT coalesce(sum(s.documents), 0) FROM rowdelta.skip s WHERE s.mapping = p_mapping))
$$;

COMMENT ON FUNCTION rowdelta.merge_due(integer) IS 'whether a merge is worth its while';

-- rowdelta.merge(p_mapping, p_from, p_documents)
--
-- Moves recent rows to the base, those from a key on ('': from the first) and of some `p_documents`: what is recorded
-- stays the same. Where few of so many documents have recent rows these are left. Gives the key at which to go on, in a
-- transaction of its own; NULL: that was all, or somebody is at work.
--
-- Locks:   the mapping's base lock, exclusively, to the end of the transaction, if nobody has it; it waits for nobody.
-- Raises:  RD004 the transaction is not READ COMMITTED.
CREATE FUNCTION rowdelta.merge(p_mapping integer, p_from bytea, p_documents integer DEFAULT 5000) RETURNS bytea
    LANGUAGE plpgsql
    SET search_path = pg_catalog, rowdelta, pg_temp
    SET enable_seqscan = off
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_from      bytea := p_from;
    v_to        bytea;
    v_cut       bytea;
    v_recent    bigint;
    v_based     bigint;
    v_documents rowdelta.document[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('rowdelta.base'), p_mapping) THEN
        RETURN NULL;
    END IF;
    PERFORM rowdelta.hold_base(p_mapping);
    -- From the beginning of the range that holds the key: somebody else may have merged since it was given.
    SELECT s.lowest INTO v_cut FROM rowdelta.skip s
    WHERE s.mapping = p_mapping AND s.lowest <= p_from ORDER BY s.lowest DESC LIMIT 1;
    IF EXISTS (SELECT FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest = v_cut AND s.highest >= p_from) THEN
        v_from := v_cut;
    END IF;
    -- To the beginning of a range, before which there are enough documents in the base;
    SELECT s.lowest INTO v_to
    FROM (SELECT s.lowest, sum(s.documents) OVER (ORDER BY s.lowest) - s.documents AS before
          FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest >= v_from) AS s
    WHERE s.before >= p_documents ORDER BY s.lowest LIMIT 1;
    -- or, if that is sooner, to a key before which there are enough recent rows, or the beginning of the next range if
    -- one holds it.
    SELECT d.key INTO v_cut FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key >= v_from ORDER BY d.key OFFSET p_documents LIMIT 1;
    IF v_cut IS NOT NULL THEN
        IF v_cut <= (SELECT s.highest FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest <= v_cut
                     ORDER BY s.lowest DESC LIMIT 1) THEN
            v_cut := (SELECT s.lowest FROM rowdelta.skip s WHERE s.mapping = p_mapping AND s.lowest > v_cut
                      ORDER BY s.lowest LIMIT 1);
        END IF;
        v_to := least(v_to, v_cut);
    END IF;
    SELECT count(*) INTO v_recent FROM rowdelta.document d
    WHERE d.mapping = p_mapping AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to);
    SELECT coalesce(sum(s.documents), 0) INTO v_based FROM rowdelta.skip s
    WHERE s.mapping = p_mapping AND s.lowest >= v_from AND (v_to IS NULL OR s.lowest < v_to);
    -- Half the share that makes a merge due: what is left everywhere does not make it due again.
    IF v_recent > 0 AND v_recent >= rowdelta.merge_share() / 2 * v_based THEN
        v_documents := ARRAY(SELECT d FROM rowdelta.span(p_mapping, v_from, v_to) AS d);
        DELETE FROM rowdelta.document d
        WHERE d.mapping = p_mapping AND d.key >= v_from AND (v_to IS NULL OR d.key < v_to);
        DELETE FROM rowdelta.base b
        WHERE b.mapping = p_mapping AND b.lowest >= v_from AND (v_to IS NULL OR b.lowest < v_to);
        DELETE FROM rowdelta.skip s
        WHERE s.mapping = p_mapping AND s.lowest >= v_from AND (v_to IS NULL OR s.lowest < v_to);
        PERFORM rowdelta.pack(p_mapping, v_documents);
    END IF;
    RETURN v_to;
END
$$;

COMMENT ON FUNCTION rowdelta.merge(integer, bytea, integer) IS 'moves recent rows to the base, a part of them';
